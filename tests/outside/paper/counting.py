"""A data set of the paper's own: texts that count, up or down, by threes."""

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds


class Counting(tfds.core.GeneratorBasedBuilder):
    name = "counting"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(0, 90), "validation": self._generate_examples(90, 100)}

    def _generate_examples(self, first: int, last: int) -> Iterator[tuple[str, dict[str, str]]]:
        for start in range(first, last):
            step = 3 if start % 2 else -3
            yield str(start), {"text": " ".join(str(start + step * i) for i in range(30))}
