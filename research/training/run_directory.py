"""A run directory: everything needed to resume, evaluate, predict from, export or launch the run again.

config.json (fully resolved), provenance.json, metrics.jsonl, timing.jsonl, tensorboard/, checkpoints/, plots/, .lock (held by the process that trains), and tokenizer.json
and labels.json (the names of the labels) where there are any.
"""

import datetime
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys
from collections.abc import Sequence

import filelock
import jax

from research.core import config as config_lib
from research.core.config import leaves
from research.core.errors import UserError
from research.core.files import write_atomically


def check_config(workdir: pathlib.Path, config, defaults):
    """Raises UserError if `workdir` belongs to another config: says what differs and how to go on. `defaults` stand for fields it does not know."""
    path = workdir / "config.json"
    if not path.exists():
        if any((workdir / "checkpoints").glob("*")):
            raise UserError(f"{workdir} has checkpoints but no config.json to say of what: choose another --workdir.")
        return
    changed = [
        change for change in config_lib.differences(config_lib.read(path, defaults), config) if not change[0].startswith(config_lib.MAY_CHANGE)
    ]
    if changed:
        said = "; ".join(f"{name} is {before!r} there, {now!r} here" for name, before, now in changed[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise UserError(f"{workdir} belongs to another config: {said}{more}. Choose another --workdir, or leave --config out to go on with that run.")


def check_data(workdir: pathlib.Path, manifest: dict):
    """Raises UserError if the run has so far seen other data than `manifest` tells of: what was made anew may differ. What only one of them tells is let be."""
    path = workdir / "provenance.json"
    before = json.loads(path.read_text())["starts"][-1]["data"] if path.exists() else {}
    for split in before.keys() & manifest.keys():
        was, now = (leaves(told[split]) for told in (before, manifest))
        if any(was[what] != now[what] for what in was.keys() & now.keys()):
            raise UserError(f"{workdir} was trained on other data: {split} was {before[split]}, is {manifest[split]} now. Choose another --workdir.")


def claim(workdir: pathlib.Path) -> filelock.AcquireReturnProxy:
    """A context in which the run directory is this process's alone. Raises UserError where another has it: both would write the same files."""
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        return filelock.FileLock(workdir / ".lock").acquire(blocking=False)
    except filelock.Timeout:
        raise UserError(f"{workdir} is being trained by another process: wait for it, stop it, or choose another --workdir.") from None


def write(workdir: pathlib.Path, config, tokenizer, labels: Sequence[str] | None, argv: list[str], data_manifest: dict):
    """Makes or completes the directory: config, tokenizer, names of labels, and in provenance.json one more start."""
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir / "config.json", config_lib.to_json(config))
    if tokenizer is not None:
        write_atomically(workdir / "tokenizer.json", tokenizer.to_str(pretty=True))
    if labels is not None:
        write_atomically(workdir / "labels.json", json.dumps(labels, indent=2) + "\n")
    _add_start(workdir, argv, data_manifest)


def _add_start(workdir: pathlib.Path, argv: list[str], data_manifest: dict):
    path = workdir / "provenance.json"
    before = starts(workdir) if path.exists() else []
    write_atomically(path, json.dumps({"starts": [*before, _start(argv, data_manifest)]}, indent=2) + "\n")


def starts(workdir: pathlib.Path) -> list[dict]:
    """What each start of a run ran with. Raises UserError where that is not told."""
    path = workdir / "provenance.json"
    if not path.is_file():
        raise UserError(f"{workdir} does not tell what it ran with: there is no {path.name} in it.")
    return json.loads(path.read_text())["starts"]


def _start(argv: list[str], data_manifest: dict) -> dict:
    """What code, packages, devices, command and data this start runs with. The code is ours, and the project's in whose directory the command is given."""
    ours, here = (_repository(pathlib.Path(path)) for path in (__file__, "x"))
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": [pathlib.Path(sys.executable).name, *argv],
        **{f"git_{part}": ours[part] for part in PARTS},
        "project": None if here["top"] == ours["top"] else {part: here[part] for part in PARTS},
        "python": platform.python_version(),
        "packages": {d.name: d.version for d in sorted(importlib.metadata.distributions(), key=lambda d: d.name.lower())},
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "data": data_manifest,
    }


def what_differs(run: pathlib.Path, config, defaults, data_manifest: dict) -> list[str]:
    """Where a run with `config`, started here and now, differs from the last start of the one in the directory `run`: config, code, packages, hardware, data."""
    was, now = starts(run)[-1], _start([], data_manifest)
    found = [
        f"config.{name}: {before!r} there, {here!r} here"
        for name, before, here in config_lib.differences(config_lib.read(run / "config.json", defaults), config)
    ]
    code = lambda start: (
        {f"code: {what}": start.get(f"git_{what}") for what in PARTS}
        | {f"code of the project here: {what}": (start.get("project") or {}).get(what) for what in PARTS}
    )
    for what, before in code(was).items():
        here = code(now)[what]
        if before != here:
            found.append(f"{what} {before} there, {here} here" if what.endswith("commit") else f"{what}, not the same there and here")
    versions = {"Python": (was["python"], now["python"])}
    versions |= {name: (was["packages"].get(name), now["packages"].get(name)) for name in sorted(was["packages"].keys() | now["packages"].keys())}
    found += [f"package {name}: {before or 'none'} there, {here or 'none'} here" for name, (before, here) in versions.items() if before != here]
    hardware = lambda start: f"{len(start['devices'])} x {start['devices'][0]}, {start['processes']} processes"
    if hardware(was) != hardware(now):
        found.append(f"hardware: {hardware(was)} there, {hardware(now)} here")
    for split in sorted(was["data"].keys() | now["data"].keys()):
        before, here = was["data"].get(split, {}), now["data"].get(split, {})
        found += [
            f"data {split}.{what}: {before.get(what)} there, {here.get(what)} here"
            for what in sorted(before.keys() | here.keys())
            if before.get(what) != here.get(what)
        ]
    return found


def first_start(workdir: pathlib.Path) -> float:
    """When the run was first started, in seconds of Unix time."""
    return datetime.datetime.fromisoformat(starts(workdir)[0]["time"]).timestamp()


PARTS = ("commit", "diff", "untracked")


def _repository(inside: pathlib.Path) -> dict:
    """Of the git repository around a file: commit, diff (what is changed and not committed) and untracked ({Python file that git does not know: its SHA-256}); None
    each where there is none."""

    def git(*command, at=inside.parent) -> str | None:
        try:
            return subprocess.run(["git", *command], cwd=at, capture_output=True, text=True, errors="replace", check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    top = git("rev-parse", "--show-toplevel")
    if top is None:
        return dict.fromkeys(("top", *PARTS))
    names = (git("ls-files", "--others", "--exclude-standard", "--", "*.py", at=top) or "").splitlines()
    untracked = {name: hashlib.sha256((pathlib.Path(top) / name).read_bytes()).hexdigest() for name in names}
    return {"top": top, "commit": git("rev-parse", "HEAD"), "diff": git("diff", "HEAD"), "untracked": untracked}
