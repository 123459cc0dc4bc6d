"""The command that prepares data, and its recipes."""

import contextlib
import functools
import hashlib
import importlib
import io
import json
import pathlib
import sys

import pytest

from research import build, prepare, report, train
from research.core import config as config_lib
from research.core.errors import UserError
from tests.tiny import tiny_config

ROOT = pathlib.Path(__file__).parents[1]
RECIPES = sorted(path.relative_to(ROOT) for path in (ROOT / "configs" / "data").glob("*.py") if "def get_config" in path.read_text())
WORDS = "the quick brown fox and its friends have to be over the lazy dog that sleeps in a warm and quiet place of the old house".split()


def texts(count: int) -> list[str]:
    """English enough for the rules."""
    return [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 26)) + f" and that is number {i} of the list." for i in range(1, count + 1)]


def write(folder: pathlib.Path, lines) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return folder / "a.jsonl"


def run(folder: pathlib.Path, *more, rules="('fields','unicode','exact_duplicates')", files="*.jsonl") -> pathlib.Path:
    """Runs the command on the base recipe, with few rules, in this process: where the data set is."""
    argv = ["prepare", "--config=configs/data/base.py", f"--config.input.files={folder / 'in' / files}", f"--config.output.dir={folder / 'tfds'}"]
    prepare.main([*argv, "--workers=1", f"--config.rules={rules}", *more])
    return folder / "tfds" / "mine" / "1.0.0"


