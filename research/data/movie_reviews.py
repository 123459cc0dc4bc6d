"""A TFDS data set of sentences and how people feel about them, from the source distribution of vaderSentiment.

10,605 sentences of movie reviews, and as variants tweets, product reviews and newspaper editorials, each scored from -4 to 4 by at least
fourteen people (Hutto and Gilbert, VADER, ICWSM 2014).
"""

import csv
import html
import io
import tarfile

import numpy as np
import tensorflow_datasets as tfds

from research.data.fetch import package_member

PACKAGE = "sdist:vaderSentiment==3.3.2"
MEMBER = "additional_resources/hutto_ICWSM_2014.tar.gz"
SHA256 = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"
FILES = {"movies": "movieReviewSnippets", "tweets": "tweets", "products": "amazonReviewSnippets", "editorials": "nytEditorialSnippets"}


class MovieReviews(tfds.core.GeneratorBasedBuilder):
    """`text`, its mean `score`, and the `label` that the sign of the score is; neutral sentences and repeated ones are left out.

    The sentences of every tenth review, article or tweet are for validation, those of another tenth for test: a text has all its sentences in one
    split.
    "movie_reviews" alone is its variant "movies".
    """

    name = "movie_reviews"
    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=variant) for variant in FILES]

    def _info(self):
        label = tfds.features.ClassLabel(names=["negative", "positive"])
        features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "label": label, "score": tfds.features.Scalar(np.float32)})
        return self.dataset_info_from_configs(features=features, homepage="https://github.com/cjhutto/vaderSentiment", license="MIT")

    def _split_generators(self, dl_manager):
        with tarfile.open(package_member(PACKAGE, MEMBER, SHA256)) as archive:
            text = archive.extractfile(f"hutto_ICWSM_2014/{FILES[self.builder_config.name]}_GroundTruth.txt").read().decode("utf-8-sig")
        sentences = scored_sentences(text)
        split_of = lambda key: {0: "validation", 5: "test"}.get(
            int(key.partition("_")[0]) % 10, "train"
        )  # 309_8 is the eighth sentence of review 309
        return {
            split: self._generate_examples([sentence for sentence in sentences if split_of(sentence[0]) == split])
            for split in ("train", "validation", "test")
        }

    def _generate_examples(self, sentences):
        for key, score, text in sentences:
            yield key, {"text": text, "label": int(score > 0), "score": score}


def scored_sentences(table: str) -> list[tuple[str, float, str]]:
    """(key, score, text) of the lines of a table; of those with the same text the first, and none with score 0."""
    found: dict[str, tuple[str, float, str]] = {}
    for key, score, text in csv.reader(io.StringIO(table, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE):
        text = html.unescape(html.unescape(text)).strip()  # some are escaped twice
        found.setdefault(text, (key, float(score), text))
    return [sentence for sentence in found.values() if sentence[1]]
