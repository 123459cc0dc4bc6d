"""Sums in text, each with its answer: made on the spot, and checked as easily."""

import zlib

import tensorflow_datasets as tfds

TERMS = 100  # of either number, counted from 0


class Arithmetic(tfds.core.GeneratorBasedBuilder):
    """`text` such as 17+25=42, and of it `prompt` 17+25= and `answer` 42: all 10,000 sums of two numbers under 100, one in ten for validation."""

    name = "arithmetic"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(dict.fromkeys(("text", "prompt", "answer"), tfds.features.Text()))
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "validation")}

    def _generate_examples(self, split):
        for a in range(TERMS):
            for b in range(TERMS):
                prompt, answer = f"{a}+{b}=", f"{a + b}"
                if (zlib.crc32(prompt.encode()) % 10 == 0) == (split == "validation"):
                    yield prompt, {"text": prompt + answer, "prompt": prompt, "answer": answer}
