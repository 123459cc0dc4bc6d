"""Checkpoints with Orbax, and the one resume policy.

Where the parameters of a run come from, in this order:
  1. A finished checkpoint in the run directory always wins; a run goes on from the latest.
  2. `init.from`: the parameters of another run or a Hugging Face directory (research/restore.py), with a strict match of names, shapes and
     dtypes. Only those whose path matches `init.allow_new` may be missing there (they start from scratch) or differ in shape (likewise),
     and those that the model knows how to adapt to its own shape.
  3. From scratch.
Nothing is ever loaded partially in silence.
"""

import contextlib
import pathlib
import re

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from research.core.errors import UserError
from research.core.sharding import path_name
from research.training.state import TrainState, split


class Checkpoints:
    """The checkpoints of a run: state and source position saved together, asynchronously; the `keep` latest and the best stay."""

    def __init__(self, workdir, keep: int = 1, best_metric: str = "", best_mode: str = "min", read_only: bool = False):
        self.directory = pathlib.Path(workdir).absolute() / "checkpoints"
        self._metric = best_metric
        best = checkpoint_managers.BestN(
            get_metric_fn=lambda metrics: metrics[best_metric],
            reverse=best_mode == "min",  # Orbax keeps the last of the sorted
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        policy = None if read_only else checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(keep), best])
        options = ocp.CheckpointManagerOptions(
            best_fn=None if read_only else lambda metrics: metrics[best_metric],  # without it Orbax forgets the metrics of an earlier start
            best_mode=best_mode,
            preservation_policy=policy,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    @property
    def steps(self) -> list[int]:
        """The finished checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """The step of the checkpoint that is best by the metric, of those saved right after an evaluation."""
        return self._manager.best_step()

    def find(self, step: int | None = None) -> int:
        """The step of the latest finished checkpoint, or the one asked for. Raises UserError if it is not there."""
        found = self.latest if step is None else step
        if found not in self.steps:
            asked = "" if step is None else f" at step {step}"
            raise UserError(f"{self.directory} has no finished checkpoint{asked}; it has: {self.steps or 'none'}.")
        return found

    def save(self, state: TrainState, source_state: dict, metrics: dict[str, float] | None):
        """Starts to save; `metrics` are those of an evaluation at this very step, if there was one."""
        position, kept = split_source(source_state)
        arrays = {item: ocp.args.StandardSave(tree) for item, tree in (_items(state) | kept).items()}
        ranked = {self._metric: metrics[self._metric]} if metrics and self._metric in metrics else None
        self._manager.save(int(state.step), args=ocp.args.Composite(source=ocp.args.JsonSave(position), **arrays), metrics=ranked, force=True)

    def save_params(self, params):
        """Saves parameters alone, as step 0: to read, and for other runs to start from."""
        self._manager.save(0, args=ocp.args.Composite(params=ocp.args.StandardSave(params)), force=True)

    def restore(self, shapes: TrainState, shardings: TrainState, source_state: dict) -> tuple[TrainState, dict]:
        """The latest (state, source state), each array straight into its shards, whatever mesh saved it: those of the source as in `source_state`."""
        step = self.find()
        if not (self.directory / str(step) / "optimizer").exists():
            run = self.directory.parent
            raise UserError(f"{run} has parameters and no optimizer to go on with: train a new run from it, --config.init.from={run}.")
        wanted = _items(_abstract(shapes, shardings)) | jax.tree.map(ocp.utils.to_shape_dtype_struct, split_source(source_state)[1])
        advice = "Other code made this run: go back to its commit (provenance.json), or choose another --workdir"
        for item, tree in wanted.items():
            self._check_stored(step, item, self._stored(step, item), tree, advice)
        arrays = {item: ocp.args.StandardRestore(tree) for item, tree in wanted.items()}
        with self._readable(step):
            found = self._manager.restore(step, args=ocp.args.Composite(source=ocp.args.JsonRestore(), **arrays))
        kept = {"arrays": found["source_arrays"]} if "source_arrays" in wanted else {}
        state = TrainState(params=found["params"], ema=found["ema"] if shapes.ema is not None else None, **found["optimizer"])
        return state, found["source"] | kept

    def restore_params(self, shapes, shardings, step: int | None = None, allow_new: str | None = None, adapter=lambda *_: None, under: str = ""):
        """The parameters to use for anything but training on: their moving average where the run kept one.

        Args:
          shapes, shardings: trees of what is wanted and where.
          step: which checkpoint; None for the latest.
          allow_new: a pattern of paths; where it matches, a parameter missing or of another shape comes back as None.
          adapter: (path, stored shape) -> the function that makes a stored array of another shape fit, or None.
          under: the entry of what is stored that is wanted; "" for all of it.
        Raises:
          UserError: no such checkpoint, names, shapes or dtypes that differ, or an `allow_new` that matches nothing.
        """
        step = self.find(step)
        item, stored = self._params_item(step), self.stored_params(step, under)
        adapt, there = _adapted(stored, shapes, adapter)
        new = self._check_stored(step, item, stored, there, "What may differ, config.init.allow_new names by pattern", allow_new)
        wanted, _ = split(_abstract(there, shardings), new)
        wanted = {under: wanted} if under else wanted
        how = ocp.args.PyTreeRestore(wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted), partial_restore=True)
        with self._readable(step), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            found = reader.restore(self.directory / str(step) / item, args=how)
        found = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(found[under] if under else found)}
        found |= {name: jax.jit(function, out_shardings=found[name].sharding)(found[name]) for name, function in adapt.items() if name not in new}
        return jax.tree_util.tree_map_with_path(lambda path, _: found.get(path_name(path)), shapes)

    def stored_params(self, step: int | None = None, under: str = ""):
        """The tree of shapes and dtypes of what `restore_params` reads."""
        step = self.find(step)
        stored = self._stored(step, self._params_item(step))
        return stored[under] if under else stored

    def _params_item(self, step: int) -> str:
        return "ema" if (self.directory / str(step) / "ema").exists() else "params"

    def _stored(self, step: int, item: str):
        """The tree of what is stored, as metadata."""
        with self._readable(step):
            return ocp.StandardCheckpointer().metadata(self.directory / str(step) / item).item_metadata.tree

    def _check_stored(self, step: int, item: str, stored, shapes, advice: str, allow_new: str | None = None) -> set[str]:
        """The paths that `allow_new` lets start from scratch. Raises UserError, ending in `advice`, for every other difference."""
        new, wrong = _differences(shapes, stored, allow_new)
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise UserError(f"{self.directory / str(step) / item} does not fit: {'; '.join(wrong[:3])}{more}. {advice}.")
        return new

    def wait(self):
        """Blocks until what was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self):
        self._manager.close()

    @contextlib.contextmanager
    def _readable(self, step):
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:  # Orbax has no error of its own for a damaged file
            others = [other for other in self.steps if other != step]
            advice = f"move that folder away to use step {others[-1]}" if others else "move that folder away to start again"
            raise UserError(f"the checkpoint {self.directory / str(step)} cannot be read ({str(e)[:200]}): {advice}.") from e


