"""The house: imports point one way, each room is plain, nothing is wired in secret."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "research").rglob("*.py"))

# Each room may import from itself and from rooms on a lower floor; rooms on one floor are strangers.
FLOORS = [
    ["core"],
    ["models"],
    ["objectives", "data"],
    ["training", "rl", "compile", "interop", "reports", "curation", "labelling"],
    ["tables"],
    ["build"],
    ["measure", "restore"],
    ["commands"],
]


def room(module: str) -> str:
    """research.models.bert -> models; research.build -> build; research.train -> commands."""
    parts = module.split(".")
    if len(parts) > 1 and (ROOT / "research" / parts[1]).is_dir():
        return parts[1]
    return parts[1] if parts[1:] in (["tables"], ["build"], ["measure"], ["restore"]) else "commands"


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


def allowed(importer: str, imported: str) -> bool:
    return importer == imported and importer != "commands" or floor(imported) < floor(importer)


def imports(tree):
    """Every module of ours that the file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in ("research", "configs", "tests"))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("research", "configs", "tests"):
            for alias in node.names:
                submodule = ROOT / node.module.replace(".", "/") / f"{alias.name}.py"
                package = ROOT / node.module.replace(".", "/") / alias.name
                yield f"{node.module}.{alias.name}" if submodule.exists() or package.is_dir() else node.module


def may_import(module: str, name: str) -> bool:
    """A command may read the base config, for the fields that a run made earlier does not have."""
    return allowed(room(module), room(name)) if name.startswith("research.") else (room(module), name) == ("commands", "configs.base")


def violations(path: pathlib.Path, source: str) -> list[str]:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    tree = ast.parse(source)
    found = [f"{module} imports {name}" for name in imports(tree) if not may_import(module, name)]
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            found += [f"{module} imports {name} inside a function" for name in imports(function)]
    if "TYPE_CHECKING" in source:
        found.append(f"{module} dodges with TYPE_CHECKING")
    found += [f"{module} imports relatively" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return found


@pytest.mark.short
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    assert violations(path, path.read_text()) == []


@pytest.mark.parametrize(
    "where, line",
    [
        ("core/types.py", "from research.models import bert"),
        ("models/bert.py", "import research.objectives.masked_lm"),
        ("data/text.py", "from research.objectives.masked_lm import MaskedLM"),
        ("objectives/masked_lm.py", "from research.data import text"),
        ("training/loop.py", "from research.compile import flops"),
        ("training/loop.py", "from research import build"),
        ("evaluate.py", "from research import train"),
        ("core/types.py", "def f():\n    from research.core import config"),
        ("core/types.py", "from typing import TYPE_CHECKING"),
        ("core/types.py", "from . import config"),
        ("training/step.py", "from configs import base"),
    ],
)
def test_a_wrong_import_is_seen(where, line):
    assert violations(ROOT / "research" / where, line)


def test_packages_re_export_nothing():
    assert [str(path) for path in FILES if path.name == "__init__.py" and path.read_text().strip()] == []


def test_no_import_cycles():
    graph = {}
    for path in FILES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        graph[module] = set(imports(ast.parse(path.read_text())))
    done, active = set(), []

    def visit(module):
        assert module not in active, f"cycle: {' -> '.join(active + [module])}"
        if module in done or module not in graph:
            return
        active.append(module)
        for other in graph[module]:
            visit(other)
        done.add(active.pop())

    for module in graph:
        visit(module)


def test_training_names_no_objective_and_no_model():
    words = ("masked_lm", "bert", "gpt", "vit", "sentence", "contrastive")
    for path in (ROOT / "research" / "training").glob("*.py"):
        assert [word for word in words if word in path.read_text().lower()] == [], path


def test_a_command_begins_without_what_few_need():
    """Each of these takes a second or more to import."""
    code = "import sys; from research import train; print([name for name in ('sklearn', 'pgx', 'gymnax', 'apache_beam', 'cleanlab') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"
