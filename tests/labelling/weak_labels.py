"""How good the labels are that functions give movie reviews, by ways of putting their votes together.

    python -m tests.labelling.weak_labels

What there is to learn is learned from the votes on the training split, without a label, and judged on the sentences of the test split on which some
function votes, and on those of them where two contradict each other. The last way but one alone is told by labels, those of the test split, how often
votes are right: so much could one figure for all functions do. ± is the standard error, by the bootstrap over these sentences, from which the 95 %
intervals come as well: of what the other ways have more than the label model, on the same sentences.
"""

import numpy as np
from absl import app

from configs import base
from research.core import config as config_lib
from research.data.corpus import Corpus
from research.labelling import functions, label_model, texts
from research.reports.tables import Cell, markdown
from research.tables import DATASETS

VOTERS, DRAWS = "configs/data/movie_reviews_weak.py", 5000
MEASURES = ("accuracy", "log-loss", "Brier score")


def main(argv):
    corpus = Corpus(config_lib.changed(base.get_config(), {"data.name": "movie_reviews"}), DATASETS, None, None)
    train, test = (texts.of_dataset(corpus, split, "text", "label") for split in ("train", "test"))
    voters, classes = functions.load(VOTERS), len(test.classes)
    seen_NM, votes_NM = (functions.votes(voters, data.texts, data.classes) for data in (train, test))
    right = label_model.one_accuracy(seen_NM, classes)
    model = label_model.fit(seen_NM, classes)
    covered_N, disputed_N = (votes_NM >= 0).any(1), label_model.counts(votes_NM, classes).astype(bool).sum(1) > 1
    print(f"{len(voters)} functions; some votes on {(seen_NM >= 0).any(1).mean():.1%} of {len(train.keys):,} training sentences.")
    print(f"Of those {((seen_NM >= 0).sum(1) > 1).sum():,} have several votes. One accuracy for all functions: {right:.3f}.")
    told = (votes_NM == test.labels_N[:, None]).sum() / (votes_NM >= 0).sum()
    *others, ours = label_model.ways(votes_NM, model, right).items()
    known = f"independent votes, each right {told:.1%} as labels tell", label_model.independent_votes(votes_NM, classes, told)
    of = dict([*others, known, ours])
    for what, some_N in {"with a vote": covered_N, "where votes differ": disputed_N}.items():
        print(f"\n{some_N.sum():,} of {len(test.keys):,} test sentences, {what}:\n")
        compare({name: p_NC[some_N] for name, p_NC in of.items()}, test.labels_N[some_N])


def compare(of: dict[str, np.ndarray], labels_N: np.ndarray):
    """Prints the quality of each way, and by how much it differs from that of the last."""
    rng, size = np.random.default_rng(0), len(labels_N)
    drawn_DN = rng.integers(size, size=(DRAWS, size))
    of_example = {name: np.array([label_model.quality(p_C[None], label[None]) for p_C, label in zip(p_NC, labels_N)]) for name, p_NC in of.items()}
    *_, last_N3 = of_example.values()
    body = []
    for name, x_N3 in of_example.items():
        mean_D3, more_D3 = x_N3[drawn_DN].mean(1), (x_N3 - last_N3)[drawn_DN].mean(1)
        low_3, high_3 = np.quantile(more_D3, (0.025, 0.975), axis=0)
        reached = [f"{value:.3f} ± {error:.3f}" for value, error in zip(x_N3.mean(0), mean_D3.std(0))]
        body.append([name, *reached, *(f"{low:+.3f} to {high:+.3f}" if x_N3 is not last_N3 else "" for low, high in zip(low_3, high_3))])
    print(markdown(["put together by", *MEASURES, *(f"{name}, difference" for name in MEASURES)], [[Cell(text) for text in row] for row in body]))


if __name__ == "__main__":
    app.run(main)
