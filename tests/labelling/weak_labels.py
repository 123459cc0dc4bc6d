"""How good the labels are that functions give movie reviews, by ways of putting their votes together.

    python -m tests.labelling.weak_labels

What there is to learn is learned from the votes on the training split, without a label, so that every split can judge it: on the sentences on which
some function votes. The last two columns are 95 % intervals of what a way has more than the label model, by the bootstrap over these sentences.
"""

import numpy as np
from absl import app

from configs import base
from research.core import config as config_lib
from research.data.corpus import Corpus
from research.labelling import functions, label_model, texts
from research.reports.tables import Cell, markdown
from research.tables import DATASETS

VOTERS, SPLITS, DRAWS = "configs/data/movie_reviews_weak.py", ("train", "validation", "test"), 2000


def main(argv):
    corpus = Corpus(config_lib.changed(base.get_config(), {"data.name": "movie_reviews"}), DATASETS, None, None)
    voters, of = functions.load(VOTERS), {split: texts.of_dataset(corpus, split, "text", "label") for split in SPLITS}
    votes = {split: functions.votes(voters, data.texts, data.classes) for split, data in of.items()}
    classes, train_NM = len(of["train"].classes), votes["train"]
    model, right = label_model.fit(train_NM, classes), label_model.one_accuracy(train_NM, classes)
    print(f"{len(voters)} functions; some votes on {(train_NM >= 0).any(1).mean():.1%} of the training sentences,", end=" ")
    print(f"several on {((train_NM >= 0).sum(1) > 1).mean():.1%}.\n")
    body = []
    for split, votes_NM in votes.items():
        some_N = (votes_NM >= 0).any(1)
        found = label_model.ways(votes_NM[some_N], model, right)
        body += [[f"{split}, {some_N.sum():,} sentences", *row] for row in compared(found, of[split].labels_N[some_N])]
    header = ["judged on", "votes put together by", "accuracy", "log-loss", "Brier score", "accuracy, more", "log-loss, more"]
    print(markdown(header, [[Cell(text) for text in row] for row in body]))


def compared(of: dict[str, np.ndarray], labels_N: np.ndarray) -> list[list[str]]:
    """The quality of each way, and how much more of it that has than the last way."""
    size = len(labels_N)
    drawn_DN = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), DRAWS) / size  # how often each, over how many
    of_each = {name: np.array([label_model.quality(p_C[None], label[None]) for p_C, label in zip(p_NC, labels_N)]) for name, p_NC in of.items()}
    *_, last_N3 = of_each.values()
    rows = []
    for name, x_N3 in of_each.items():
        low_3, high_3 = np.quantile(drawn_DN @ (x_N3 - last_N3), (0.025, 0.975), axis=0)
        more = [f"{low:+.3f} to {high:+.3f}" if x_N3 is not last_N3 else "" for low, high in zip(low_3, high_3)]
        rows.append([name, *(f"{value:.3f}" for value in x_N3.mean(0)), *more[:2]])
    return rows


if __name__ == "__main__":
    app.run(main)
