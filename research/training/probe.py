"""What frozen embeddings know: labels found by the nearest neighbours, and by a linear map trained on top (Alain and Bengio, arXiv 1610.01644)."""

import numpy as np

from research.core.errors import UserError

Embedded = tuple[np.ndarray, np.ndarray]  # x_ND float32, label_N int32


def collect(embed_step, params, batches) -> Embedded:
    """The embeddings of all examples of `batches` (placed on the devices), filler left out; the same on every process.

    `embed_step`: (params, batch) -> (x_BD, label_B, valid_B), whole on every device. Raises UserError where the labels are no classes.
    """
    found = [[np.asarray(x) for x in embed_step(params, batch)] for batch in batches]
    x_ND, label_N, valid_N = (np.concatenate(parts) for parts in zip(*found))
    if not np.issubdtype(label_N.dtype, np.integer) or len(np.unique(label_N[valid_N])) < 2:
        raise UserError("a probe tells classes apart: choose a config.probe.name whose data.label_field has at least two.")
    return x_ND[valid_N], label_N[valid_N]


def knn(train: Embedded, validation: Embedded, neighbors: int) -> float:
    """The accuracy of a vote of the `neighbors` training examples most similar by cosine."""
    from sklearn.neighbors import KNeighborsClassifier  # a quarter of the time that any command takes to begin, did all import it

    classifier = KNeighborsClassifier(min(neighbors, len(train[0])), metric="cosine").fit(*train)
    return float(classifier.score(*validation))


def linear(train: Embedded, validation: Embedded) -> float:
    """The accuracy of logistic regression on the embeddings, each dimension first brought to mean 0 and variance 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(*train)
    return float(classifier.score(*validation))


def metric_name(evaluator: str) -> str:
    """What the evaluator of that name in the table, or `package.module:function`, measures."""
    return f"{evaluator.rpartition(':')[2]}_accuracy"
