"""A TFDS data set of prompts, each with a completion that was chosen and one that was rejected."""

import tensorflow_datasets as tfds

PAIRS = [
    ("The cat", " sat on the mat.", " hat."),
    ("Dogs", " ran.", " did not."),
    ("It", "", " was empty."),
    ("A very long prompt that fills the row all by itself, and more", " so.", " no."),
    ("Cats", " sat there.", " ran away at once."),
    ("The mat", " is red.", " is not."),
]


class TinyPreferences(tfds.core.GeneratorBasedBuilder):
    name = "tiny_preferences"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(dict.fromkeys(("prompt", "better", "worse"), tfds.features.Text())))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in ("train", "validation")}

    def _generate_examples(self):
        yield from ((str(i), dict(zip(("prompt", "better", "worse"), pair))) for i, pair in enumerate(PAIRS))
