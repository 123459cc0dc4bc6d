"""A trained model, and what it makes of texts that are to be labelled."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from research.core import linen
from research.core.errors import UserError
from research.labelling.texts import Texts


@dataclasses.dataclass(frozen=True)
class Run:
    """Texts longer than the run takes are cut, as in training."""

    workdir: pathlib.Path
    config: Any
    objective: Any
    step: int
    params: Any
    reader: Callable[[Callable], Callable[[Sequence[str]], np.ndarray]]  # what a function of the model makes of texts: of research/restore.py
    classes: tuple[str, ...]  # the names of its labels; none where it has none
    trained_on: frozenset[str]  # texts whose labels it was given

    def not_trained_on(self, data: Texts, name: str) -> Texts:
        """Without the texts of whose labels the run tells only what it was told; `name` says which. Raises UserError where nothing is left."""
        new_N = np.array([text not in self.trained_on for text in data.texts])
        if not new_N.any():
            raise UserError(f"{self.workdir} was trained on the labels of all texts of {name}: name others, or a run that was not.")
        if not new_N.all():
            print(f"{(~new_N).sum():,} of {len(new_N):,} texts of {name} are left out: {self.workdir} was trained on their labels.")
        return data.where(new_N)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """P(class) (N, C) float32. Raises UserError for a run that tells no classes of a text."""
        if getattr(self.objective, "predicts", None) != "label":
            raise UserError(
                f"{self.workdir} was trained for {self.config.objective.name}, which gives texts no label: name a run of sequence_classification."
            )
        return self.reader(lambda params, inputs: self.objective.predict(params, inputs)["probabilities"])(texts)

    def embeddings(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32. Raises UserError for a run that did not train all that its model embeds with."""
        model = self.objective.model
        if not hasattr(model, "embed"):
            raise UserError(f"config.model.name of {self.workdir} is {self.config.model.name!r}, which has no `embed`: name a run of bert or gpt.")
        needs = jax.eval_shape(lambda: linen.init(model, jax.random.key(0), linen.zeros(model.inputs(1, self.config.data.length)), method="embed"))
        if missing := needs.keys() - self.params.keys():
            raise UserError(f"{self.workdir} trained no {', '.join(sorted(missing))} to embed with: say --config.model.pool=mean.")
        return self.reader(lambda params, inputs: linen.apply(model, params, None, inputs, method="embed"))(texts)
