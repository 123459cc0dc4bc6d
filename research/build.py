"""The only wiring: a config -> data, model, objective, optimizer, shardings, source. The names in it are looked up in research/tables.py."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import grain
import jax
from flax import linen as nn

from research import tables
from research.compile import chips, flops
from research.compile.options import compiler_options
from research.core import config as config_lib
from research.core import sharding
from research.core.config import look_up
from research.core.errors import UserError
from research.core.types import Batch, BatchSpec, Examples, Objective, Source, Vocabulary
from research.data import sources
from research.data.corpus import Corpus
from research.data.records import KnownClasses
from research.interop import directory, published
from research.objectives.adapted import Adapted
from research.rl.experience import Experience, ExperienceSource
from research.tables import DATASETS, EVALUATORS, EXPERIENCES, OBJECTIVES, SOURCES, TRACKERS, from_fields
from research.training import evaluate, optimizer, probe, state, step
from research.training.checkpoint import existing
from research.training.trackers import Tracker


def has_vocabulary(config) -> bool:
    """Whether the objective that the config names must know of a tokenizer: not where it is of no text, or all towers of the model see images."""
    images_only = len(tables.reading(config.model, "image")) == len(tables.towers(config.model))
    return not images_only and any(field.name == "vocabulary" for field in dataclasses.fields(objective_class(config)))


def tells_classes(config) -> bool:
    """Whether the objective that the config names tells labels apart."""
    return any(field.name == "classes" for field in dataclasses.fields(objective_class(config)))


def objective_class(config):
    cls = look_up(OBJECTIVES, config.objective.name, "objective.name")
    if not dataclasses.is_dataclass(cls):
        raise UserError(f"config.objective.name is {config.objective.name!r}, which is no dataclass: an objective is one (research/core/types.py).")
    return cls


def objective(config, vocabulary: Vocabulary | None = None) -> Objective:
    """What the config trains. Without a vocabulary, one of the right size stands in: enough for shapes and costs."""
    if not has_vocabulary(config):
        return _objective(config, None)
    size, most = word_table(config)
    vocabulary = vocabulary or Vocabulary(size, continues=(False,) * size, pad=0, cls=2, sep=3, mask=4, end=3)
    if vocabulary.size > size:
        raise UserError(f"the tokenizer has {vocabulary.size} tokens, config.model.vocab_size is {size}: raise it to at least that.")
    for field in ("length", "short_length"):
        if (config.data[field] or 0) > most:
            raise UserError(f"config.data.{field} {config.data[field]} is longer than the {most} positions of config.model.max_length.")
    return _objective(config, vocabulary)


def word_table(config) -> tuple[int, int]:
    """(tokens, positions) that the model has room for: of two towers that read text, what both have."""
    groups = [group for _, group, _ in tables.reading(config.model, "tokens")] or [config.model]
    return min(group.vocab_size for group in groups), min(group.max_length for group in groups)


def _objective(config, vocabulary) -> Objective:
    return from_fields(
        objective_class(config),
        config.objective,
        model=tables.model(config.model),
        vocabulary=vocabulary,
        batch_size=config.data.batch_size,
        length=config.data.length,
    )


Judge = Callable[[str], Callable]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All of a config but its data: nothing in here has been computed yet."""

    config: Any
    mesh: jax.sharding.Mesh
    rules: tuple
    objective: Objective  # the one that the config names
    trained: Objective  # the same, or low-rank updates of its parameters
    frozen: frozenset[str]  # the paths of the parameters that stay as they are
    init: Callable[[], state.TrainState]
    shapes: state.TrainState
    shardings: state.TrainState
    train_step: Callable  # compiled on first use
    eval_step: Callable

    @contextlib.contextmanager
    def in_force(self):
        """Within, activations are held to the shardings that the rules name."""
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(self.rules):
            yield

    def own(self, params):
        """Of a tree over all parameters, what is the objective's own."""
        return params["base"] if isinstance(self.trained, Adapted) else params

    def loaded(self, params):
        """Of a tree over all parameters, what can come from elsewhere: the objective's own, but for a reference, which is made of the others."""
        own = self.own(params)
        return {name: x for name, x in own.items() if name != "reference"} if hasattr(self.objective, "begin") else own

    def begin(self, params):
        """The objective's own parameters, of those that were loaded."""
        what: Any = self.objective
        return jax.jit(what.begin, out_shardings=self.own(self.shardings.params))(params) if hasattr(what, "begin") else params

    def merged(self, params):
        """The parameters as the objective takes them: low-rank updates, where there are any, are added in."""
        return self._merge(params) if isinstance(self.trained, Adapted) else params

    @functools.cached_property
    def _merge(self) -> Callable:
        adapted: Any = self.trained
        return jax.jit(adapted.merge, out_shardings=self.own(self.shardings.params))

    def rows(self, batch_size: int, what: str) -> list[int]:
        return sharding.process_rows(sharding.batch_sharding(self.mesh, self.rules, batch_size, what), batch_size)

    def place(self, batch: Batch, batch_size: int) -> Batch:
        return sharding.place_batch(batch, sharding.batch_sharding(self.mesh, self.rules, batch_size), batch_size)

    def work(self) -> Callable[[Batch | BatchSpec], tuple[int, float]]:
        """batch -> (tokens or examples, model FLOPs of a training step).

        Those are the FLOPs of the loss twice, for the loss and the gradients of the activations, and once more, for the gradients of the
        parameters, in so far as these are trained.
        """
        size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
        known, passes = {}, 2 + size(state.split(self.shapes.params, self.frozen)[0]) / size(self.shapes.params)

        def of(batch):
            shape = tuple((name, x.shape) for name, x in batch.items())
            if shape not in known:
                spec = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}
                loss = lambda params, batch: self.objective.loss_fn(params, batch, jax.random.key(0))
                units = batch["tokens"].size if "tokens" in batch else len(batch["valid"])
                known[shape] = units, passes * flops.count_flops(loss, self.own(self.shapes.params), spec, dense=True)
            return known[shape]

        return of

    @property
    def unit(self) -> str:
        return "tokens" if "tokens" in self.objective.example_batch else "examples"

    def peak_flops(self) -> float | None:
        """Of all devices, FLOP/s at the dtype of the computation; None where it is not known, or the towers have two."""
        dtypes = {group.dtype for _, group, _ in tables.towers(self.config.model)}
        return chips.peak_flops(self.mesh.devices.flat, *dtypes) if len(dtypes) == 1 else None


