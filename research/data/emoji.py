"""A TFDS data set of emoji with their names: Google's pictures (Noto), as the npm package emoji-datasource-google carries them."""

import hashlib
import json
import re

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from research.data.fetch import package_members
from research.data.images import on_white

PACKAGE = "npm:emoji-datasource-google@16.0.0"
MEMBERS = {
    "img/google/sheets-256/32.png": "d2217df38f59c51b2f28608b657adc54724dc6de12bc149129a63d28fa1aa057",
    "emoji.json": "1d602e65be88772bf8cc368ce16b855d719eeddbafe128d471b80203f494d29f",
}
SIZE = 32  # pixels of a side; on the sheet each has a border of one more
CATEGORIES = [
    "Activities",
    "Animals & Nature",
    "Component",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
]


class Emoji(tfds.core.GeneratorBasedBuilder):
    """`image` (32, 32, 3) uint8 on white, its name as `text`, and its category as `label`. About a tenth of the names are for validation."""

    name = "emoji"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Tensor(shape=(SIZE, SIZE, 3), dtype=np.uint8),
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=CATEGORIES),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), homepage="https://github.com/iamcal/emoji-data", license="Apache-2.0"
        )

    def _split_generators(self, dl_manager):
        sheet, listing = package_members(PACKAGE, MEMBERS)
        with Image.open(sheet) as file:
            pictures = np.asarray(on_white(file))
        emoji = [(entry["unified"], example(entry, pictures)) for entry in json.loads(listing.read_text())]
        return {
            "train": self._generate_examples(emoji, held_out=False),
            "validation": self._generate_examples(emoji, held_out=True),
        }

    def _generate_examples(self, emoji, held_out: bool):
        for key, example in emoji:
            if is_held_out(example["text"]) == held_out:
                yield key, example


def example(entry: dict, pictures: np.ndarray) -> dict:
    """What the sheet of pictures (H, W, 3) and the list of emoji say of one."""
    left, top = (entry[axis] * (SIZE + 2) + 1 for axis in ("sheet_x", "sheet_y"))
    words = re.findall(r"\w+(?:['’]\w+)*", entry["name"].lower())
    return {"image": pictures[top : top + SIZE, left : left + SIZE], "text": " ".join(words), "label": entry["category"]}


def is_held_out(name: str) -> bool:
    """One name in ten, by its hash: two emoji of one name are never on both sides."""
    return hashlib.sha256(name.encode()).digest()[0] % 10 == 0
