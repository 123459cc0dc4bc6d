"""Documents that have text of evaluation sets."""

import json

import pytest

from research.core.errors import UserError
from research.curation.contamination import HIT, Contamination, evaluation_examples, identity
from research.curation.documents import Dropped
from research.curation.engine import Engine
from research.curation.shards import Shards
from tests.curation.stages import after, texts

FOX = "The quick brown fox jumps over the lazy dog."


def contamination(ngram=5, min_words=3, **sets: list[str]) -> Contamination:
    return Contamination(tuple(sets), ngram, min_words, lambda name: texts(*sets[name], name=name))


def dropped(name: str, number: int, text: str) -> Dropped:
    return Dropped(f"has text of {name}", {"key": f"{name}:{number}", "text": text})


def told(stage: Contamination, folder, *parts) -> dict:
    """What the manifest says of each evaluation set."""
    shards = Shards(folder / "shards")
    shards.folder.mkdir(parents=True)
    for number, documents in enumerate(parts):
        shards.write(number, documents)
    return stage.compare(Engine(1, []), shards.folder, len(parts), folder / "stage")["evaluation_sets"]


def test_a_document_with_a_run_of_a_text_that_evaluates_goes_with_that_example(tmp_path):
    stage = contamination(test=["Another example of four words or more.", FOX])
    documents = texts("He said: BROWN FOX, jumps over the moon", "the quick brown fox sleeps", "over the lazy dog")
    (results,) = after(stage, tmp_path, documents)
    assert results == [dropped("test", 1, FOX), documents[1], documents[2]]


def test_a_text_shorter_than_the_run_counts_whole_if_it_is_long_enough(tmp_path):
    stage = contamination(test=["only three words", "two words"])
    documents = texts("here are only three words of it", "two words", "only three")
    (results,) = after(stage, tmp_path, documents)
    assert results == [dropped("test", 0, "only three words"), documents[1], documents[2]]


def test_of_several_examples_the_first_is_named_in_the_order_of_the_sets(tmp_path):
    stage = contamination(dev=["over the lazy"], test=[FOX, f"Again: {FOX}"])
    results = after(stage, tmp_path, texts("quick brown fox jumps over"), texts(f"It is so: {FOX}", "quick brown fox", name="e"))
    assert results[0] == [dropped("test", 0, FOX)]
    assert results[1][0] == dropped("dev", 0, "over the lazy")


def test_all_examples_that_any_document_has_are_counted_each_once(tmp_path):
    """Also those which are not named: of a document with several, and of a run that several share."""
    test = [FOX, f"Again: {FOX}", "never seen in any document", "too short", "the last of the five examples"]
    stage = contamination(test=test, dev=["one two three four"], none=["nobody has this"])
    parts = [texts(f"{FOX} One two three four. {test[4]}", "clean"), texts(FOX, "one two three four", name="e"), texts("clean too", name="f")]
    assert told(stage, tmp_path, *parts) == {
        "test": {"examples": 5, "too_short": 1, "hit": 3},
        "dev": {"examples": 1, "too_short": 0, "hit": 1},
        "none": {"examples": 1, "too_short": 0, "hit": 0},
    }
    hit = [json.loads(line) for line in (tmp_path / "stage" / HIT).read_text().splitlines()]
    assert hit == [{"set": "test", "key": "test:0"}, {"set": "test", "key": "test:1"}, {"set": "test", "key": "test:4"}, {"set": "dev", "key": "dev:0"}]


def test_where_no_example_is_hit_there_is_no_line(tmp_path):
    told(contamination(test=[FOX]), tmp_path, texts("clean"))
    assert (tmp_path / "stage" / HIT).read_text() == ""


def test_an_evaluation_set_is_another_if_any_text_of_it_is():
    one = identity(texts("a b", "c"))
    assert one == identity(texts("a b", "c", name="elsewhere"))
    assert one not in {identity(texts(*other)) for other in ((), ("a b",), ("a b", "d"), ("a bc", ""), ("a", "bc"), ("c", "a b"))}


def test_a_template_that_all_examples_share_takes_no_more_room_than_one(tmp_path):
    """Of a document the first example is kept, and of a shard each run once: not every document with every example."""
    examples = [f"answer with one of the options {i}" for i in range(300)]
    assert told(contamination(test=examples), tmp_path, texts(*["Answer with one of the options!"] * 300))["test"]["hit"] == 300
    assert max(path.stat().st_size for path in (tmp_path / "stage").glob("*0000.npy")) < 300 * 16 + 200


def test_examples_of_a_file_are_known_by_their_lines_and_of_a_data_set_by_their_numbers(tmp_path, cache):
    (tmp_path / "a.txt").write_text("One.\n\nCafé.\n", encoding="utf-8")
    assert list(evaluation_examples({}, str(tmp_path / "a.txt"))) == [
        {"key": f"{tmp_path / 'a.txt'}:{line}", "text": text} for line, text in ((1, "One."), (2, ""), (3, "Café."))
    ]
    examples = list(evaluation_examples({}, "tests.tiny_labelled_text:Reviews:train:text"))
    assert examples[3]["key"] == "tests.tiny_labelled_text:Reviews:train:text:3" and examples[3]["text"]


def test_a_set_that_cannot_be_read_is_told(tmp_path, cache):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match="a.txt is not UTF-8"):
        list(evaluation_examples({}, str(tmp_path / "a.txt")))
    with pytest.raises(UserError, match="nothing:train is no file, and no data set either: name one as NAME:SPLIT:FIELD"):
        list(evaluation_examples({}, "nothing:train"))
    for name, message in (("nowhere:text", "has no split 'nowhere'"), ("train:body", "'body', but .* has: "), ("train:label", "which is no text")):
        with pytest.raises(UserError, match=f"contamination.sets: tests.tiny_labelled_text:Reviews:{name}: .*{message}"):
            next(evaluation_examples({}, f"tests.tiny_labelled_text:Reviews:{name}"))
    with pytest.raises(UserError, match="contamination.sets: mnist_5k:train.:9:image: ") as e:
        next(evaluation_examples({}, "mnist_5k:train[:9:image"))
    assert "\n" not in str(e.value)


def test_sets_that_say_nothing_are_refused(tmp_path):
    with pytest.raises(UserError, match="test has no text of 3 words"):
        after(contamination(test=["two words"]), tmp_path, texts("a"))
    with pytest.raises(UserError, match="name sets"):
        contamination()
    with pytest.raises(UserError, match="min_words lie between 1 and ngram"):
        contamination(ngram=2, test=[FOX])
