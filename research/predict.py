"""A run + text or images -> labels, scores, answers, the words that fit, or embeddings: whatever its head tells.

    python -m research.predict --workdir=runs/quickstart --text="London is the [MASK] of England."
    python -m research.predict --workdir=runs/sentiment --text="This is a great movie!" [--text=... ...] [--file=texts.txt]
    python -m research.predict --workdir=runs/vit_tiny --image=digit.png [--image=... ...]
    python -m research.predict --workdir=runs/squad --question="Who ran?" --context="The cat ran."
        [--second_text=...]  where an example is a pair of texts; in a file a tab parts the two
        [--embed]  print embeddings, as JSON lines, whatever the run was trained for
        [--top=5]  how many labels or words   [--json]  JSON lines   [--step=N]  which checkpoint   [--batch_size=32]  how many at once
        [--truncate]  cut off what does not fit, as training does; without it, a text too long is refused
        [--convert]  colour to grey or grey to colour, as training does; without it, an image of other channels is refused

Words with labels of their own are what white space parts.
"""

import json
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from absl import flags

from configs import base
from research import build, restore
from research.core import config as config_lib
from research.core import linen
from research.core.errors import UserError, run_command
from research.data import images, text_inputs
from research.data.tokenizer import load_tokenizer, vocabulary


def main(argv):
    values, config = config_lib.parse_run(argv, base.get_config(), define)
    workdir, config = pathlib.Path(values.workdir), restore.fitting(config, argv)
    predicts = "embedding" if values.embed else getattr(build.objective_class(config), "predicts", None)
    if predicts not in TASKS:
        raise UserError(
            f"this run was trained for {config.objective.name}, which fills no [MASK] and has no labels to tell: --embed prints embeddings of any model."
        )
    tokenizer = load_tokenizer(workdir / "tokenizer.json") if build.has_vocabulary(config) else None
    e = build.experiment(config, vocabulary(tokenizer, config.data.end_token) if tokenizer else None)
    task = TASKS[predicts](values, config, e.objective, tokenizer, restore.label_names(workdir))
    items = task.items()
    prepared = [task.prepare(item) for item in items]  # all of them before anything is computed: what cannot be read is refused at once
    _, params = restore.trained_params(e, workdir, values.step)
    predict = jax.jit(task.predict)
    for i, (item, notes, outputs) in enumerate(outputs_of(predict, params, items, prepared, values.batch_size)):
        told = task.tell(notes, outputs)
        if values.json or values.embed:
            print(json.dumps(item | told, ensure_ascii=False), flush=True)
        else:
            if len(items) > 1:
                print("\n" * (i > 0) + "  ".join(item.values()))
            print("\n".join(task.lines(told)), flush=True)


