"""SigLIP (arXiv 2303.15343) in small: as configs/contrastive/clip_tiny.py with the pairwise sigmoid loss, in two minutes on two CPU cores.

The bias begins near the logarithm of one pair among the 256 of a batch, as the paper's -10 does for its 32,768. What it reaches at least for 195
emoji whose names were never seen:

    in_batch_image_to_text_recall_at_1 0.11 (chance 0.005)
    in_batch_image_to_text_recall_at_5 0.28 (chance 0.026)
    in_batch_text_to_image_recall_at_1 0.11 (chance 0.005)
    in_batch_text_to_image_recall_at_5 0.26 (chance 0.026)

    python -m research.train --config=configs/contrastive/siglip_tiny.py --workdir=runs/siglip_tiny
"""

from configs.contrastive import clip_tiny


def get_config():
    c = clip_tiny.get_config()
    c.model.temperature = 0.1
    c.objective.update(name="siglip", initial_bias=-5.5)
    return c
