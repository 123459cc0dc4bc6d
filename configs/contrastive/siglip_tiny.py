"""SigLIP (arXiv 2303.15343) in small: as configs/contrastive/clip_tiny.py with the pairwise sigmoid loss, in two to three minutes on two CPU cores.

Floors for 195 emoji whose names were never seen, under what a run reached at step 150 (recall@1 0.11, @5 0.27) before it was cut off:

    in_batch_image_to_text_recall_at_1 0.07 (chance 0.005)
    in_batch_image_to_text_recall_at_5 0.2 (chance 0.026)
    in_batch_text_to_image_recall_at_1 0.07 (chance 0.005)
    in_batch_text_to_image_recall_at_5 0.2 (chance 0.026)

    python -m research.train --config=configs/contrastive/siglip_tiny.py --workdir=runs/siglip_tiny
"""

from configs.contrastive import clip_tiny


def get_config():
    c = clip_tiny.get_config()
    c.model.temperature = 0.1
    c.objective.name = "siglip"
    return c
