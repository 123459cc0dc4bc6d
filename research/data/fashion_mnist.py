"""A TFDS data set of 70,000 pictures of clothes (Fashion-MNIST, arXiv 1708.07747), which a Debian package carries."""

import gzip

import numpy as np
import tensorflow_datasets as tfds

from research.core.errors import UserError
from research.data.fetch import package_members

PACKAGE = "deb:dataset-fashion-mnist"
FOLDER = "usr/share/datasets/fashion-mnist"
SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
LABELS = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


class FashionMnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has one of that name, fetched from elsewhere
    """`image` (28, 28, 1) uint8, light on dark, and `label`. The 10,000 of the test set are for validation."""

    name = "fashion_mnist"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8), "label": tfds.features.ClassLabel(names=LABELS)}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            license="MIT",
        )

    def _split_generators(self, dl_manager):
        train_images, train_labels, test_images, test_labels = package_members(PACKAGE, {f"{FOLDER}/{name}": hash for name, hash in SHA256.items()})
        return {
            "train": self._generate_examples(read_idx(train_images), read_idx(train_labels)),
            "validation": self._generate_examples(read_idx(test_images), read_idx(test_labels)),
        }

    def _generate_examples(self, images, labels):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"image": image[..., None], "label": int(label)}


def read_idx(path) -> np.ndarray:
    """The array of a gzipped IDX file of bytes: two zeros, type 8, the number of dimensions, each dimension as four bytes, then the bytes."""
    with gzip.open(path) as file:
        data = file.read()
    shape = np.frombuffer(data, ">u4", data[3], offset=4)
    if data[:3] != b"\0\0\x08" or len(data) != 4 + 4 * data[3] + np.prod(shape, dtype=np.int64):
        raise UserError(f"{path} is no IDX file of bytes, or is cut off: fetch it again.")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
