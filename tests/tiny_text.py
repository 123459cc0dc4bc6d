"""A TFDS data set of invented documents: each keeps to words of its own, so that next-sentence prediction can be learned."""

import numpy as np
import tensorflow_datasets as tfds

TOPICS = 12


class TinyText(tfds.core.GeneratorBasedBuilder):
    """Documents of sentences of two-letter words, five words to a topic."""

    name = "tiny_text"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"title": tfds.features.Text(), "text": tfds.features.Text()})
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples("train", 40), "validation": self._generate_examples("validation", 13)}

    def _generate_examples(self, split, count):
        for i in range(count):
            yield f"{split}{i}", {"title": f"{split} {i}", "text": document(i, 0 if split == "train" else 1)}


def document(i: int, seed: int) -> str:
    rng = np.random.default_rng([seed, i])
    words = [chr(97 + i % TOPICS) + letter for letter in "abcde"]
    sentences = [" ".join(rng.choice(words, rng.integers(3, 8))).capitalize() + "." for _ in range(rng.integers(8, 20))]
    return "\n".join(" ".join(sentences[start : start + 4]) for start in range(0, len(sentences), 4))


class TinyTopics(tfds.core.GeneratorBasedBuilder):
    """Lines of those documents, labelled by which half of the topics they are of."""

    name = "tiny_topics"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["low", "high"])}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 40), "validation": self._generate_examples(1, 12)}

    def _generate_examples(self, seed, count):
        for i in range(count):
            yield str(i), {"text": document(i, seed).split("\n")[0], "label": int(i % TOPICS >= TOPICS // 2)}