def define(values):
    many, yes = flags.DEFINE_multi_string, flags.DEFINE_bool
    many("text", [], "A text; may be repeated.", flag_values=values)
    many("second_text", [], "The second text of a pair; as often as --text.", flag_values=values)
    many("question", [], "A question; may be repeated.", flag_values=values)
    many("context", [], "The text that may answer it; as often as --question.", flag_values=values)
    many("image", [], "Path of a PNG or JPEG; may be repeated.", flag_values=values)
    flags.DEFINE_string("file", None, "A file of texts, one a line.", flag_values=values)
    yes("embed", False, "Print embeddings.", flag_values=values)
    yes("json", False, "Print JSON lines.", flag_values=values)
    yes("truncate", False, "Cut off what does not fit.", flag_values=values)
    yes("convert", False, "Convert images of other channels.", flag_values=values)
    flags.DEFINE_integer("top", 5, "How many labels or words to tell.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("batch_size", 32, "How many at once.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("step", None, "Which checkpoint; absent: the latest.", flag_values=values)


def outputs_of(predict, params, items, prepared, size: int) -> Iterator[tuple]:
    """(item, notes, outputs) of each, in order. Inputs alike in shape go in batches of one size: the last is filled up with its last."""
    start = 0
    while start < len(items):
        shapes = lambda i: {name: x.shape for name, x in prepared[i][0].items()}
        alike = next((i for i in range(start, len(items)) if shapes(i) != shapes(start)), len(items))
        stop, rows = min(start + size, alike), min(size, len(items))
        chosen = [prepared[min(start + row, stop - 1)][0] for row in range(rows)]
        outputs = jax.device_get(predict(params, {name: np.stack([x[name] for x in chosen]) for name in chosen[0]}))
        for row in range(stop - start):
            yield items[start + row], prepared[start + row][1], {name: x[row] for name, x in outputs.items()}
        start = stop


class Task:
    """From what the command line gives to what is printed. An item is what the user named, {"text": ...} or {"image": ...}.

    `prepare`: item -> (arrays of the model, notes for `tell`); `predict`: (params, arrays) -> outputs; `tell`: (notes, outputs of one item) -> what
    --json adds to the item; `lines`: the same for people.
    """

    def __init__(self, values, config, objective, tokenizer, labels):
        self.values, self.config, self.objective, self.tokenizer, self.labels = values, config, objective, tokenizer, labels
        inputs = getattr(objective.model, "inputs", None) if hasattr(objective, "model") else None
        if inputs is None:
            raise UserError(
                f"this run was trained for {config.objective.name}, whose model tells nothing of its inputs: see research/models/bert.py."
            )
        self.inputs = {name.rpartition("/")[2]: x for name, x in inputs(1, config.data.length).items()}  # of two towers, what either takes
        self.pairs = config.data.second_text_field is not None and config.data.source == "labelled_text"

    def items(self) -> list[dict[str, str]]:
        """What is asked for. Raises UserError for nothing, an empty text, and what this run does not read."""
        v = self.values
        if v.question or v.context:
            raise UserError("this run answers no questions: leave out --question and --context.")
        if v.image and "image" not in self.inputs:
            raise UserError("this run reads text: give --text=..., not --image.")
        if (v.text or v.file or v.second_text) and "tokens" not in self.inputs:
            raise UserError("this run reads images: give --image=PATH, not --text or --file.")
        texts: list[tuple[str, ...]] = [*zip_all("--text", v.text, "--second_text", v.second_text)] if self.pairs else [(text,) for text in v.text]
        if v.second_text and not self.pairs:
            raise UserError("this run reads single texts: leave out --second_text.")
        if v.file is not None:
            texts += [tuple(line.split("\t")) if self.pairs else (line,) for line in read_lines(v.file)]
        for text in texts:
            if not all(part.strip() for part in text):
                raise UserError("a text is empty: give --text, or a line of --file, something to read.")
            if len(text) != 1 + self.pairs:
                raise UserError(f"{text[0]!r} in {v.file} is not two texts with a tab between: this run reads pairs.")
        if not texts and not v.image:
            raise UserError(self.missing)
        return [dict(zip(("text", "second_text"), text)) for text in texts] + [{"image": path} for path in v.image]

    @property
    def missing(self) -> str:
        asks = {"tokens": '--text="...", or --file=texts.txt with a text on each line', "image": "--image=PATH of a PNG or JPEG"}
        return f"say what to read: {', or '.join(ask for name, ask in asks.items() if name in self.inputs)}."

    def prepare(self, item):
        if "image" in item:
            shape = self.inputs["image"].shape
            return {"image": images.read_image(item["image"], shape[1], shape[3], convert=self.values.convert)}, None
        texts = list(item.values())
        self.check_length(texts)
        return text_inputs.text_inputs(texts, self.tokenizer, self.objective.vocabulary, self.config.data.length), None

    def check_length(self, texts: list[str]):
        """Raises UserError, with the numbers, where the texts do not fit and nobody asked to cut them, or have no token."""
        ids = [text_inputs.encode(self.tokenizer, text) for text in texts]
        for text, of_text in zip(texts, ids):
            if not len(of_text):
                raise UserError(f"the text {text!r} has no token that the tokenizer of this run knows.")
        known = self.objective.vocabulary
        count = sum(map(len, ids)) + len(ids) + (len(ids) - 1) * (known.separators - 1) + (known.cls is not None)
        if count > self.config.data.length and not self.values.truncate:
            raise UserError(
                f"the text {texts[-1][:40]!r} has {count} tokens, this run takes at most {self.config.data.length}: shorten it, or say --truncate."
            )

    def predict(self, params, inputs):
        return self.objective.predict(params, inputs)

    def best(self, probabilities, name=None) -> list[dict]:
        """The likeliest, each with its probability."""
        order = np.argsort(-probabilities, kind="stable")[: self.values.top]
        return [{"label": (name or self.label)(int(i)), "probability": float(probabilities[i])} for i in order]

    def label(self, i: int) -> str:
        return self.labels[i] if self.labels else str(i)


class Label(Task):
    def tell(self, notes, outputs):
        return {"labels": self.best(outputs["probabilities"])}

    def lines(self, told):
        return ["  ".join(f"{x['label']} {x['probability']:.3f}" for x in told["labels"])]


class Score(Task):
    def tell(self, notes, outputs):
        return {"score": float(outputs["score"])}

    def lines(self, told):
        return [f"{told['score']:.3f}"]


class WordLabels(Task):
    def prepare(self, item):
        words = item["text"].split()
        self.check_length([item["text"]])
        inputs, first_W = text_inputs.word_inputs(words, self.tokenizer, self.objective.vocabulary, self.config.data.length)
        return inputs, (words, first_W)

    def tell(self, notes, outputs):
        of = lambda place: self.best(outputs["probabilities"][place])[0] if place >= 0 else {"label": None, "probability": None}
        return {"words": [{"word": word} | of(place) for word, place in zip(*notes)]}

    def lines(self, told):
        return [f"{x['word']} {x['label']} {x['probability']:.3f}" if x["label"] is not None else f"{x['word']} -" for x in told["words"]]


class Answer(Task):
    def items(self):
        v = self.values
        if v.text or v.image or v.file or v.second_text:
            raise UserError('this run answers questions: give --question="..." and --context="..." and nothing else to read.')
        items = zip_all("--question", v.question, "--context", v.context)
        if not items:
            raise UserError('say what to answer: --question="Who ran?" --context="The cat ran."')
        if not all(part.strip() for item in items for part in item):
            raise UserError("a --question or --context is empty: say something in both.")
        return [{"question": question, "context": context} for question, context in items]

    def prepare(self, item):
        question, context = item["question"], item["context"]
        self.check_length([question, context])
        inputs, begins, spans_N2 = text_inputs.question_inputs(question, context, self.tokenizer, self.objective.vocabulary, self.config.data.length)
        return inputs, (context, begins, spans_N2)

    def tell(self, notes, outputs):
        context, begins, spans_N2 = notes
        start, end = int(outputs["start"]) - begins, int(outputs["end"]) - begins
        answer = context[spans_N2[start, 0] : spans_N2[end, 1]] if start >= 0 else None  # the first token stands for none
        return {"answer": answer, "probability": float(outputs["probability"])}

    def lines(self, told):
        return [f"{'(no answer)' if told['answer'] is None else told['answer']} {told['probability']:.3f}"]


class MaskedWords(Task):
    """Fills each [MASK]. All texts have room for as many masks as the one with most."""

    @property
    def missing(self):
        return 'say what to fill: --text="London is the [MASK] of England."'

    def items(self):
        if any(not text.strip() for text in self.values.text):
            raise UserError(self.missing)
        items = super().items()
        self.room = max((len(self.masks(item)) for item in items), default=0)
        return items

    def masks(self, item) -> np.ndarray:
        self.check_length([item["text"]])
        tokens = super().prepare(item)[0]["tokens"]
        found = np.flatnonzero(tokens == self.objective.vocabulary.mask).astype(np.int32)
        if not len(found):
            raise UserError(f"there is no [MASK] in {item['text']!r}: put one where a word is to be found.")
        return found

    def prepare(self, item):
        masks = self.masks(item)
        return super().prepare(item)[0] | {"positions": np.resize(masks, self.room)}, len(masks)

    def tell(self, notes, outputs):
        name = lambda i: self.tokenizer.id_to_token(i) or str(i)  # the model may have more rows than the tokenizer tokens
        found = [self.best(probabilities_V, name) for probabilities_V in outputs["probabilities"][:notes]]
        return {"masks": [[{"token": x["label"], "probability": x["probability"]} for x in of_mask] for of_mask in found]}

    def lines(self, told):
        return ["  ".join(f"{x['token']} {x['probability']:.3f}" for x in of_mask) for of_mask in told["masks"]]


class Embedding(Task):
    def __init__(self, *args):
        super().__init__(*args)
        if not hasattr(self.objective.model, "embed"):
            raise UserError(f"config.model.name is {self.config.model.name!r}, which has no `embed`: see research/models/bert.py.")
        self.pairs = self.pairs and bool(self.values.second_text)
        needs = jax.eval_shape(lambda: linen.init(self.objective.model, jax.random.key(0), linen.zeros(self.inputs), method="embed"))
        if missing := needs.keys() - jax.eval_shape(self.objective.init, jax.random.key(0)).keys():
            raise UserError(f"this run trained no {', '.join(sorted(missing))} to embed with: say --config.model.pool=mean.")

    def predict(self, params, inputs):
        return {"embedding": linen.apply(self.objective.model, params, None, inputs, method="embed")}

    def tell(self, notes, outputs):
        return {"embedding": [round(float(x), 6) for x in outputs["embedding"]]}


TASKS = {  # what an objective `predicts` -> how it is asked and told
    "label": Label,
    "score": Score,
    "word labels": WordLabels,
    "answer": Answer,
    "masked words": MaskedWords,
    "embedding": Embedding,
}


def zip_all(first: str, a: list[str], second: str, b: list[str]) -> list[tuple[str, str]]:
    if len(a) != len(b):
        raise UserError(f"there are {len(a)} {first} and {len(b)} {second}: give as many of the one as of the other.")
    return list(zip(a, b))


def read_lines(path: str) -> list[str]:
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"--file={path} cannot be read ({e}).") from e
    if not lines:
        raise UserError(f"{path} is empty: give it one text a line.")
    return lines


if __name__ == "__main__":
    run_command(main)
