"""Which array dimension lies on which mesh axis.

Parameters and activations name their dimensions by logical axes (batch, sequence, stream: the sequence between blocks, embed, heads, head_dim,
mlp, vocab, layers, rank). Rules, a table of (logical axis, mesh axis or axes or None), put them on the mesh (pipeline, data, fsdp, context, tensor).
The first rule whose mesh axes are still free wins, so `embed` is split over `fsdp` in a parameter and, where `batch` has taken
`fsdp` already, whole in an activation.
"""

import os

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from research.core.errors import UserError

PIPELINE = "pipeline"
MESH_AXES = (PIPELINE, "data", "fsdp", "context", "tensor")

# Outside the layers, and so of the stages, the devices of all stages share the rows.
_BATCH = (
    ("layers", PIPELINE),
    ("batch", (PIPELINE, "data", "fsdp")),
    ("batch", ("data", "fsdp")),
    ("sequence", "context"),
    ("stream", "context"),
)
_WHOLE = tuple((axis, None) for axis in ("embed", "heads", "head_dim", "mlp", "vocab", "layers", "rank"))
_FSDP = (("embed", ("fsdp", "context")),)  # those who share a row share the parameters too
# Between the blocks, where nothing is split by heads, a device keeps a part of the tokens (arXiv 2205.05198, section 4.2.2).
_TENSOR = (("vocab", "tensor"), ("heads", "tensor"), ("mlp", "tensor"), ("stream", ("context", "tensor")))

PRESETS = {
    "dp": _BATCH + _WHOLE,
    "fsdp": _BATCH + _FSDP + _WHOLE,
    "tp": _TENSOR + _BATCH + _WHOLE,
    "fsdp_tp": _TENSOR + _BATCH + _FSDP + _WHOLE,
}


def join_processes(distributed: bool):
    """Makes this process one of a multi-host job, if asked to: the one that JAX finds by itself, or that JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID
    name. Raises UserError where there is none."""
    if not distributed:
        return
    told = [os.environ[name] for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID") if name in os.environ]
    try:
        if len(told) == 3:
            jax.distributed.initialize(told[0], int(told[1]), int(told[2]))
        else:
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as e:
        raise UserError(
            f"--distributed finds no job to join ({e}): it needs SLURM, a TPU pod, Kubernetes, MPI, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID."
        ) from e


def make_mesh(sizes: dict[str, int], devices=None) -> Mesh:
    """A mesh with the axes MESH_AXES; one size may be -1: whatever is left.

    Later axes lie closer together. Of several slices, joined by the data-centre network, each holds stages of `pipeline` if these divide over the slices, else
    a part of `data`. Raises UserError if the sizes do not multiply to the number of devices, or neither divides over the slices.
    """
    devices = jax.devices() if devices is None else devices
    shape = [sizes[axis] for axis in MESH_AXES]
    known = int(np.prod([n for n in shape if n != -1]))
    asked = ", ".join(f"{axis}={n}" for axis, n in zip(MESH_AXES, shape))
    if shape.count(-1) > 1 or known < 1:
        raise UserError(f"mesh {asked}: sizes are positive, and at most one is -1 (whatever is left).")
    if -1 in shape and len(devices) % known == 0:
        shape[shape.index(-1)] = len(devices) // known
    if -1 in shape or int(np.prod(shape)) != len(devices):
        raise UserError(f"mesh {asked} does not divide over {len(devices)} devices: set config.mesh.* so that the product is {len(devices)}.")
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        outer = next((k for k in (0, 1) if shape[k] % slices == 0), None)
        if outer is None:
            raise UserError(
                f"mesh {asked} on {slices} slices: config.mesh.data or .pipeline is a multiple of {slices}, which alone crosses from slice to slice."
            )
        across = [slices if k == outer else 1 for k in range(len(shape))]
        within = [size // part for size, part in zip(shape, across)]
        placed = mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)
    # Auto axes: with Explicit ones an embedding lookup would have to say the sharding of its result.
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * len(shape))


def make_rules(preset: str, extra=()):
    """The named preset after the `extra` (logical axis, mesh axis) pairs, which so take precedence."""
    if preset not in PRESETS:
        raise UserError(f"mesh.rules is {preset!r}: choose one of {', '.join(PRESETS)}.")
    for rule in extra:
        if not isinstance(rule, tuple) or len(rule) != 2:
            raise UserError(f'mesh.extra_rules has {rule!r}: it is a tuple of pairs, (("logical axis", "mesh axis" or None), ...).')
        logical, mesh_axes = rule
        unknown = {mesh_axes} if isinstance(mesh_axes, str) else set(mesh_axes or ())
        if unknown - set(MESH_AXES):
            raise UserError(f"mesh.extra_rules puts {logical!r} on {mesh_axes!r}: the mesh has {', '.join(MESH_AXES)}.")
    return tuple(extra) + PRESETS[preset]


def check_names(extra, logical_axes):
    """Raises UserError for an extra rule on a logical axis that nothing has."""
    leaves = jax.tree.leaves(logical_axes, is_leaf=lambda axes: isinstance(axes, tuple))
    known = {name for axes in leaves for name in axes if name} | {name for name, _ in PRESETS["dp"]}
    for name, _ in extra:
        if name not in known:
            raise UserError(f"mesh.extra_rules names {name!r}: the axes are {', '.join(sorted(known))}.")


