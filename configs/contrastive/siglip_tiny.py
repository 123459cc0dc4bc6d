"""SigLIP in small: 1,716 emoji and their names, in about two minutes on two CPU cores.

    python -m research.train --config=configs/contrastive/siglip_tiny.py --workdir=runs/siglip_tiny
"""

from configs.contrastive import clip_tiny


def get_config():
    c = clip_tiny.get_config()
    c.model.temperature = 0.1
    c.objective.name = "siglip"
    return c
