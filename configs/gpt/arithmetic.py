"""A small GPT that has seen sums of two numbers under 100, and not yet learned to add: what configs/rl/grpo_arithmetic.py goes on from. 3 minutes on two CPU cores.

    python -m research.train --config=configs/gpt/arithmetic.py --workdir=runs/arithmetic
    python -m research.generate --workdir=runs/arithmetic --prompt="17+25=" --max_tokens=8
"""

from configs.gpt import tiny


def get_config():
    c = tiny.get_config()
    c.model.update(vocab_size=257, max_length=128)
    c.data.name = "arithmetic"
    c.optimizer.update(name="adamw", learning_rate=1e-3, weight_decay=0.1, warmup_steps=20, decay_steps=50)
    c.run.update(steps=250, log_every=25, eval_every=125, save_every=250)
    return c
