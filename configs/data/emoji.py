"""Google's emoji (Noto) without those that look the same but for their colours, as skins and hearts do, by a perceptual hash.

    python -m research.prepare --config=configs/data/emoji.py
    python -m research.train --config=configs/contrastive/clip_tiny.py --config.data.name=emoji_shapes --workdir=runs/emoji_shapes
"""

from configs.data import base
from research.data.emoji import CATEGORIES


def get_config():
    c = base.get_config()
    c.name = "emoji_shapes"
    c.input.update(format="tfds", name="emoji", image_field="image")
    c.rules = ("fields", "near_images")
    c.fields.required = ("image", "text")
    c.near_images.distance = 2
    c.output.update(fields=("image", "text", "label"), label_field="label", classes=tuple(CATEGORIES), validation=0.1, split_by="text")
    return c
