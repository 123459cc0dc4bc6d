"""Labelling functions: plain Python, a text -> the name of its class, or None where a function does not know."""

import importlib
import importlib.util
import pathlib
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np

from research.core.errors import UserError

Function = Callable[[str], str | None]


def load(source: str) -> dict[str, Function]:
    """{name: function} of a file, or a module, as "package.module": those of its list LABELLING_FUNCTIONS, or else all whose name begins with lf_.

    Raises UserError if it is not there, has none, or is no Python, or if what it imports is not there. Whatever else it raises keeps its traceback.
    """
    module = _module(source)
    listed = getattr(module, "LABELLING_FUNCTIONS", None)
    named = {name: value for name, value in vars(module).items() if name.startswith("lf_") and callable(value)}
    found = named if listed is None else {function.__name__: function for function in listed}
    if not found:
        raise UserError(f"{source} has no labelling function: define some, such as `def lf_praise(text)`, or list them as LABELLING_FUNCTIONS.")
    if listed is not None and len(found) < len(listed):
        raise UserError(f"LABELLING_FUNCTIONS of {source} has two functions of one name: give each its own.")
    return found


def _module(source: str) -> ModuleType:
    is_file = source.endswith(".py")
    if is_file and not pathlib.Path(source).is_file():
        raise UserError(f"there is no file {source}: name one with labelling functions.")
    try:
        return _of_file(source) if is_file else importlib.import_module(source)
    except (ImportError, SyntaxError) as e:
        if not is_file and isinstance(e, ModuleNotFoundError) and f"{source}.".startswith(f"{e.name}."):  # not one that it imports
            raise UserError(f"there is no module {source} ({e}): name a file, such as functions.py, or a module, as package.module.") from e
        raise UserError(f"{source} cannot be loaded ({type(e).__name__}: {e}): mend it, or install what it imports.") from e


def _of_file(source: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(pathlib.Path(source).stem, source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def votes(functions: dict[str, Function], texts: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """votes_NM int: of each function on each text the number of the class, or -1 for None. Raises UserError for a vote that names no class."""
    numbers: dict[str | None, int] = {None: -1} | {name: i for i, name in enumerate(classes)}
    votes_NM = np.full((len(texts), len(functions)), -1)
    for m, (name, function) in enumerate(functions.items()):
        for n, text in enumerate(texts):
            vote = function(text)
            if vote not in numbers:
                raise UserError(f"{name} says {vote!r} of {text[:40]!r}: it must return None or one of {', '.join(classes)}.")
            votes_NM[n, m] = numbers[vote]
    return votes_NM
