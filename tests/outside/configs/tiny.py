"""minGRU with unlikelihood on texts that count: 10 seconds on two cores, next-token accuracy 0.5 at least (always guessing the most common token: 0.05).

python -m research.train --config=configs/tiny.py --workdir=runs/tiny
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    c = base.get_config()
    c.model.update(name="paper.recurrence:recurrence", vocab_size=320, width=32, layers=2, mlp_width=64, dtype="float32")
    c.objective.name = "paper.unlikelihood:Unlikelihood"
    c.objective.alpha = 0.1  # a field of our own
    c.data.update(name="paper.counting:Counting", source="packed_text", tokenizer_type="byte_bpe", batch_size=16, eval_batch_size=16, length=64)
    c.optimizer.update(learning_rate=1e-2, warmup_steps=10)
    c.run.update(steps=100, log_every=10, eval_every=50, save_every=50, best_metric="validation/next_token_accuracy", best_mode="max")
    return c
