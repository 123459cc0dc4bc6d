"""CLIP (arXiv 2103.00020) in small: pictures of emoji and their names, in two minutes on two CPU cores.

Validation is on 195 emoji whose names were never seen; their words often were. One batch of an evaluation holds them all, so that the recalls within
the batch are those over the whole split. What it reaches at least (its loss rises in the second half, as 1,716 pairs are learned by heart, while
the recalls still rise):

    in_batch_image_to_text_recall_at_1 0.12 (chance 0.005)
    in_batch_image_to_text_recall_at_5 0.30 (chance 0.026)
    in_batch_text_to_image_recall_at_1 0.12 (chance 0.005)
    in_batch_text_to_image_recall_at_5 0.29 (chance 0.026)

    python -m research.train --config=configs/contrastive/clip_tiny.py --workdir=runs/clip_tiny
"""

from configs.contrastive import clip_b16


def get_config():
    c = clip_b16.get_config()
    c.model.embedding_width = 64
    c.model.first.update(image_size=32, patch_size=8, width=64, layers=3, heads=4, mlp_width=256, pool="mean", dropout=0.1)
    c.model.second.update(name="bert", vocab_size=1024, max_length=16, width=64, layers=1, heads=4, mlp_width=256, pool="mean", dropout=0.1)
    for tower in (c.model.first, c.model.second):
        tower.update(initializer_stddev=0.12, dtype="float32", scan_layers=False, scale_residual_initializer=False)
    c.model.dtype = "float32"
    c.data.update(name="emoji", text_field="text", train_split="train", validation_split="validation", tokenizer_type="wordpiece", length=16)
    c.data.update(batch_size=256, eval_batch_size=200, crop_area=0.6, flip=False)
    c.optimizer.update(name="muon", learning_rate=5e-3, momentum=0.95, weight_decay=0.1)
    c.optimizer.update(schedule="warmup_stable_decay", warmup_steps=20, decay_steps=125)
    c.run.update(steps=200, log_every=20, eval_every=100, save_every=200, eval_batches=None)
    return c