def experiment(config, vocabulary: Vocabulary | None = None, devices=None) -> Experiment:
    """Wires a config for `devices`, all by default. Raises UserError for whatever does not divide, fit or exist; touches no data."""
    c = config
    config_lib.check_fields(c)
    tables.check_augmentation(c)
    mesh = sharding.make_mesh(c.mesh, devices)
    rules = sharding.make_rules(c.mesh.rules, c.mesh.extra_rules)
    for _, group, _ in tables.towers(c.model):
        chips.check_eight_bit(list(mesh.devices.flat), group.matmul_dtype)
    batch = sharding.batch_sharding(mesh, rules, c.data.batch_size)
    sharding.batch_sharding(mesh, rules, c.data.eval_batch_size, "data.eval_batch_size")
    if c.rl.experience is not None and (c.probe.evaluators or c.data.short_length is not None):
        raise UserError("probe.evaluators and data.short_length are of examples, which an agent (rl.experience) makes for itself: leave them out.")
    what = objective(c, vocabulary)
    trained = what if c.lora.rank is None else Adapted(what, **c.lora.to_dict())
    axes = trained.logical_axes
    sharding.check_names(c.mesh.extra_rules, axes)
    _check_accumulation(what, c.optimizer.accumulate, c.data.batch_size, sharding.shards(batch, 0))
    _check_pipeline(c, batch)
    o = c.optimizer
    rate = optimizer.make_schedule(o.schedule, o.learning_rate, c.run.steps, o.warmup_steps, o.decay_steps, o.final_fraction)
    frozen = optimizer.frozen_names(axes, o.frozen, getattr(trained, "frozen", frozenset()))
    transform = optimizer.make_optimizer(o, rate, state.split(axes, frozen)[0])
    init = state.initial_state(trained, transform, c.seed, o.ema_decay is not None, frozen)
    shapes = jax.eval_shape(init)
    shardings = state.state_shardings(shapes, axes, mesh, rules)
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    options = compiler_options(list(mesh.devices.flat))
    train_step = jax.jit(
        step.make_train_step(trained.loss_fn, transform, rate, c.seed, o.accumulate, o.ema_decay, frozen),
        in_shardings=(shardings, batch),
        out_shardings=(shardings, whole),
        donate_argnums=0,
        compiler_options=options,
    )
    measure = step.make_eval_step(what.loss_fn)
    eval_step = jax.jit(measure, out_shardings=whole, compiler_options=options)
    e = Experiment(c, mesh, rules, what, trained, frozen, init, shapes, shardings, train_step, eval_step)
    for name in c.probe.evaluators:
        look_up(EVALUATORS, name, "probe.evaluators")
    for name in c.run.trackers:
        look_up(TRACKERS, name, "run.trackers")
    measured = evaluate.names(jax.eval_shape(measure, e.own(shapes.params), what.example_batch))
    if c.rl.experience is None:
        _check_best_metric(c, (*measured, *map(probe.metric_name, c.probe.evaluators)))
    return e