def existing(workdir) -> Checkpoints:
    """The checkpoints of a run, for reading. Raises UserError if it has none."""
    checkpoints = Checkpoints(workdir, read_only=True)
    checkpoints.find()
    return checkpoints


def _abstract(shapes, shardings):
    return jax.tree.map(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings)


def _adapted(stored, shapes, adapter):
    """({path: function} of the parameters that the adapter makes fit, `shapes` with those as they are stored)."""
    stored = {path_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(stored)}
    wanted = {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    differ = [name for name in wanted.keys() & stored.keys() if stored[name] != wanted[name]]
    adapt = {name: function for name in differ if (function := adapter(name, stored[name]))}

    def there(path, x):
        return jax.ShapeDtypeStruct(stored[path_name(path)], x.dtype) if path_name(path) in adapt else x

    return adapt, jax.tree_util.tree_map_with_path(there, shapes)


def _items(state: TrainState) -> dict:
    """The arrays of a state as they are stored: one item each, so that the parameters can be read alone."""
    items = {"params": state.params, "optimizer": {"step": state.step, "opt_state": state.opt_state}}
    return items if state.ema is None else items | {"ema": state.ema}


def split_source(source_state: dict) -> tuple[dict, dict]:
    """What JSON can hold of a source's state, and the item of its arrays, if it has some."""
    position = {name: value for name, value in source_state.items() if name != "arrays"}
    return position, {"source_arrays": source_state["arrays"]} if "arrays" in source_state else {}


def _differences(shapes, stored, allow_new: str | None) -> tuple[set[str], list[str]]:
    """Between what is wanted and what is stored: the paths that `allow_new` excuses, and all others, said in words."""
    describe = lambda leaf: f"{leaf.dtype}{list(leaf.shape)}"
    wanted = {path_name(path): describe(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    found = {path_name(path): describe(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(stored)}
    if allow_new and not any(re.search(allow_new, name) for name in wanted | found):
        raise UserError(f"init.allow_new {allow_new!r} matches no parameter, here or there: leave it out, or name one such as {min(wanted)}.")
    differ = {name for name in wanted if found.get(name) != wanted[name]}
    new = {name for name in differ if allow_new and re.search(allow_new, name)}
    wrong = [f"{name} is {found.get(name, 'missing')} there, {wanted[name]} here" for name in sorted(differ - new)]
    wrong += [
        f"{name} is {found[name]} there, not in this model"
        for name in sorted(found.keys() - wanted.keys())
        if not (allow_new and re.search(allow_new, name))
    ]
    return new, wrong
