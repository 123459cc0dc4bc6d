"""A TFDS data set of invented pictures, stored as the PNG files that standard image data sets hold, with labels and captions."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

COLORS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
SHAPES = ("square", "bar")


class TinyImages(tfds.core.GeneratorBasedBuilder):
    """A square or a bar of one of three colours, somewhere on white; the label is the colour."""

    name = "tiny_images"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=list(COLORS)),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 48), "validation": self._generate_examples(1, 18)}

    def _generate_examples(self, seed, count):
        for i in range(count):
            color, shape = list(COLORS)[i % 3], SHAPES[i // 3 % 2]
            yield i, {"image": io.BytesIO(png(picture(color, shape, np.random.default_rng([seed, i])))), "text": f"a {color} {shape}", "label": color}


def picture(color: str, shape: str, rng) -> np.ndarray:
    """(12, 10, 3) uint8."""
    image = np.full((12, 10, 3), 255, np.uint8)
    height, width = (4, 4) if shape == "square" else (2, 8)
    top, left = rng.integers(12 - height + 1), rng.integers(10 - width + 1)
    image[top : top + height, left : left + width] = COLORS[color]
    return image


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