def partition_spec(axes, rules) -> PartitionSpec:
    """Logical axis names, None for a dimension never split -> PartitionSpec. Raises UserError for a name without a rule."""
    placed, used = [None] * len(axes), set[str]()
    for name in axes:
        if name is not None and all(name != logical for logical, _ in rules):
            raise UserError(f"logical axis {name!r} of {axes} has no rule: add ({name!r}, mesh axis or None) to config.mesh.extra_rules.")
    decided = set()
    for logical, mesh_axes in rules:
        if logical not in axes or logical in decided:
            continue
        wanted = {mesh_axes} if isinstance(mesh_axes, str) else set(mesh_axes or ())
        if not used & wanted:
            placed[axes.index(logical)] = mesh_axes
            used |= wanted
            decided.add(logical)
    return PartitionSpec(*placed)


def constrain(x, *axes):
    """`x` held to the sharding its logical axes name, under the rules and the mesh in force; as it is where none are."""
    rules = nn.get_logical_axis_rules()
    return jax.lax.with_sharding_constraint(x, partition_spec(axes, rules)) if rules else x


def split_rows(tree):
    """Arrays (rows, ...), each row on the devices that it would have in a batch."""
    return jax.tree.map(lambda x: constrain(x, "batch", *[None] * (x.ndim - 1)), tree)


def gathered(x, along: str, *axes):
    """`x`, of these logical axes, held whole along one of them before it is used; its gradient is split along it as x is.

    Left to itself the partitioner may gather what x is multiplied with, and not scatter its gradient.
    """

    @jax.custom_vjp
    def gather(x):
        return constrain(x, *(None if axis == along else axis for axis in axes))

    gather.defvjp(lambda x: (gather(x), None), lambda _, gradient: (constrain(gather(gradient), *axes),))
    return gather(x)


def parts(axis: str) -> int:
    """In how many parts the rules and the mesh in force split a logical axis."""
    rules = nn.get_logical_axis_rules()
    return shards(NamedSharding(jax.sharding.get_abstract_mesh(), partition_spec((axis,), rules)), 0) if rules else 1


def shards(sharding: NamedSharding, dimension: int) -> int:
    """In how many parts `sharding` splits a dimension."""
    names = sharding.spec[dimension] if dimension < len(sharding.spec) else None
    names = (names,) if isinstance(names, str) else (names or ())
    return int(np.prod([sharding.mesh.shape[name] for name in names]))


def within_stage(rules):
    """The rules for what one stage of the pipeline does, which sees nothing of the others."""
    return tuple((logical, axes) for logical, axes in rules if PIPELINE not in ((axes,) if isinstance(axes, str) else axes or ()))


def param_shardings(mesh: Mesh, rules, logical_axes, shapes):
    """A NamedSharding for each parameter. Raises UserError, with the numbers, where a dimension does not divide."""

    def place(path, shape, axes):
        if len(axes) != len(shape.shape):
            raise UserError(f"{path_name(path)} of shape {shape.shape} names the axes {axes}: each dimension needs one, or None.")
        sharding = NamedSharding(mesh, partition_spec(axes, rules))
        for dimension, (size, name) in enumerate(zip(shape.shape, axes)):
            if size % shards(sharding, dimension):
                raise UserError(
                    f"{path_name(path)} has {size} {name}, which the mesh would split in {shards(sharding, dimension)} "
                    f"({sharding.spec[dimension]}): they do not divide. Change config.mesh or the model."
                )
        return sharding

    return jax.tree_util.tree_map_with_path(place, shapes, logical_axes)


def batch_sharding(mesh: Mesh, rules, batch_size: int, what: str = "data.batch_size") -> NamedSharding:
    """How a batch is split: examples over the data axes. Raises UserError if they do not divide."""
    sharding = NamedSharding(mesh, partition_spec(("batch",), rules))
    if batch_size % shards(sharding, 0):
        raise UserError(f"{what} {batch_size} does not divide over the {shards(sharding, 0)} shards of the batch (mesh {dict(mesh.shape)}).")
    return sharding


def process_rows(sharding: NamedSharding, batch_size: int) -> list[int]:
    """The rows of the global batch that this process's devices hold, in order. On a TPU pod they may lie apart."""
    slices = [index[0] for index in sharding.addressable_devices_indices_map((batch_size,)).values() if index is not None]
    return sorted({row for s in slices for row in range(*s.indices(batch_size))})


def place_batch(batch, sharding: NamedSharding, batch_size: int):
    """This process's rows -> global arrays. Arrays already on the devices pass through."""

    def place(x):
        return x if isinstance(x, jax.Array) else jax.make_array_from_process_local_data(sharding, x, (batch_size, *x.shape[1:]))

    return jax.tree.map(place, batch)


def path_name(path) -> str:
    """A key path of a tree as names with slashes between: encoder/blocks/mlp/up/kernel."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def kernel_inputs(axes) -> int | None:
    """How many dimensions of a kernel are inputs, the others being outputs; None for what is no kernel. `axes` are one layer's, without `layers`.

    (embed, heads, head_dim) has one, (heads, head_dim, embed) two.
    """
    if "embed" not in axes or "rank" in axes or len(axes) < 2:
        return None
    return 1 if axes[0] == "embed" else len(axes) - 1
