"""Unsupervised SimCSE (Gao et al., arXiv 2104.08821) on the sentences of 106 English Wikipedia articles, in two to four minutes on two CPU cores.

What it reaches at least, on sentences of the validation articles, 256 at a time (alignment and uniformity as in arXiv 2005.10242: lower is better).
Before training all embeddings lie nearly in one point; after it they are spread out, and a sentence still meets its other dropout:

    uniformity -3.3 (untrained -0.17; all in one point 0)
    alignment 0.4 (untrained 0.05; of two sentences drawn by chance about 2)
    contrastive_accuracy 0.99 (chance 0.004; untrained 0.88)
    linear_accuracy 0.55 (chance 0.5; untrained 0.59)

The last is whether a sentence of a movie review is positive, by a linear classifier of the embeddings, and tells what so small a corpus cannot give:
of sentiment the embeddings know no more than an untrained model's.

    python -m research.train --config=configs/contrastive/simcse_tiny.py --workdir=runs/simcse_tiny
"""

from configs import base


def get_config():
    c = base.get_config()
    c.model.update(vocab_size=4096, max_length=64, width=128, layers=2, heads=4, mlp_width=512, pool="mean", dropout=0.1)
    c.model.update(norm="pre", initializer_stddev=0.09, dtype="float32", scan_layers=False)
    c.objective.update(name="simcse", temperature=0.05, projection_width=128)
    c.data.update(source="text_views", name="wikipedia_sample", batch_size=128, eval_batch_size=256, length=32, crop_words=0.5, word_dropout=0.3)
    c.probe.update(evaluators=("knn", "linear"), name="wikipedia_topics", source="labelled_text")
    c.optimizer.update(learning_rate=1e-3, warmup_steps=50, clip_norm=1.0)
    c.run.update(steps=300, log_every=20, eval_every=100, save_every=300)
    return c
