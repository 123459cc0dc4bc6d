"""A small GPT on 106 English Wikipedia articles, in about 2 minutes on two CPU cores.

What it reaches at least, on the validation articles:

    log_perplexity 4.3 (nats a token; a unigram model of the training split 5.99: a perplexity of 74 against 400)

    python -m research.train --config=configs/gpt/tiny.py --workdir=runs/gpt_tiny
    python -m research.generate --workdir=runs/gpt_tiny --prompt="The history of" --max_tokens=100
"""

from configs.gpt import small


def get_config():
    c = small.get_config()
    c.model.update(vocab_size=1024, max_length=256, width=128, layers=3, heads=4, mlp_width=512)
    c.model.update(dropout=0.0, initializer_stddev=0.09, dtype="float32", scan_layers=False)
    c.data.update(name="wikipedia_sample", train_split="train", validation_split="validation", length=128, batch_size=32, eval_batch_size=32)
    c.optimizer.update(name="muon", learning_rate=5e-3, momentum=0.95, weight_decay=0.05)
    c.optimizer.update(schedule="warmup_stable_decay", warmup_steps=50, decay_steps=100)
    c.run.update(steps=300, log_every=20, eval_every=100, save_every=100, eval_batches=None)
    return c
