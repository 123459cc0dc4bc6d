"""Unsupervised SimCSE (Gao et al., arXiv 2104.08821) on the sentences of 106 English Wikipedia articles, in about two minutes on two CPU cores.

    python -m research.train --config=configs/contrastive/simcse_tiny.py --workdir=runs/simcse_tiny
"""

from configs import base


def get_config():
    c = base.get_config()
    c.model.update(vocab_size=4096, max_length=64, width=128, layers=2, heads=4, mlp_width=512, pool="mean", dropout=0.1)
    c.model.update(norm="pre", initializer_stddev=0.09, dtype="float32", scan_layers=False)
    c.objective.update(name="simcse", temperature=0.05, projection_width=128)
    c.data.update(source="text_views", name="wikipedia_sample", batch_size=128, eval_batch_size=256, length=32)
    c.probe.update(evaluators=("linear",), name="movie_reviews", source="labelled_text")
    c.optimizer.update(learning_rate=1e-3, warmup_steps=50, clip_norm=1.0)
    c.run.update(steps=300, log_every=20, eval_every=100, save_every=300)
    return c
