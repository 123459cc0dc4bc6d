"""A preparation from beginning to end, in this process, with the workers of Beam, and killed on the way."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import threading

import pytest
from tensorflow_datasets.core import read_only_builder

from research.core.errors import UserError
from research.curation import preparation
from research.curation.clean import Fields
from research.curation.contamination import Contamination
from research.curation.documents import Dropped, Part
from research.curation.duplicates import ExactDuplicates, NearDuplicates
from research.curation.engine import Engine
from research.curation.inputs import JsonLines
from research.curation.passages import RepeatedPassages
from research.curation.preparation import Recipe, prepare, together

FIELDS = Fields(required=("text",), numbers=(), defaults=(), max_characters=None)
ONE_PASS = (("fields", FIELDS),)
TWO_PASSES = (*ONE_PASS, ("exact_duplicates", ExactDuplicates()))
OUTPUT = dict(fields=("text",), numbers=(), label=None, classes=(), validation=0.2, test=0.0, split_by="key")


@dataclasses.dataclass(frozen=True)
class DropAll:
    def __call__(self, document):
        return Dropped("for no reason")


@dataclasses.dataclass(frozen=True)
class Killed:
    """Stands for a machine that goes down while it works at one document, as long as the file is there."""

    flag: str

    def __call__(self, document):
        try:
            open(self.flag).close()
        except FileNotFoundError:
            return document
        if document["text"].startswith("document 20 of part 1"):
            raise RuntimeError("the machine went down")
        return document


def write_input(folder, parts=3, documents=40):
    folder.mkdir()
    for part in range(parts):
        lines = [{"text": f"document {i} of part {part} has words of its own, w{i}{part}, and " + "some that all have " * 3} for i in range(documents)]
        lines += [{"text": "The same in all parts."}, {"nothing": 1}]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def evaluation(name):
    return [{"key": f"{name}:{i}", "text": f"document {i} of part {i} has words of its own"} for i in range(4)]


COMPARISONS = (
    ("near_duplicates", NearDuplicates(5, 0.9, 14, 8, 0)),
    ("repeated_passages", RepeatedPassages(12, False)),
    ("contamination", Contamination(("test",), 9, 5, evaluation)),
)


def recipe(tmp_path, *rules, out="out", **more) -> Recipe:
    if not (tmp_path / "in").exists():
        write_input(tmp_path / "in")
    rules = rules or ONE_PASS
    format = JsonLines(files=str(tmp_path / "in" / "*.jsonl"), encoding="utf-8", part_size=1000, text_field="text", key_field=None)
    fields = {"rules": [name for name, _ in rules]}
    return Recipe(**dict(name="made", version="1.0.0", folder=tmp_path / out, fields=fields, format=format, rules=rules, output=OUTPUT, part_size=1000) | more)


def everything(place) -> dict:
    return {path.name: path.read_bytes() for path in place.iterdir() if path.name != "timing.json"}


def test_what_is_made_trains_and_the_manifest_counts_it(tmp_path):
    made = recipe(tmp_path, *TWO_PASSES, *COMPARISONS)
    manifest, now = prepare(made, Engine(1, []))
    assert now
    builder = read_only_builder.builder_from_files("made", data_dir=str(tmp_path / "out"))
    sizes = {split: len(builder.as_data_source(split=split)) for split in ("train", "validation")}
    assert sizes == manifest["splits"]
    first, exact = manifest["rules"][:2]
    assert (first["documents_in"], first["documents_out"]) == (126, 123)
    assert (exact["documents_in"], exact["documents_out"]) == (123, 121)
    assert sum(sizes.values()) == manifest["rules"][-1]["documents_out"]
    for before, after in zip(manifest["rules"], manifest["rules"][1:]):
        assert (before["documents_out"], before["characters_out"]) == (after["documents_in"], after["characters_in"])
    contamination = manifest["rules"][-1]
    assert contamination["evaluation_sets"] == {"test": {"examples": 4, "too_short": 0, "hit": 3}}  # of three parts
    examples = sorted((example["key"], example["why"], example["like"]["key"]) for example in contamination["dropped"])
    assert [(why, like) for _, why, like in examples] == [("has text of test", f"test:{i}") for i in range(3)]
    assert [key.split(":")[0] for key, _, _ in examples] == [f"{i}.jsonl" for i in range(3)]
    seconds = json.loads((made.place / "timing.json").read_text())
    assert list(seconds)[:3] == ["0: fields", "1: comparing", "1: exact_duplicates"] and len(seconds) == 9 and min(seconds.values()) > 0
    written = {path.name for path in made.place.glob("*.array_record-*")}
    assert set(manifest["output"]) == written | {"contaminated.jsonl"}
    hit = [json.loads(line) for line in (made.place / "contaminated.jsonl").read_text().splitlines()]
    assert hit == [{"set": "test", "key": f"test:{i}"} for i in range(3)]
    assert not list(made.place.parent.glob(".preparing*"))
    assert prepare(made, Engine(1, [])) == (json.loads((made.place / "manifest.json").read_text()), False)


@pytest.mark.slow
def test_one_worker_or_several_make_the_same_bytes(tmp_path):
    rules = (*ONE_PASS, *(stage for stage in COMPARISONS if stage[0] != "repeated_passages"))
    one, several = (recipe(tmp_path, *rules, out=out) for out in ("one", "several"))
    prepare(one, Engine(1, []))
    prepare(several, Engine(4, []))
    assert everything(one.place) == everything(several.place)


def test_a_killed_preparation_goes_on_and_leaves_nothing_broken(tmp_path, monkeypatch):
    flag = tmp_path / "flag"
    rules = (("fields", FIELDS), ("killed", Killed(str(flag))), ("exact_duplicates", ExactDuplicates()))
    whole = recipe(tmp_path, *rules, out="whole")
    prepare(whole, Engine(1, []))
    flag.touch()
    killed = recipe(tmp_path, *rules, out="killed")
    with pytest.raises(RuntimeError, match="the machine went down"):
        prepare(killed, Engine(1, []))
    assert not killed.place.exists()
    assert list(killed.place.parent.glob(".preparing-*/pass-0/*.json"))  # what was done is kept
    flag.unlink()
    prepare(killed, Engine(1, []))
    assert everything(whole.place) == everything(killed.place)


def test_what_was_done_is_not_done_again(tmp_path, monkeypatch):
    made = recipe(tmp_path, *TWO_PASSES)
    monkeypatch.setattr(preparation, "_finish", lambda *args: 1 / 0)  # all passes are done by then
    with pytest.raises(ZeroDivisionError):
        prepare(made, Engine(1, []))
    monkeypatch.undo()
    monkeypatch.setattr("research.curation.passes.Pass.__call__", lambda *args: 1 / 0)
    manifest, _ = prepare(made, Engine(1, []))
    assert manifest["rules"][0]["documents_in"] == 126


@dataclasses.dataclass(frozen=True)
class KillsItsWorker:
    """Stands for a machine that has no memory left, as long as the file is there."""

    flag: str

    def __call__(self, document):
        if pathlib.Path(self.flag).exists() and document["text"].startswith("document 20 of part 1"):
            os.kill(os.getpid(), signal.SIGKILL)
        return document


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of grpc, which reads on from the worker that is gone
def test_a_worker_that_is_killed_is_told_and_what_it_leaves_goes_on(tmp_path):
    flag = tmp_path / "flag"
    rules = (("fields", FIELDS), ("kills", KillsItsWorker(str(flag))))
    flag.touch()
    made = recipe(tmp_path, *rules)
    with pytest.raises(UserError, match="a worker was killed, as a rule for want of memory: give fewer --workers"):
        prepare(made, Engine(2, []))
    assert not made.place.exists()
    flag.unlink()
    prepare(made, Engine(1, []))
    whole = recipe(tmp_path, *rules, out="whole")
    prepare(whole, Engine(1, []))
    assert everything(whole.place) == everything(made.place)


def test_a_comparison_that_was_killed_is_made_again_and_one_that_was_done_is_not(tmp_path, monkeypatch):
    made = recipe(tmp_path, *TWO_PASSES)
    monkeypatch.setattr("research.curation.duplicates._compared", lambda *args: 1 / 0)
    with pytest.raises(Exception, match="division by zero"):
        prepare(made, Engine(1, []))
    monkeypatch.undo()
    (work,) = made.place.parent.glob(".preparing-*")
    (work / "stage-1" / "00000.npy").write_bytes(b"half of a file")  # which is not taken for what was found
    (work / "stage-1" / "hashes" / "00000.json").unlink()  # as if it had been killed there
    (work / "stage-1" / "hashes" / "00000.records").write_bytes(b"half of a file")
    shutil.rmtree(work / "stage-1" / "pairs")
    whole = recipe(tmp_path, *TWO_PASSES, out="whole")
    prepare(whole, Engine(1, []))
    monkeypatch.setattr("research.curation.preparation._finish", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(made, Engine(1, []))
    monkeypatch.undo()
    monkeypatch.setattr("research.curation.duplicates.Duplicates.compare", lambda *args: 1 / 0)
    prepare(made, Engine(1, []))
    assert everything(whole.place) == everything(made.place)


@pytest.mark.parametrize("stage, module, task", [(TWO_PASSES[1], "duplicates", "_candidates"), (COMPARISONS[1], "passages", "_sorted")])
def test_a_comparison_goes_on_where_it_was_killed(tmp_path, monkeypatch, stage, module, task):
    rules = (*ONE_PASS, stage)
    made, whole = recipe(tmp_path, *rules), recipe(tmp_path, *rules, out="whole")
    prepare(whole, Engine(1, []))
    monkeypatch.setattr(f"research.curation.{module}.{task}", lambda *args: 1 / 0)
    with pytest.raises(Exception, match="division by zero"):
        prepare(made, Engine(1, []))
    monkeypatch.undo()
    before = {"duplicates": "_hashed", "passages": "_entries"}[module]
    monkeypatch.setattr(f"research.curation.{module}.{before}", lambda *args: 1 / 0)  # which is done
    prepare(made, Engine(1, []))
    assert everything(whole.place) == everything(made.place)


def test_what_other_packages_made_is_not_taken_for_the_same(tmp_path, monkeypatch):
    made = recipe(tmp_path)
    prepare(made, Engine(1, []))
    versions = preparation._versions()
    monkeypatch.setattr(preparation, "_versions", lambda: versions | {"numpy": "0.1", "newcomer": "2"})
    with pytest.raises(UserError, match=rf"newcomer none instead of 2, numpy {versions['numpy']} instead of 0.1: to prepare it anew choose another") as e:
        prepare(made, Engine(1, []))
    assert "\n" not in str(e.value) and "ftfy" not in str(e.value)


def test_what_another_recipe_left_unfinished_is_removed_and_told(tmp_path, capsys):
    made = recipe(tmp_path)
    other = made.place.parent / ".preparing-0123456789ab"
    other.mkdir(parents=True)
    prepare(made, Engine(1, []))
    assert not other.exists() and str(other) in capsys.readouterr().out


def test_a_second_process_says_that_it_waits(tmp_path, capsys):
    made = recipe(tmp_path)
    made.place.parent.mkdir(parents=True)
    with preparation.alone(made.place.parent / ".lock"):
        thread = threading.Thread(target=prepare, args=(made, Engine(1, [])))
        thread.start()
        while not (said := capsys.readouterr().out) and thread.is_alive():
            thread.join(0.1)
        assert thread.is_alive() and "this one waits for it" in said
    thread.join()
    assert made.place.exists()


def test_another_of_beams_runners_makes_the_same(tmp_path):
    ours, other = (recipe(tmp_path, *TWO_PASSES, out=out) for out in ("ours", "other"))
    prepare(ours, Engine(1, []))
    prepare(other, Engine(1, ["--runner=BundleBasedDirectRunner"]))
    assert everything(ours.place) == everything(other.place)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--runner=NoSuch"], "--beam=--runner=NoSuch: Unexpected pipeline runner: NoSuch"),
        (["--runer=DirectRunner", "--streaming"], "--beam: Beam knows no option --runer=DirectRunner: give"),
        (["runner=DirectRunner", "--a", "b"], "--beam: Beam knows no option runner=DirectRunner, --a, b: give"),
        (["--runner=DirectRunner", "--paralelism=2"], "--beam: Beam knows no option --paralelism=2: give"),
        (["--direct_num_workers=two"], "--beam: argument --direct_num_workers: invalid int value: 'two'"),
    ],
)
def test_options_that_beam_does_not_know_are_one_line(options, message, capsys):
    with pytest.raises(UserError, match=message) as e:
        Engine(1, options)
    assert "\n" not in str(e.value) and capsys.readouterr() == ("", "")


def test_options_that_only_a_job_server_knows_are_left_to_it():
    Engine(1, ["--runner=FlinkRunner", "--of_its_server=2"])
    with pytest.raises(UserError, match="Beam knows no option --of_its_server=2"):
        Engine(1, ["--of_its_server=2"])


def test_options_of_beam_s_own_runner_are_taken(tmp_path):
    prepare(recipe(tmp_path), Engine(1, ["--direct_num_workers=1", "--direct_running_mode=in_memory"]))
    assert (tmp_path / "out" / "made" / "1.0.0" / "manifest.json").exists()


def test_another_recipe_or_other_input_does_not_write_over_what_is_there(tmp_path):
    prepare(recipe(tmp_path), Engine(1, []))
    with pytest.raises(UserError, match="prepared from another recipe: choose another --config.name"):
        prepare(recipe(tmp_path, *TWO_PASSES), Engine(1, []))
    with open(tmp_path / "in" / "0.jsonl", "a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(UserError, match="prepared from another input"):
        prepare(recipe(tmp_path), Engine(1, []))


def test_small_parts_are_taken_together_and_large_ones_alone():
    parts = [Part("", str(i), size=size) for i, size in enumerate([0, 4, 3, 4, 20, 1, None, 2, 8])]
    assert [[part.size for part in shard] for shard in together(parts, 10)] == [[0, 4, 3], [4], [20], [1], [None], [2, 8]]
    assert together([], 10) == []


def test_a_rule_that_drops_all_is_named_with_its_reasons(tmp_path):
    with pytest.raises(UserError, match=r"the rule drop_all drops all of 123 documents .* for no reason \(123\)"):
        prepare(recipe(tmp_path, *ONE_PASS, ("drop_all", DropAll()), ("exact_duplicates", ExactDuplicates())), Engine(1, []))


def test_an_input_without_documents_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="no document"):
        prepare(recipe(tmp_path), Engine(1, []))


def test_an_empty_split_is_told(tmp_path):
    with pytest.raises(UserError, match="no document fell into the split test"):
        prepare(recipe(tmp_path, output=OUTPUT | {"test": 1e-9}), Engine(1, []))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_what_the_user_did_wrong_comes_back_from_the_workers_in_one_line(tmp_path, workers):
    with pytest.raises(UserError, match="output.split_by is 'source', which the document \\d.jsonl:\\d+ does not have"):
        prepare(recipe(tmp_path, output=OUTPUT | {"split_by": "source"}), Engine(workers, []))
