"""The small config of the tests, as a function and as a config file whose argument is the number of steps.

python -m research.train --config=tests/tiny.py --workdir=runs/tiny
"""

import os

from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from research import tables
from research.models.layers import TransformerConfig
from research.models.vit import VitConfig


def get_config(steps="6"):
    c = ConfigDict(base.get_config())
    c.model.update(vocab_size=64, max_length=32, width=16, layers=2, heads=4, mlp_width=32, dropout=0.0, dtype="float32", initializer_stddev=0.2)
    c.data.update(name="tests.tiny_text:TinyText", batch_size=16, eval_batch_size=16, length=32)
    c.optimizer.update(learning_rate=1e-2, warmup_steps=2, clip_norm=1.0)
    c.mesh.update(data=1, fsdp=1)
    c.run.update(steps=int(steps), log_every=1, eval_every=3, save_every=3)
    return c


def devices(number: int = 1) -> dict[str, str]:
    """What makes the environment of a process one of so many devices, in which compiling takes as little as in this one."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    return {"XLA_FLAGS": " ".join(flags + [f"--xla_force_host_platform_device_count={number}"] * (number > 1))}


def tiny_config(**changes) -> FrozenConfigDict:
    """The same with `changes`, {"dotted__name": value}: BERT in 16 dimensions on the invented text of tests/tiny_text.py."""
    c = get_config()
    c.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return FrozenConfigDict(c)


def transformer_config(cls=TransformerConfig, **changes):
    """The scalars of a model of 12 dimensions, 3 layers and 3 heads in float32, with `changes`."""
    m = base.get_config().model
    m.update(vocab_size=11, max_length=9, width=12, layers=3, heads=3, mlp_width=20, dropout=0.0, initializer_stddev=0.3, dtype="float32")
    m.update(**changes)
    return tables.from_fields(cls, FrozenConfigDict(m))


def vit_config(**changes) -> VitConfig:
    """The same for grey images of 8 pixels in 16 patches."""
    return transformer_config(VitConfig, **(dict(norm="pre", image_size=8, channels=1, patch_size=2, class_token=True) | changes))
