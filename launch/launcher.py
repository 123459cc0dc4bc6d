"""What all launchers share: a job is the command that would run here, `python -m research.train ...`, and nothing that wraps it changes what it computes."""

import hashlib
import os
import pathlib
import re
import subprocess
import sys
import time

import yaml
from absl import flags

from launch import tpu_types
from research.core.errors import UserError

OF_TRAIN = re.compile(r"--?(config([.:=].*)?|(workdir|until|rerun)=.*)$")  # what goes on to research.train as it is

NAMED = ("name", flags.DEFINE_string, None, "What it is called; by default after the run directory.")
SLICES = (
    NAMED,
    ("type", flags.DEFINE_string, None, "A slice as Google names it, such as v5p-128."),
    ("slices", flags.DEFINE_integer, 1, "How many of them."),
    ("spot", flags.DEFINE_bool, False, "Cheaper, and can be taken away."),
)


def arguments(argv: list[str], define, others: bool = False) -> tuple[flags.FlagValues, list[str], list[str]]:
    """(the flags that `define(values)` adds, the arguments of research.train, what is neither: refused with a UserError but where there may be `others`)."""
    values = flags.FlagValues()
    flags.DEFINE_bool("skip_preflight", False, "Launch what may not fit.", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Print what would be done.", flag_values=values)
    define(values)
    passed = [arg for arg in argv[1:] if OF_TRAIN.match(arg)]
    passed.sort(key=lambda arg: not arg.startswith("--config="))  # a config comes before its fields
    try:
        rest = values([argv[0], *(arg for arg in argv[1:] if arg not in passed)], known_only=others)[1:]
    except flags.Error as e:
        raise UserError(str(e)) from e
    if rest and not others:
        raise UserError(f"{rest[0]!r} is not understood: every argument is a flag, --name=value.")
    return values, passed, rest


def define_all(values, *rows: tuple):
    """Flags, each a row: its name, what of absl defines it, its default, what it is."""
    for name, kind, default, what in rows:
        kind(name, default, what, flag_values=values)


def given(passed: list[str], flag: str) -> str:
    """The value of --flag=value among the arguments of research.train, of config also that of --rerun. Raises UserError where it is missing."""
    found = [arg.split("=", 1)[1] for arg in passed if arg.startswith((f"--{flag}=", "--rerun=") if flag == "config" else f"--{flag}=")]
    if not found:
        raise UserError({"config": "say what to run: --config=configs/NAME.py.", "workdir": "say where the run goes: --workdir=runs/NAME."}[flag])
    return found[-1]


def train(passed: list[str], distributed: bool) -> list[str]:
    """The command, as one of several processes or alone."""
    return ["python", "-m", "research.train", *passed, *["--distributed"] * distributed]


def lasts(workdir: str, mounted: str | None, mount: str) -> bool:
    """Whether a run directory lies on what is mounted, and so outlives the machine and is seen by all."""
    return bool(mounted) and workdir.startswith(mount.rstrip("/") + "/")


def name_of(workdir: str) -> str:
    """A name that clouds accept, of at most 40 small letters, digits and hyphens, of a run directory; no other's."""
    found = re.sub(r"[^a-z0-9]+", "-", workdir.rstrip("/").rpartition("/")[2].lower()).strip("-")[:31].strip("-")
    return f"{found if found[:1].isalpha() else 'run-' + found[:27]}-{hashlib.sha256(workdir.encode()).hexdigest()[:8]}"


def cache_beside(workdir: str) -> dict[str, str]:
    """The environment in which runs beside one another share what they compile."""
    return {"JAX_COMPILATION_CACHE_DIR": str(pathlib.PurePosixPath(workdir).parent / "compilation_cache")}


def as_yaml(tree: dict) -> str:
    """Lines of text as they are read."""

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))
    return yaml.dump(tree, Dumper=Dumper, sort_keys=False, width=1000)


def check_fits(passed: list[str], *where: str):
    """Asks research.preflight whether the train step fits `where` (its flags). Raises UserError, with its last words, where it does not or nothing can be said."""
    config = [arg for arg in passed if arg.startswith(("--config", "--rerun"))]
    asked = subprocess.run([sys.executable, "-m", "research.preflight", *config, *where, "--steps=train"], capture_output=True, text=True)
    if asked.returncode == 0:
        return
    print(asked.stdout, end="")
    lines = [line for line in (asked.stdout + asked.stderr).splitlines() if "does not fit:" in line or line.startswith("error:")]
    said = lines[0].removeprefix("error: ") if lines else f"preflight failed: {asked.stderr.strip().splitlines()[-1:]}"
    raise UserError(f"not launched. {said} (--skip_preflight launches all the same)")


def check_fits_tpus(passed: list[str], name: str | None, slices: int):
    """The same of slices of TPUs as Google names them."""
    check_fits(passed, f"--topology={tpu_types.named(name).topology}", f"--slices={slices}")


def check_fits_gpus(passed: list[str], gpus: int, memory: float | None):
    """The same of GPUs elsewhere, of `memory` GiB each: told by the program for as many CPU devices."""
    if not memory:
        raise UserError("say how much memory one GPU has, --device_memory=80 (GiB), so that preflight can tell if the run fits; or --skip_preflight.")
    check_fits(passed, f"--topology=cpu:{gpus}", f"--memory={memory}")


def persistently(ask, pauses=(1, 2, 4, 8, 15, 30, 60, 120)):
    """ask(), again after so many seconds each where it fails, as a network does now and then. Raises the UserError of the last time."""
    for pause in pauses:
        try:
            return ask()
        except UserError:
            time.sleep(pause * float(os.environ.get("LAUNCH_PAUSES", 1)))
    return ask()
