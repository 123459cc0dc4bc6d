"""Unsupervised SimCSE (Gao et al., arXiv 2104.08821) on the sentences of 106 English Wikipedia articles, in under three minutes on two CPU cores.

From scratch, with no pretrained encoder under it, dropout alone teaches nothing of meaning: the views of a sentence are therefore cropped, and words
left out of each (the paper's table 1 has both). What it reaches at least, on sentences of the validation articles, 256 at a time (alignment and
uniformity as in arXiv 2005.10242: lower is better). Before training all embeddings lie nearly in one point; after it they are spread out:

    uniformity -2.5 (untrained -0.18; all in one point 0)
    alignment 0.3 (untrained 0.05; of two sentences drawn by chance about 2)
    contrastive_accuracy 0.99 (chance 0.004; untrained 0.89)
    knn_accuracy 0.48 (the most common of 8 articles 0.22; untrained 0.406)
    linear_accuracy 0.48 (the same; untrained 0.495)

The last two say whether frozen embeddings know which of the validation articles a sentence is from, by the vote of the 20 nearest other sentences
and by logistic regression. What is near is more often of one article than before; what a linear map finds was there already.

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