@pytest.fixture
def command(tmp_path):
    return functools.partial(run, tmp_path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(where a data set is, the command that made it, what that said)."""
    folder = tmp_path_factory.mktemp("prepared")
    write(folder / "in", [{"text": text} for text in texts(60) + texts(5)] + ["no JSON"])
    (folder / "test.txt").write_text(f"Nothing of it is in there, whoever may look for it.\n{texts(7)[6]}\n")
    more = (f"--config.contamination.sets=('{folder / 'test.txt'}',)", "--config.contamination.ngram=32")
    again = functools.partial(run, folder, *more, rules="('fields','unicode','exact_duplicates','contamination')")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        place = again()
    return place, again, said.getvalue()


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_recipe_is_made_of_what_there_is(recipe, monkeypatch):
    monkeypatch.setattr(prepare, "FETCHERS", dict.fromkeys(prepare.FETCHERS, lambda: "fetched/*.jsonl"))
    _, config = config_lib.parse(["prepare", f"--config={recipe}"])
    made = prepare.recipe(config)
    assert [name for name, _ in made.rules] == list(config.rules)
    assert "dir" not in made.fields["output"]  # where a data set lies does not change what it is


def test_every_rule_can_be_made_of_the_base_recipe():
    _, config = config_lib.parse(["prepare", "--config=configs/data/base.py", "--config.contamination.sets=('a',)", f"--config.word_list.file={__file__}"])
    for name, rule in prepare.RULES.items():
        assert rule(config), name


def test_raw_text_becomes_a_data_set_with_a_report(prepared):
    place, _, said = prepared
    assert "| exact_duplicates | 65 | 60 | 5 |" in said
    assert f"contamination: of {place.parents[2] / 'test.txt'} 1 of 2 examples were found (0 too short); which: contaminated.jsonl" in said
    assert {path.name for path in place.iterdir()} >= {"manifest.json", "index.html", "funnel.png", "timing.json", "dataset_info.json"}
    assert "malformed: no JSON" in (place / "index.html").read_text()
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["recipe"]["rules"] == ["fields", "unicode", "exact_duplicates", "contamination"]


def test_what_has_text_of_an_evaluation_set_is_named_with_the_line(prepared):
    place, _, _ = prepared
    rule = json.loads((place / "manifest.json").read_text())["rules"][-1]
    (sets,) = rule["evaluation_sets"]
    assert rule["evaluation_sets"] == {sets: {"examples": 2, "too_short": 0, "hit": 1}}
    (example,) = rule["dropped"]
    assert (example["text"], example["like"]) == (texts(7)[6], {"key": f"{sets}:2", "text": texts(7)[6]})
    assert f"like {sets}:2" in (place / "index.html").read_text()


def test_which_examples_are_in_the_text_is_kept_beside_the_manifest(prepared):
    place, _, _ = prepared
    (line,) = (place / "contaminated.jsonl").read_bytes().splitlines(keepends=True)
    test = str(place.parents[2] / "test.txt")
    assert json.loads(line) == {"set": test, "key": f"{test}:2"}
    assert json.loads((place / "manifest.json").read_text())["output"]["contaminated.jsonl"] == hashlib.sha256(line).hexdigest()


def test_what_is_trained_on_is_remembered_by_its_hash(prepared, tmp_path, cache):
    place, _, _ = prepared
    more = dict(data__name="mine", data__dir=str(place.parents[1]), data__source="packed_text", data__tokenizer_type="byte_bpe", model__vocab_size=300)
    config = tiny_config(model__name="gpt", model__norm="pre", objective__name="causal_lm", **more)
    corpus = build.make_corpus(config, tmp_path / "run")
    for split in ("train", "validation"):
        assert len(build.examples_of(config, corpus, split, 16, split == "train")) > 0
        assert corpus.manifest[f"{split}/16"]["preparation_sha256"] == hashlib.sha256((place / "manifest.json").read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_run_trains_on_it_and_remembers_both_data_sets(tmp_path, command):
    write(tmp_path / "in", [{"text": text} for text in texts(60)])
    place = command()
    command("--config.name=other")
    fields = "model.width=16 model.layers=1 model.heads=2 model.mlp_width=16 model.vocab_size=300 data.tokenizer_type=byte_bpe data.length=16 data.batch_size=8"
    fields = [f"--config.{field}" for field in f"{fields} data.eval_batch_size=8 run.steps=1 optimizer.schedule=constant optimizer.warmup_steps=0 data.name=mine data.validation_name=other data.dir={tmp_path / 'tfds'}".split()]
    train.main(["train", "--config=configs/gpt/tiny.py", f"--workdir={tmp_path / 'run'}", *fields])
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    seen = provenance["starts"][0]["data"]
    assert seen["train/16"]["preparation_sha256"] == hashlib.sha256((place / "manifest.json").read_bytes()).hexdigest()
    assert seen["train/16"]["documents"].startswith("mine/") and seen["validation/16"]["documents"].startswith("other/")


def test_the_same_command_again_does_nothing_and_says_so(prepared, capsys):
    _, again, _ = prepared
    again()
    assert "Prepared before, by the same recipe from the same input" in capsys.readouterr().out


def test_the_report_of_a_data_set_is_made_again(prepared):
    place, _, _ = prepared
    before = (place / "index.html").read_text()
    (place / "index.html").unlink()
    report.main(["report", str(place)])
    assert (place / "index.html").read_text() == before


@pytest.mark.parametrize(
    "lines, more, message",
    [
        ([], (), "no document"),
        ([{"text": "a b"}], ("--config.rules=('fields','gopher_quality')",), r"the rule gopher_quality drops all of 1 documents .* fewer words than min_words \(1\)"),
        ([{"text": "a b"}], ("--config.rules=('nonsense',)",), "config.rules is 'nonsense': choose one of fields, unicode"),
        ([{"text": "a b"}], ("--config.input.format=docx",), "config.input.format is 'docx': choose one of text, lines"),
        ([{"text": "a b"}], ("--config.input.files=nowhere/*.jsonl",), "no file matches nowhere"),
        ([{"text": "a b"}], ("--config.name=My-Data",), "config.name 'My-Data'"),
        ([{"text": "a b"}], ("--config.near_duplicate.rows=3",), "near_duplicate"),
        ([{"text": "a b"}], ("--config.output.dir=gs://bucket/data",), "config.output.dir is gs://bucket/data: mount it"),
        ([{"text": "a b"}], ("--config.output.label_field=text",), "name its classes as output.classes"),
        ([{"text": "a b"}], ("--config.output.dir=/proc/x",), "config.output.dir: nothing can be written in /proc/x"),
        ([{"text": "a b"}], ("--config.output.fields=()",), "output.fields is empty"),
        ([{"text": "a b"}], ("--config.fields.defaults=(('a',),)",), "fields.defaults has \\('a',\\)"),
        ([{"text": "a b"}], ("--config.fields.required=(1,)",), "config.fields.required is \\(1,\\): it must hold names only"),
        ([{"text": "a b"}], ("--config.gopher_repetition.top_ngrams=((2,),)", "--config.rules=('gopher_repetition',)"), "top_ngrams has \\(2,\\)"),
        ([{"text": "a b"}], ("--config.output.fields=('text','url')",), "has no 'url'; it has key, text"),
        ([{"title": "a b"}], (), "no line at the beginning of .* has a text in 'text', but: title"),
        ([{"text": "a b"}], ("--config.rules=('contamination',)", "--config.contamination.sets=('nothing',)"), "nothing is no file, and no data set"),
    ],
)
def test_what_cannot_work_is_one_line_that_says_what_to_do(tmp_path, command, lines, more, message):
    write(tmp_path / "in", lines)
    with pytest.raises(UserError, match=message) as e:
        command(*more)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "tfds" / "mine" / "1.0.0").exists()


def test_an_evaluation_set_that_cannot_be_read_is_told_before_the_input_is(tmp_path, command, monkeypatch):
    write(tmp_path / "in", [{"text": "a b"}])
    monkeypatch.setattr(prepare, "prepare", lambda *_: pytest.fail("the input was read"))
    (tmp_path / "latin.txt").write_bytes(b"fine\n" * 5000 + b"caf\xe9\n")
    data = "tests.tiny_labelled_text:Reviews"
    for name, message in (("nothing.txt", "is no file"), (tmp_path / "latin.txt", "is not UTF-8"), (f"{data}:nowhere:text", "no split"), (f"{data}:train:label", "no text")):
        with pytest.raises(UserError, match=f"contamination.sets: .*{message}"):
            command(f"--config.contamination.sets=('{name}',)", rules="('fields','contamination')")


def test_what_a_recipe_reads_and_its_own_code_are_part_of_it(tmp_path, command, monkeypatch):
    """Each change makes another recipe of it, which does not pass for the one before."""
    write(tmp_path / "in", [{"text": text} for text in texts(60)])
    own, test = tmp_path / "own_rules_of_a_test.py", tmp_path / "test.txt"
    own.write_text("def lower(config):\n    return lambda document: document | {'text': document['text'].lower()}\n")
    test.write_text("One example that is nowhere at all in any of the documents.\n")
    monkeypatch.syspath_prepend(tmp_path)
    again = functools.partial(command, f"--config.contamination.sets=('{test}',)", rules="('own_rules_of_a_test:lower','contamination')")
    again(), again()
    for path in (own, test):
        before = path.read_text()
        path.write_text(before + "# changed\n")
        with pytest.raises(UserError, match="was prepared from another recipe"):
            again()
        path.write_text(before)
    again()


def test_a_file_that_is_not_utf_8_and_a_corrupt_archive_are_named(tmp_path, command):
    path = write(tmp_path / "in", [{"text": text} for text in texts(10)])
    path.write_bytes(path.read_bytes() + b'{"text": "caf\xe9"}\n')
    with pytest.raises(UserError, match="a.jsonl is not utf-8: the byte at"):
        command()
    path.unlink()
    (tmp_path / "in" / "b.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00garbage")
    with pytest.raises(UserError, match="b.jsonl.gz cannot be read"):
        command(files="*.gz")


def test_without_the_extra_the_command_says_what_to_install(monkeypatch):
    for module in ("research.prepare", "research.curation.archives"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "warcio.archiveiterator", None)  # as if it were not installed
    with pytest.raises(SystemExit) as e:
        importlib.import_module("research.prepare")
    assert e.value.code == "error: there is no package warcio, which preparing data needs: pip install 'lodestar-research[data]'."


@pytest.mark.parametrize("config, name", [("vit/tiny.py", "sheet.png"), pytest.param("bert/sentiment_tiny.py", "sheet.html", marks=pytest.mark.slow)])
def test_a_contact_sheet_shows_what_training_sees(tmp_path, config, name, capsys):
    sheet = tmp_path / name
    more = ["--config.data.randaugment_layers=2"] if name.endswith("png") else ["--config.data.word_dropout=0.3"]
    prepare.main(["prepare", "--show=aug", f"--config=configs/{config}", f"--out={sheet}", "--rows=3", "--epochs=2", *more])
    assert f"In {sheet}: 3 examples" in capsys.readouterr().out
    assert sheet.stat().st_size > 1000
    if name.endswith("html"):
        assert sheet.read_text().count("epoch 1") == 3 and "<del>" in sheet.read_text()


@pytest.mark.parametrize(
    "out, message",
    [("nodir/a.png", "there is no folder .*nodir"), ("a.xyz", "is neither a picture"), ("a", "is neither a picture"), ("/proc/a.png", "nothing can be written in /proc")],
)
def test_a_contact_sheet_that_cannot_be_written_is_told_before_any_work(tmp_path, monkeypatch, out, message):
    monkeypatch.setattr(build, "make_corpus", lambda *_: pytest.fail("the data set was read"))
    with pytest.raises(UserError, match=message):
        prepare.main(["prepare", "--show=aug", "--config=configs/vit/tiny.py", f"--out={tmp_path / out}"])


def test_examples_are_found_in_each_epoch_and_no_further_than_the_last_of_them():
    class Order(list):
        read = ()

        def __getitem__(self, i):
            self.read += (i,)
            return super().__getitem__(i)

    order = Order([3, 1, 0, 2, 4] + [4, 2, 3, 1, 0] + [1, 3, 0, 2, 4])
    assert prepare.places_of([3, 1], order, 5, 3) == [{3: 0, 1: 1}, {3: 7, 1: 8}, {1: 10, 3: 11}]
    assert order.read == (0, 1, 5, 6, 7, 8, 10, 11)


def test_a_recipe_has_no_augmentation_to_show():
    with pytest.raises(UserError, match="--show=aug is of a config that trains"):
        prepare.main(["prepare", "--show=aug", "--config=configs/data/base.py"])


def test_a_recipe_without_rules_is_refused(tmp_path, command):
    write(tmp_path / "in", [{"text": "a b"}])
    with pytest.raises(UserError, match="config.rules names no rule"):
        command(rules="()")
