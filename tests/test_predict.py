"""The command, on runs whose parameters are as random as they began: what is told is nonsense, but of the right kind and the same each time."""

import contextlib
import functools
import io
import json

import jax
import numpy as np
import pytest
from PIL import Image

from research import build, predict, restore
from research.core import config as config_lib
from research.core import linen
from research.core.errors import run_command
from research.data import images, text_inputs
from research.data.tokenizer import load_tokenizer, train_wordpiece, vocabulary
from research.training.checkpoint import Checkpoints
from tests.tiny import tiny_config
from tests.tiny_text import document

TEXT = "Aa ab ac."
VIT = dict(model__name="vit", model__image_size=8, model__patch_size=4, model__norm="pre", model__pool="mean", model__class_token=False)
RUNS = {
    "mask": ({}, None),
    "class": (dict(objective__name="sequence_classification"), ["negative", "positive"]),
    "pair": (dict(objective__name="sequence_classification", data__source="labelled_text", data__second_text_field="other"), None),
    "score": (dict(objective__name="sequence_regression"), None),
    "words": (dict(objective__name="token_classification", objective__classes=3), ["O", "B", "I"]),
    "answer": (dict(objective__name="question_answering"), None),
    "image": (VIT | dict(objective__name="image_classification", objective__classes=3, run__best_metric="validation/accuracy"), ["cat", "dog", "ox"]),
    "grey": (VIT | dict(objective__name="image_classification", objective__classes=3, model__channels=1), None),
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """name -> a run as training would leave it, on step 0."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = make(tmp_path_factory.mktemp(name), *RUNS[name])
        return made[name]

    return of


def make(folder, changes, labels):
    config, known = tiny_config(**{"model__layers": 1} | changes), None
    if build.has_vocabulary(config):
        tokenizer = train_wordpiece([[document(i, 0)] for i in range(20)], 64)
        tokenizer.save(str(folder / "tokenizer.json"))
        known = vocabulary(tokenizer)
    (folder / "config.json").write_text(config_lib.to_json(config))
    if labels:
        (folder / "labels.json").write_text(json.dumps(labels))
    e = build.experiment(restore.fitting(config, []), known)
    fresh = jax.jit(e.init, out_shardings=e.shardings)()
    noise = lambda x: x + 0.5 * jax.random.normal(jax.random.key(x.size), x.shape)
    head = {"head": jax.tree.map(noise, fresh.params["head"])} if "head" in fresh.params else {}
    checkpoints = Checkpoints(folder, best_metric=config.run.best_metric)
    checkpoints.save(fresh._replace(params=fresh.params | head), {"next": 0}, None)
    checkpoints.close()
    return folder


def call(folder, *arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        predict.main(["predict", f"--workdir={folder}", *arguments])
    return out.getvalue()


def results(folder, *arguments):
    return [json.loads(line) for line in call(folder, "--json", *arguments).splitlines()]


def error(folder, *arguments):
    with pytest.raises(SystemExit) as stopped, contextlib.redirect_stdout(io.StringIO()) as out:
        run_command(predict.main, ["predict", f"--workdir={folder}", *arguments])
    assert isinstance(stopped.value.code, str) and "\n" not in stopped.value.code and not out.getvalue()
    return stopped.value.code


@functools.cache
def loaded(folder):
    """(objective, parameters, tokenizer) of a run, read here."""
    _, config = config_lib.parse_run(["test", f"--workdir={folder}"], tiny_config())
    tokenizer = load_tokenizer(folder / "tokenizer.json") if build.has_vocabulary(config) else None
    e = build.experiment(restore.fitting(config, []), tokenizer and vocabulary(tokenizer))
    return e.objective, restore.trained_params(e, folder)[1], tokenizer


def of_text(folder, *texts):
    objective, params, tokenizer = loaded(folder)
    inputs = text_inputs.text_inputs(texts, tokenizer, objective.vocabulary, 32)
    return objective, params, {name: x[None] for name, x in inputs.items()}


def test_labels_by_name_with_their_probabilities(workdir):
    objective, params, inputs = of_text(workdir("class"), TEXT)
    wanted = np.asarray(jax.jit(objective.predict)(params, inputs)["probabilities"][0])
    (found,) = results(workdir("class"), f"--text={TEXT}")
    assert found["text"] == TEXT and [x["label"] for x in found["labels"]] == [["negative", "positive"][i] for i in np.argsort(-wanted)]
    assert [x["probability"] for x in found["labels"]] == pytest.approx(sorted(wanted, reverse=True), rel=1e-4)
    assert call(workdir("class"), f"--text={TEXT}", "--top=1") == f"{found['labels'][0]['label']} {max(wanted):.3f}\n"


def test_many_texts_and_a_file_in_batches_are_as_each_alone(workdir, tmp_path):
    texts = [f"Aa {word} ac." for word in ("ba", "bb", "bc", "bd", "be")]
    (tmp_path / "texts.txt").write_text("\n".join(texts[2:]) + "\n")
    found = results(workdir("class"), f"--text={texts[0]}", f"--text={texts[1]}", f"--file={tmp_path}/texts.txt", "--batch_size=2")
    assert [x["text"] for x in found] == texts
    last = results(workdir("class"), f"--text={texts[4]}")[0]["labels"]
    assert [x["probability"] for x in found[4]["labels"]] == pytest.approx([x["probability"] for x in last], rel=1e-4)
    assert found[0]["labels"] != found[1]["labels"]


def test_pairs(workdir, tmp_path):
    objective, params, inputs = of_text(workdir("pair"), TEXT, "Ba.")
    wanted = np.asarray(jax.jit(objective.predict)(params, inputs)["probabilities"][0])
    (tmp_path / "pairs.txt").write_text(f"{TEXT}\tBa.\n")
    for arguments in ([f"--text={TEXT}", "--second_text=Ba."], [f"--file={tmp_path}/pairs.txt"]):
        (found,) = results(workdir("pair"), *arguments)
        assert {x["label"]: x["probability"] for x in found["labels"]} == pytest.approx({"0": wanted[0], "1": wanted[1]}, rel=1e-4)


def test_a_score(workdir):
    objective, params, inputs = of_text(workdir("score"), TEXT)
    wanted = float(jax.jit(objective.predict)(params, inputs)["score"][0])
    assert results(workdir("score"), f"--text={TEXT}")[0]["score"] == pytest.approx(wanted, rel=1e-4)
    assert float(call(workdir("score"), f"--text={TEXT}")) == pytest.approx(wanted, abs=1e-3)


def test_labels_word_by_word(workdir):
    objective, params, tokenizer = loaded(workdir("words"))
    words = ["Aaab", "ab", "ac."]
    inputs, first = text_inputs.word_inputs(words, tokenizer, objective.vocabulary, 32)
    probabilities = np.asarray(jax.jit(objective.predict)(params, {name: x[None] for name, x in inputs.items()})["probabilities"][0])
    (found,) = results(workdir("words"), f"--text={'  '.join(words)}")
    assert [x["word"] for x in found["words"]] == words
    assert [x["label"] for x in found["words"]] == [["O", "B", "I"][i] for i in probabilities[first].argmax(-1)]
    assert len(call(workdir("words"), f"--text={' '.join(words)}").splitlines()) == 3


def test_answers_are_parts_of_the_text(workdir):
    context = "Aa ab ac. Ba bb  bc."
    found = results(workdir("answer"), *[x for word in ("aa", "bb", "cc", "dd") for x in (f"--question=Is {word}?", f"--context={context}")])
    assert len(found) == 4 and all(x["answer"] is None or (x["answer"] and x["answer"] in context) for x in found)
    objective, params, tokenizer = loaded(workdir("answer"))
    for x in found:
        inputs, begins, spans = text_inputs.question_inputs(x["question"], context, tokenizer, objective.vocabulary, 32)
        told = {name: y[0] for name, y in jax.jit(objective.predict)(params, {name: y[None] for name, y in inputs.items()}).items()}
        wanted = None if told["start"] == 0 else context[spans[told["start"] - begins, 0] : spans[told["end"] - begins, 1]]
        assert x["answer"] == wanted and x["probability"] == pytest.approx(float(told["probability"]), rel=1e-4)


def test_masks_of_several_texts_are_as_each_alone(workdir):
    texts = ["Aa [MASK] ac. [MASK]", "Ba [MASK]."]
    found = results(workdir("mask"), *[f"--text={text}" for text in texts], "--top=3")
    assert [len(x["masks"]) for x in found] == [2, 1] and all(len(of_mask) == 3 for x in found for of_mask in x["masks"])
    alone = results(workdir("mask"), f"--text={texts[1]}", "--top=3")[0]["masks"][0]
    assert [x["token"] for x in alone] == [x["token"] for x in found[1]["masks"][0]]


def test_images(workdir, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(picture).save(tmp_path / name)
    found = results(workdir("image"), f"--image={tmp_path}/a.png", f"--image={tmp_path}/b.jpg")
    assert [x["image"] for x in found] == [f"{tmp_path}/a.png", f"{tmp_path}/b.jpg"]
    objective, params, _ = loaded(workdir("image"))
    wanted = np.asarray(jax.jit(objective.predict)(params, {"image": images.read_image(tmp_path / "a.png", 8, 3)[None]})["probabilities"][0])
    assert {x["label"]: x["probability"] for x in found[0]["labels"]} == pytest.approx(dict(zip(["cat", "dog", "ox"], wanted)), rel=1e-4)
    assert results(workdir("grey"), f"--image={tmp_path}/a.png", "--convert")[0]["labels"]


@pytest.mark.parametrize("name", ["mask", "class"])
def test_embeddings_of_any_run(workdir, name):
    objective, params, inputs = of_text(workdir(name), TEXT)
    wanted = np.asarray(linen.apply(objective.model, params, None, inputs, method="embed"))[0]
    (line,) = call(workdir(name), "--embed", f"--text={TEXT}").splitlines()
    assert json.loads(line)["embedding"] == pytest.approx(wanted.tolist(), abs=1e-5) and len(wanted) == 16


def test_what_was_not_trained_does_not_embed(workdir):
    assert "no pooler" in error(workdir("words"), "--embed", f"--text={TEXT}")
    assert len(json.loads(call(workdir("words"), "--embed", f"--text={TEXT}", "--config.model.pool=mean"))["embedding"]) == 16


def test_embeddings_of_images(workdir, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    assert len(json.loads(call(workdir("image"), "--embed", f"--image={tmp_path}/red.png"))["embedding"]) == 16


def test_a_text_too_long_is_refused_or_cut_as_in_training(workdir):
    long = "aa " * 40
    assert "42 tokens" in (said := error(workdir("class"), f"--text={long}")) and "at most 32" in said and "--truncate" in said
    objective, params, inputs = of_text(workdir("class"), long)
    wanted = np.asarray(jax.jit(objective.predict)(params, inputs)["probabilities"][0]).max()
    assert results(workdir("class"), f"--text={long}", "--truncate")[0]["labels"][0]["probability"] == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize(
    "name, arguments, says",
    [
        ("class", [], "--text"),
        ("class", ["--text= "], "empty"),
        ("class", ["--text=\u200b"], "no token"),
        ("class", ["--image=a.png"], "reads text"),
        ("class", ["--text=a", "--second_text=b"], "single texts"),
        ("class", ["--question=a", "--context=b"], "no questions"),
        ("class", ["--file=missing.txt"], "missing.txt"),
        ("pair", ["--text=a"], "as many"),
        ("words", ["--text="], "empty"),
        ("answer", ["--text=a"], "--question"),
        ("answer", ["--question=a"], "as many"),
        ("answer", ["--question=a", "--context= "], "empty"),
        ("answer", ["--question=a", "--context=" + "aa " * 40], "at most 32"),
        ("mask", ["--text=no mask"], "no [MASK]"),
        ("mask", [], "say what to fill"),
        ("image", ["--text=a"], "reads images"),
        ("image", [], "--image"),
        ("image", ["--image=missing.png"], "missing.png"),
        ("class", ["--text=a", "--step=7"], "step 7"),
    ],
)
def test_what_cannot_be_read_is_refused(workdir, name, arguments, says):
    assert says in error(workdir(name), *arguments)


def test_bad_images_are_refused(workdir, tmp_path):
    colour, grey, cut, words = (tmp_path / name for name in ("colour.png", "grey.png", "cut.png", "words.png"))
    Image.effect_noise((64, 64), 90).convert("RGB").save(colour)
    Image.effect_noise((64, 64), 90).save(grey)
    cut.write_bytes(colour.read_bytes()[:900])
    words.write_text("no image")
    assert "of colour (3 channels)" in error(workdir("grey"), f"--image={colour}")
    assert "grey (1 channel)" in error(workdir("image"), f"--image={grey}")
    assert "cut.png" in error(workdir("image"), f"--image={colour}", f"--image={cut}")
    assert "words.png" in error(workdir("image"), f"--image={words}")


def test_an_empty_line_or_file_is_refused(workdir, tmp_path):
    (tmp_path / "texts.txt").write_text("Aa.\n\nBa.\n")
    assert "empty" in error(workdir("class"), f"--file={tmp_path}/texts.txt")
    (tmp_path / "texts.txt").write_text("")
    assert "is empty" in error(workdir("class"), f"--file={tmp_path}/texts.txt")
