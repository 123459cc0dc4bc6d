"""What a sweep tries: the values that the command line or a config file names, as overrides of one config. Expansion is data: nothing is evaluated."""

import dataclasses
import hashlib
import itertools
import json
import math
import pathlib
import re
import runpy
import zlib

import numpy as np
from ml_collections import FrozenConfigDict

from configs import base
from research.core import config as config_lib
from research.core.errors import UserError

RANDOM = re.compile(r"(log|uniform)\(\s*([^,()]+),\s*([^,()]+),\s*(\d+)\s*\)")
RANGE = re.compile(r"(-?\d+):(-?\d+)(?::(\d+))?")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep. changes: {dotted field: value, as on the command line}. directory: its own by what is computed, wherever and however often."""

    changes: dict[str, str]
    config: FrozenConfigDict
    directory: pathlib.Path

    @property
    def flags(self) -> list[str]:
        return [f"--config.{name}={value}" for name, value in self.changes.items()]


def values(field: str, text: str) -> list[str]:
    """The values of a field that a sweep names.

    `1e-4,3e-4`: these; a comma within brackets or quotes parts nothing. `0:3`, `0:10:2`: whole numbers, as Python's range. `log(1e-5,1e-2,16)`,
    `uniform(0,0.5,16)`: so many draws, the logarithm of the first kind uniform; the first n are the same whatever their number, and each field has its
    own. Raises UserError.
    """
    if found := RANDOM.fullmatch(text.strip()):
        return _drawn(field, *found.groups())
    if found := RANGE.fullmatch(text.strip()):
        step = int(found[3] or 1)
        listed = range(int(found[1]), int(found[2]), step) if step else ()
        if not listed:
            raise UserError(f"--sweep: {text} has no number: the end comes after all of them, as in 0:3 for 0, 1, 2.")
        return [str(n) for n in listed]
    parts = _parted(text)
    if not all(parts):
        raise UserError(f"--sweep: {text!r} has an empty value.")
    return parts


def _parted(text: str) -> list[str]:
    """At the commas that are in no brackets and no quotes."""
    parts, depth, quote = [""], 0, None
    for c in text:
        quote = (None if c == quote else quote) if quote else (c if c in "\"'" else None)
        depth += (not quote) * ((c in "([{") - (c in ")]}"))
        if c == "," and not quote and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts]


def _drawn(field: str, kind: str, low: str, high: str, number: str) -> list[str]:
    try:
        a, b = float(low), float(high)
    except ValueError as e:
        raise UserError(f"--sweep: {kind}({low},{high},{number}) is from a number to a number.") from e
    if not (math.isfinite(a) and math.isfinite(b) and a < b) or (kind == "log" and a <= 0) or int(number) < 1:
        more = " and more than 0" * (kind == "log")
        raise UserError(
            f"--sweep: {kind}({low},{high},{number}): the first number is less than the second{more}, and the third says how many, 1 or more."
        )
    draws = np.random.default_rng(zlib.crc32(f"{field} {kind} {a} {b}".encode())).uniform(size=int(number))
    at = a + draws * (b - a) if kind == "uniform" else np.exp(math.log(a) + draws * (math.log(b) - math.log(a)))
    return [f"{x:.6g}" for x in at]


def expanded(sweeps: list[str], paired: bool) -> list[dict[str, str]]:
    """The changes of each trial: all combinations of what `sweeps` ("field=values") name, or, `paired`, the first of each, the second of each, ..."""
    fields = {}
    for sweep in sweeps:
        name, equals, text = sweep.partition("=")
        if not equals or name in fields:
            raise UserError(f"--sweep={sweep}: say --sweep=FIELD=VALUES, each field once, as in --sweep=seed=0:3.")
        fields[name] = values(name, text)
    if paired and len({len(listed) for listed in fields.values()}) > 1:
        told = ", ".join(f"{name} has {len(listed)}" for name, listed in fields.items())
        raise UserError(f"--zip pairs values, and they are not equally many: {told}.")
    together = zip(*fields.values(), strict=True) if paired else itertools.product(*fields.values())
    return [dict(zip(fields, chosen)) for chosen in together]


def generated(path: str) -> list[dict[str, str]]:
    """The changes of each trial that the function `sweep` of a config file yields, {dotted field: value}. Raises UserError where it has none, or yields nothing."""
    if not pathlib.Path(path).is_file():
        raise UserError(f"there is no config file {path}: give the path of one, such as configs/quickstart.py.")
    sweep = runpy.run_path(path).get("sweep")
    if sweep is None:
        raise UserError(f"{path} has no sweep(): say what to try, --sweep=FIELD=VALUES.")
    found = [dict(changes) for changes in sweep()]
    if not found:
        raise UserError(f"sweep() of {path} yields nothing.")
    if absent := [name for changes in found for name, value in changes.items() if value is None]:
        raise UserError(f"sweep() of {path} yields None for {absent[0]}: leave the field out where it is to be absent.")
    return [{name: str(value) for name, value in changes.items()} for changes in found]


def trials(arguments: list[str], changes: list[dict[str, str]], workdir: pathlib.Path) -> list[Trial]:
    """The runs of a sweep over the config that `arguments` (--config, --config.*) give. Raises UserError for a field or a value that the config cannot have."""
    found = {}
    for change in changes:
        _, config = config_lib.parse(["sweep", *arguments, *(f"--config.{name}={value}" for name, value in change.items())])
        config_lib.check_fields(config)
        mark = fingerprint(config, change)
        # Whatever it was called when it was first run.
        directory = next(workdir.glob(f"*-{mark}"), workdir / f"{_label(change, config)}-{mark}")
        found[mark] = Trial(change, config, directory)  # values that come to the same are one trial
    return list(found.values())


def fingerprint(config, changes=()) -> str:
    """Of what a run computes: where and how often it reports does not matter, but among `changes`. A field is told by what is not its default."""
    usual = config_lib.flatten(base.get_config())
    kept = {
        name: value
        for name, value in config_lib.flatten(config).items()
        if value != usual.get(name) and (name in changes or not name.startswith(config_lib.MAY_CHANGE))
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def _label(changes: dict[str, str], config) -> str:
    fields = config_lib.flatten(config)
    told = ",".join(f"{name.rpartition('.')[2]}={fields[name]}" for name in changes)
    return re.sub(r"[^\w.,=+-]+", "_", told)[:80] or "trial"
