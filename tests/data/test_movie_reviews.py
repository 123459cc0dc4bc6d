import io
import tarfile

import pytest

from research import tables
from research.core.errors import UserError
from research.data import movie_reviews
from research.data.corpus import dataset_builder
from research.data.movie_reviews import scored_sentences
from research.data.records import Records

TABLE = '1_1\t2.5\tA "good one &amp;amp; more.\r\n1_2\t-0.5\tBad.\r\n2_1\t0.0\tNeither.\r\n2_2\t1.0\tBad.\r\n9_1\t-1\tWorse.\r\n5_1\t0.5\tFair.\r\n10_1\t3\tBest.\r\n10_2\t-3\tWorst.'


def test_neutral_and_repeated_sentences_are_left_out():
    assert scored_sentences(TABLE) == [
        ("1_1", 2.5, 'A "good one & more.'),
        ("1_2", -0.5, "Bad."),
        ("9_1", -1.0, "Worse."),
        ("5_1", 0.5, "Fair."),
        ("10_1", 3.0, "Best."),
        ("10_2", -3.0, "Worst."),
    ]


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An archive as the package has it, of which `TABLE` is the file of tweets."""
    path, data = tmp_path / "data.tar.gz", TABLE.encode()
    with tarfile.open(path, "w:gz") as files:
        entry = tarfile.TarInfo("hutto_ICWSM_2014/tweets_GroundTruth.txt")
        entry.size = len(data)
        files.addfile(entry, io.BytesIO(data))
    monkeypatch.setattr(movie_reviews, "package_member", lambda *_: path)
    return path


def test_a_variant_is_read_with_its_labels_and_a_text_is_in_one_split(archive, tmp_path):
    builder = dataset_builder(tables.DATASETS, "movie_reviews/tweets", str(tmp_path))
    found = {split: Records(builder, split, {"text_field": ("text", "text")}) for split in ("train", "validation", "test")}
    read = {
        split: sorted((r["text"].decode(), int(r["label"]), float(r["score"])) for r in (x[i] for i in range(len(x)))) for split, x in found.items()
    }
    assert read["train"] == [('A "good one & more.', 1, 2.5), ("Bad.", 0, -0.5), ("Worse.", 0, -1.0)]
    assert read["validation"] == [("Best.", 1, 3.0), ("Worst.", 0, -3.0)]
    assert read["test"] == [("Fair.", 1, 0.5)]
    assert builder.info.features["label"].names == ["negative", "positive"]


def test_an_unknown_variant_is_named():
    with pytest.raises(UserError, match="movie_reviews/books.*movies, tweets, products, editorials"):
        dataset_builder(tables.DATASETS, "movie_reviews/books", None)
    with pytest.raises(UserError, match="wikipedia_sample there is one kind only"):
        dataset_builder(tables.DATASETS, "wikipedia_sample/large", None)
    assert dataset_builder(tables.DATASETS, "movie_reviews", None).builder_config.name == "movies"