def _check_pipeline(c, batch: jax.sharding.NamedSharding):
    """Raises UserError where the rows of a step do not divide into microbatches that divide over the devices of a stage."""
    stages = batch.mesh.shape[sharding.PIPELINE]
    rows, shards = c.data.batch_size // c.optimizer.accumulate, sharding.shards(batch, 0) // stages
    for _, group, _ in tables.towers(c.model) if stages > 1 else ():
        if rows % (group.microbatches * shards):
            raise UserError(
                f"mesh.pipeline={stages}: data.batch_size / optimizer.accumulate, {rows}, does not divide into model.microbatches={group.microbatches} "
                f"over the {shards} shards of a stage: change one of them."
            )


def _check_best_metric(c, figures):
    measured = [f"validation/{figure}" for figure in figures]
    if c.run.best_metric not in measured:
        raise UserError(f"config.run.best_metric is {c.run.best_metric!r}: choose one of {', '.join(measured)}.")


def _check_accumulation(what: Objective, k: int, batch_size: int, shards: int):
    if k > 1 and not what.separable:
        raise UserError(f"{type(what).__name__} couples the examples of a batch: optimizer.accumulate must be 1, not {k}.")
    if k < 1 or batch_size % (k * shards):
        raise UserError(f"data.batch_size {batch_size} does not divide into optimizer.accumulate={k} microbatches over {shards} shards.")


def trackers(config, workdir: pathlib.Path) -> list[Tracker]:
    return [look_up(TRACKERS, name, "run.trackers")(workdir, config) for name in config.run.trackers]


def make_corpus(config, workdir: pathlib.Path) -> Corpus:
    """The data of a run. Its tokenizer is the run's own, else the one given, else that of the run it starts from, else the one that the data set was
    prepared with (research/curation/tokens.py), else newly trained."""
    kept = workdir / "tokenizer.json"
    if not kept.exists():
        kept = config.data.tokenizer and named_tokenizer(config.data.tokenizer)
        if kept is None and config.init["from"] is not None and has_vocabulary(config):
            kept = stored_tokenizer(config.init["from"])  # its word table means these words
    return Corpus(config, DATASETS, word_table(config)[0] if has_vocabulary(config) else None, kept)


def named_tokenizer(path: str) -> pathlib.Path:
    """The tokenizer that data.tokenizer names: a file, or that of a Hugging Face directory."""
    return stored_tokenizer(path) if directory.is_directory(published.resolve(path)) else pathlib.Path(path)


