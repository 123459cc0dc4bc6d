"""A trained model, and what it makes of texts that are to be labelled."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from research.core import linen
from research.core.errors import UserError
from research.data.text_inputs import text_inputs
from research.labelling.texts import Texts

STEP = 32  # tokens: batches of short texts are cut to a multiple of it, and read so much faster


@dataclasses.dataclass(frozen=True)
class Run:
    """Texts longer than the run takes are cut, as in training."""

    workdir: pathlib.Path
    config: Any
    experiment: Any  # as research/build.py wires it
    tokenizer: Tokenizer
    step: int
    params: Any
    classes: tuple[str, ...]  # the names of its labels; none where it has none
    trained_on: frozenset[str]  # texts whose labels it was given

    def not_trained_on(self, data: Texts) -> Texts:
        """Without the texts of whose labels the run tells only what it was told. Raises UserError where nothing is left."""
        new_N = np.array([text not in self.trained_on for text in data.texts])
        if not new_N.any():
            raise UserError(f"{self.workdir} was trained on the labels of all these texts: name others, or a run that was not.")
        if not new_N.all():
            print(f"{(~new_N).sum():,} texts are left out: {self.workdir} was trained on their labels.")
        return data.where(new_N)

    def probabilities(self, data: Texts) -> np.ndarray:
        """P(class) (N, C) float32. Raises UserError for a run that tells no classes of a text."""
        objective = self.experiment.objective
        if getattr(objective, "predicts", None) != "label":
            raise UserError(
                f"{self.workdir} was trained for {self.config.objective.name}, which gives texts no label: name a run of sequence_classification."
            )
        return self._told(data, lambda params, inputs: objective.predict(params, inputs)["probabilities"])

    def embeddings(self, data: Texts) -> np.ndarray:
        """(N, D) float32. Raises UserError for a run that did not train all that its model embeds with."""
        model = self.experiment.objective.model
        if not hasattr(model, "embed"):
            raise UserError(f"config.model.name of {self.workdir} is {self.config.model.name!r}, which has no `embed`: name a run of bert or gpt.")
        needs = jax.eval_shape(lambda: linen.init(model, jax.random.key(0), linen.zeros(model.inputs(1, self.config.data.length)), method="embed"))
        if missing := needs.keys() - self.params.keys():
            raise UserError(f"{self.workdir} trained no {', '.join(sorted(missing))} to embed with: say --config.model.pool=mean.")
        return self._told(data, lambda params, inputs: linen.apply(model, params, None, inputs, method="embed"))

    def _told(self, data: Texts, of: Callable) -> np.ndarray:
        """The rows that `of`, (parameters, arrays of some texts) -> array, has for each text, a batch at a time."""
        e, length, size = self.experiment, self.config.data.length, self.config.data.eval_batch_size
        step = jax.jit(of, out_shardings=jax.sharding.NamedSharding(e.mesh, jax.sharding.PartitionSpec()))
        found = []
        for begin in tqdm(range(0, len(data.texts), size), desc="reading texts", unit=" batches", delay=2):
            some = data.texts[begin : begin + size]
            laid_out = [text_inputs([text], self.tokenizer, e.objective.vocabulary, length) for text in some + some[-1:] * (size - len(some))]
            inputs = {name: np.stack([x[name] for x in laid_out]) for name in laid_out[0]}
            used = -(-int(inputs["mask"].any(0).sum()) // STEP) * STEP  # of few sizes, since each is compiled
            with e.in_force():
                rows = jax.device_get(step(self.params, {name: x_BT[:, :used] for name, x_BT in inputs.items()}))
            found.append(np.asarray(rows, np.float32)[: len(some)])
        return np.concatenate(found)
