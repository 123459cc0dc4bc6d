"""Handwritten digits without those that look the same, by a perceptual hash of which not one bit differs.

    python -m research.prepare --config=configs/data/digits.py
    python -m research.train --config=configs/vit/tiny.py --config.data.name=digits --config.data.label_field=label --workdir=runs/digits
"""

from configs.data import base


def get_config():
    c = base.get_config()
    c.name = "digits"
    c.input.update(format="tfds", name="mnist_5k", image_field="image")
    c.rules = ("fields", "near_images")
    c.fields.required = ("image",)
    c.near_images.distance = 0
    c.output.update(fields=("image", "label"), label_field="label", classes=tuple("0123456789"), validation=0.2)
    return c
