"""BERT-tiny (2 layers of 128, arXiv 1908.08962) by the paper's own recipe, on 106 English Wikipedia articles.

Plain BERT, where configs/quickstart.py cuts corners for speed (Muon, wide initial weights, no dropout). On one CPU core 20 minutes; on the
validation articles it reached masked accuracy 0.155 (always guessing the most common token 0.041) and next-sentence accuracy 0.576 (chance 0.5).

    python -m research.train --config=configs/bert/tiny.py --workdir=runs/bert_tiny
"""

from configs import base


def get_config():
    c = base.get_config()
    c.model.update(vocab_size=4096, max_length=128, width=128, layers=2, heads=2, mlp_width=512, dtype="float32", scan_layers=False)
    c.data.update(name="wikipedia_sample", batch_size=128, eval_batch_size=32, length=128, short_length=32)
    c.optimizer.update(learning_rate=2e-3, warmup_steps=200)
    c.run.update(steps=2000, log_every=20, eval_every=250, save_every=500)
    return c
