"""Labels that look wrong: confident learning (arXiv 1911.00068) by cleanlab (extra `data`), on out-of-sample probabilities by embeddings."""

from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from research.core.errors import UserError
from research.labelling import table
from research.labelling.table import Row
from research.labelling.texts import Texts

try:
    import cleanlab.filter
    import cleanlab.rank
except ImportError:  # an extra
    cleanlab = None  # type: ignore[assignment]

FOLDS = 5


def out_of_sample(x_ND: np.ndarray, labels_N: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """P(class) (N, C) of each example by logistic regression on the embeddings of the other folds, whose labels alone it saw.

    Labels must not have shaped the embeddings either. Raises UserError for fewer than two classes, or a class with fewer examples than folds.
    """
    if len(classes) < 2:
        raise UserError(f"all texts have the label {classes[0]}: give some of another class as well, for which one of them could be mistaken.")
    counts = np.bincount(labels_N, minlength=len(classes))
    if rare := [name for name, count in zip(classes, counts) if count < FOLDS]:
        raise UserError(f"there are fewer than {FOLDS} texts labelled {', '.join(rare)}: each class needs so many, that others may judge it.")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return cross_val_predict(classifier, x_ND, labels_N, cv=folds, method="predict_proba")


class Doubts(NamedTuple):
    quality_N: np.ndarray  # out-of-sample probability of the label that an example has
    suggested_N: np.ndarray  # the likeliest class
    wrong_N: np.ndarray  # bool: confident learning holds the label for an error

    @property
    def order_N(self) -> np.ndarray:
        """The errors, then the rest, each with the least quality first."""
        return np.lexsort((self.quality_N, ~self.wrong_N))

    def rows(self, data: Texts) -> list[Row]:
        """In that order. Those that look wrong have no label, so that they are asked again; all have the one that they had as `given`."""
        rows = []
        for i in self.order_N:
            given, wrong = data.classes[data.labels_N[i]], self.wrong_N[i]
            more = {"given": given, "quality": f"{self.quality_N[i]:.4f}", "suggested": data.classes[self.suggested_N[i]], "wrong": f"{wrong:d}"}
            rows.append(table.row(data.keys[i], data.texts[i], "" if wrong else given) | more)
        return rows


def doubts(labels_N: np.ndarray, probabilities_NC: np.ndarray) -> Doubts:
    """probabilities_NC: out of sample. Raises UserError where cleanlab is not installed."""
    if cleanlab is None:
        raise UserError("label errors are found with the package cleanlab, which is not installed: pip install 'lodestar-research[data]'.")
    wrong_N = cleanlab.filter.find_label_issues(labels_N, probabilities_NC, n_jobs=1)
    return Doubts(cleanlab.rank.get_label_quality_scores(labels_N, probabilities_NC), probabilities_NC.argmax(1), wrong_N)
