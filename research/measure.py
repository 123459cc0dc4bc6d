"""How an experiment is measured: on a split of its data, by what its embeddings know, or by what its agent does."""

from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax

from research import build
from research.build import Experiment
from research.core import config as config_lib
from research.core import linen
from research.core.config import look_up
from research.core.errors import UserError
from research.core.types import Batch
from research.data import sources
from research.data.corpus import Corpus
from research.rl.experience import Experience
from research.tables import EVALUATORS, SOURCES
from research.training import evaluate, probe


def validation_examples(config, corpus: Corpus, split: str) -> grain.MapDataset:
    """The examples an evaluation sees: the same for every run, since their seed is 0."""
    if (name := config.data.validation_name) is not None:
        config = config_lib.changed(config, {"data.name": name})
        corpus = corpus.of(config)
    examples = build.examples_of(config, corpus, split, config.data.length, training=False)
    return grain.MapDataset.range(len(examples)).seed(0).random_map(examples.example)


def evaluator(e: Experiment, corpus: Corpus, split: str, limit: int | None, lived: Experience | None = None) -> Callable:
    """params -> metrics on a split; of the validation split also what the config's probe group names. Of an agent: what its experience measures."""
    if lived := lived or build.experience(e, corpus):
        return lived.evaluate
    examples = validation_examples(e.config, corpus, split)
    probed = probes(e, corpus) if split == e.config.data.validation_split else lambda params: {}
    return lambda params: evaluate.evaluate(e.eval_step, params, eval_batches(e, examples, limit)) | probed(params)


def eval_batches(e: Experiment, examples: grain.MapDataset, limit: int | None = None) -> Iterator[Batch]:
    """One pass over the examples, on the devices."""
    size = e.config.data.eval_batch_size
    rows = e.rows(size, "data.eval_batch_size")
    return (e.place(batch, size) for batch in sources.batches_of(examples, size, rows, limit))


def probes(e: Experiment, corpus: Corpus) -> Callable:
    """params -> what the evaluators of the config's probe group say of the model's embeddings, which stay as they are."""
    p = e.config.probe
    evaluators = {name: look_up(EVALUATORS, name, "probe.evaluators") for name in p.evaluators}
    if not evaluators:
        return lambda params: {}
    what: Any = e.objective  # whose model embeds
    model, whole = what.model, jax.sharding.NamedSharding(e.mesh, jax.sharding.PartitionSpec())
    embedded = lambda params, batch: linen.apply(model, params, None, batch, method="embed").astype(jax.numpy.float32)
    embed_step = jax.jit(lambda params, batch: (embedded(params, batch), batch["label"], batch["valid"]), out_shardings=whole)
    splits = [probe_examples(e.config, corpus, split) for split in (p.train_split, p.validation_split)]

    def run(params):
        train, validation = (probe.collect(embed_step, params, eval_batches(e, examples)) for examples in splits)
        return {probe.metric_name(name): evaluator(p, train, validation) for name, evaluator in evaluators.items()}

    return run


def probe_examples(config, corpus: Corpus, split: str) -> grain.MapDataset:
    """The labelled examples of a split of the probe's data set, `probe.limit` at most, chosen at random but always the same."""
    p = config.probe
    fields = [field for field in ("name", "dir", "text_field", "image_field", "label_field", "source") if p[field] is not None]
    own = config_lib.changed(config, {f"data.{field}": p[field] for field in fields})
    examples = look_up(SOURCES, p.source, "probe.source")(own, corpus.of(own), split, config.data.length, False)
    corpus.manifest[f"probe/{split}"] = examples.manifest
    chosen = grain.MapDataset.range(len(examples)).seed(0).shuffle().slice(slice(0, p.limit)).random_map(examples.example)
    if "label" not in chosen[0]:
        raise UserError(f"config.probe.source is {p.source!r}, whose examples have no label: choose labelled_images or labelled_text.")
    return chosen
