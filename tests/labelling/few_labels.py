"""Sentiment with 200 labels: what augmentation, pseudo-labels and an active choice add, over seeds, by the project's own commands.

    python -m tests.labelling.few_labels [--seeds=5] [--workdir=FOLDER]

MiniLM is fine-tuned on 200 sentences of movie reviews and measured on the test split, which nothing else has seen. Who labels is the data set
itself. Each line of the table differs from the first in one thing, but that pseudo-labels need labels of the validation split besides, for calibration:

    augmentation    EDA's operations on a tenth of the words (arXiv 1901.11196)
    pseudo-labels   beside the 200 all of 3,000 other sentences that the first model is sure of, as its calibration on the validation split says
    active choice   100 of the labels drawn, 100 asked for where a model trained on those is least sure (margin)
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from absl import app, flags

from configs import base
from research.core import config as config_lib
from research.data.corpus import Corpus
from research.labelling import table, texts
from research.reports.tables import Cell, markdown
from research.tables import DATASETS

SEEDS = flags.DEFINE_integer("seeds", 5, "How often.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where runs go, and what is done already is found; absent: a temporary folder.")
LABELS, POOL, THRESHOLD = 200, 3000, 0.8
WAYS = ("200 labels", "+ augmentation", "+ pseudo-labels", "+ active choice")


def main(argv):
    with tempfile.TemporaryDirectory() as temporary:
        results = [Experiment(pathlib.Path(WORKDIR.value or temporary), seed).run() for seed in range(SEEDS.value)]
    reached = np.array(results)
    body = []
    for way, column, gain in zip(WAYS, reached.T, (reached - reached[:, :1]).T):
        spread = lambda x: f"{x.mean():.3f} ± {x.std(ddof=1):.3f}" if len(x) > 1 else f"{x.mean():.3f}"
        body.append([Cell(way), Cell(spread(column)), Cell("" if way == WAYS[0] else spread(gain))])
    print(markdown(["trained on", "test accuracy", "more than 200 labels"], body))


class Experiment:
    """The four ways with one seed: of what is drawn, and of training."""

    def __init__(self, folder: pathlib.Path, seed: int):
        self.folder, self.seed = folder / f"seed{seed}", seed
        self.folder.mkdir(parents=True, exist_ok=True)
        config = config_lib.changed(base.get_config(), {"data.name": "movie_reviews", "data.train_split": "train"})
        data = texts.of_dataset(Corpus(config, DATASETS, None, None), "train", "text", "label")
        self.truth = {text: data.classes[label] for text, label in zip(data.texts, data.labels_N)}

    def run(self) -> list[float]:
        drawn = self.choose("drawn", "--choose=random", f"--count={LABELS + POOL}", f"--seed={self.seed}", "--data=movie_reviews")
        labelled, pool = self.labelled("labelled", drawn[:LABELS]), self.write("pool", drawn[LABELS:])
        first = self.train("first", labelled)
        augmented = self.train("augmented", labelled, "--config.data.eda_alpha=0.1")
        self.command(
            "label",
            "--pseudo",
            f"--workdir={self.folder / 'first'}",
            f"--data={pool}",
            f"--threshold={THRESHOLD}",
            f"--out={self.folder / 'sure.csv'}",
        )
        both = self.write("both", table.read(labelled) + table.read(self.folder / "sure.csv"))
        pseudo = self.train("pseudo", both)
        half = self.labelled("half", drawn[: LABELS // 2])
        self.train("half", half)
        asked = self.choose("asked", "--choose=margin", f"--count={LABELS // 2}", f"--workdir={self.folder / 'half'}", f"--data={pool}")
        active = self.train("active", self.labelled("chosen", drawn[: LABELS // 2] + asked))
        return [first, augmented, pseudo, active]

    def command(self, name: str, *arguments: str):
        subprocess.run([sys.executable, "-m", f"research.{name}", *arguments], check=True)

    def choose(self, name: str, *arguments: str) -> list[table.Row]:
        path = self.folder / f"{name}.csv"
        self.command("label", *arguments, f"--out={path}")
        return table.read(path)

    def write(self, name: str, rows: list[table.Row]) -> pathlib.Path:
        path = self.folder / f"{name}.csv"
        table.write(path, rows)
        return path

    def labelled(self, name: str, rows: list[table.Row]) -> pathlib.Path:
        """The rows with the labels that the data set gives their texts."""
        return self.write(name, [row | {"label": self.truth[row["text"]]} for row in rows])

    def train(self, name: str, labels: pathlib.Path, *more: str) -> float:
        """Test accuracy of a run on a table of labels, which is there already if it was finished before."""
        workdir, data = self.folder / name, f"few_{self.seed}_{name}"
        if not (workdir / "finished").exists():
            folder = self.folder / "tfds"
            self.command(
                "prepare",
                "--config=configs/data/labelled.py",
                f"--config.input.files={labels}",
                f"--config.name={data}",
                f"--config.output.dir={folder}",
                "--workers=1",
            )
            fields = f"data.name={data} data.dir={folder} data.validation_name=movie_reviews data.validation_split=test seed={self.seed}"
            fields += " run.steps=60 run.eval_every=1000 run.save_every=1000 optimizer.warmup_steps=6"
            self.command(
                "train",
                "--config=configs/bert/finetune_sentiment.py",
                f"--workdir={workdir}",
                *(f"--config.{field}" for field in fields.split()),
                *more,
            )
            (workdir / "finished").touch()
        last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
        return last["validation/accuracy"]


if __name__ == "__main__":
    app.run(main)