def stored_tokenizer(name: str) -> pathlib.Path:
    """The tokenizer of a run or a Hugging Face directory."""
    path = published.resolve(name)
    if path.suffix == ".gguf":
        raise UserError(f"{path} is a GGUF file: make it a run first, with python -m research.convert --from={path} --to=runs/NAME.")
    if not directory.is_directory(path):
        return existing(path).directory.parent / "tokenizer.json"
    if (file := directory.tokenizer_file(path)) is None:
        raise UserError(f"{path} has no tokenizer, neither {', '.join(directory.TOKENIZER_FILES)}: give one as config.data.tokenizer.")
    return file


def examples_of(config, corpus: Corpus, split: str, length: int, training: bool) -> Examples:
    """The examples of a split, augmented where they are for training, noted in the corpus's manifest."""
    check_classes(config, corpus)
    examples = look_up(SOURCES, config.data.source, "data.source")(config, corpus, split, length, training)
    corpus.manifest[f"{split}/{length}"] = examples.manifest | corpus.preparation
    return KnownClasses(examples, config.objective.classes) if tells_classes(config) else examples


def in_order(config, examples: Examples) -> grain.MapDataset:
    """The numbers of the examples as training sees them without end: each once an epoch, in an order that the seed and the epoch say."""
    return grain.MapDataset.range(len(examples)).seed(config.seed).shuffle().repeat()


def check_classes(config, corpus: Corpus):
    """Raises UserError where the objective tells apart more or fewer classes than the data set has labels."""
    if tells_classes(config) and corpus.labels is not None and len(corpus.labels) != config.objective.classes:
        raise UserError(
            f"{config.data.name} has {len(corpus.labels)} labels ({', '.join(corpus.labels[:10])}{', ...' if len(corpus.labels) > 10 else ''}), "
            f"objective.classes is {config.objective.classes}: set it to {len(corpus.labels)}."
        )


def training_source(e: Experiment, corpus: Corpus, lived: Experience | None = None) -> Source:
    """What an agent lives through, if it is one; else shuffled and repeated examples of the training split, first of the short length where the config has
    one. `lived`: what `experience` gave, where that has been asked already."""
    d, lived = e.config.data, lived or experience(e, corpus)
    if lived is not None:
        _check_batch(lived.spec, e.objective.example_batch)
        with e.in_force():
            return ExperienceSource(lived, e.config.seed, e.config.rl.updates, e.merged)

    def source(length):
        examples = examples_of(e.config, corpus, d.train_split, length, training=True)
        made = sources.GrainSource(in_order(e.config, examples).random_map(examples.example), d.batch_size, e.rows(d.batch_size, "data.batch_size"), d.threads, d.buffer)
        _check_batch(made.spec, e.objective.example_batch)
        return made

    if d.short_length is None:
        return source(d.length)
    return sources.Phases([(round(d.short_fraction * e.config.run.steps), source(d.short_length)), (0, source(d.length))])


def experience(e: Experiment, corpus: Corpus, judge: Judge | None = None) -> Experience | None:
    """What the config's agent lives through; None where it trains none. `judge`: the run that rl.judge names -> texts -> scores."""
    if e.config.rl.experience is None:
        return None
    made = look_up(EXPERIENCES, e.config.rl.experience, "rl.experience")(e.config, e.objective, corpus, judge)
    corpus.manifest["experience"] = made.manifest
    _check_best_metric(e.config, made.figures)
    for field, rows in made.rows.items():
        sharding.batch_sharding(e.mesh, e.rules, rows, field)
    return made


def _check_batch(given: BatchSpec, wanted: BatchSpec):
    describe = lambda spec: ", ".join(f"{name} {x.dtype}" for name, x in sorted(spec.items()))
    if describe(given) != describe(wanted):
        raise UserError(f"config.data.source gives ({describe(given)}), config.objective takes ({describe(wanted)}): choose two that match.")
