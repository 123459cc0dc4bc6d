"""A small GPT that has seen sums of two numbers under 100, and not yet learned to add: what configs/rl/grpo_arithmetic.py goes on from. 3 minutes on two CPU cores.

    python -m research.train --config=configs/gpt/arithmetic.py --workdir=runs/arithmetic
    python -m research.generate --workdir=runs/arithmetic --prompt="17+25=" --max_tokens=8
"""

from configs.gpt import small


def get_config():
    c = small.get_config()
    c.model.update(vocab_size=257, max_length=128, width=128, layers=3, heads=4, mlp_width=512)
    c.model.update(dropout=0.0, initializer_stddev=0.09, dtype="float32", scan_layers=False)
    c.data.update(name="arithmetic", train_split="train", validation_split="validation", length=128, batch_size=32, eval_batch_size=32)
    c.optimizer.update(learning_rate=1e-3, schedule="warmup_stable_decay", warmup_steps=20, decay_steps=50)
    c.run.update(steps=250, log_every=25, eval_every=125, save_every=250, eval_batches=None)
    return c
