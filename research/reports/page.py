"""The page of a report on runs: tables, pictures, and what the runs were."""

import hashlib
import html
import pathlib
import statistics

from research.reports.html_page import document, note, picture, table
from research.reports.runs import Run, differing
from research.reports.tables import Cell


def page(title: str, header: list[str], body: list[list[Cell]], pictures: dict[str, pathlib.Path], runs: list[Run], notes: list[str]) -> str:
    """pictures: {what stands above: a PNG file}. notes: what there is to know of what is shown."""
    parts = [note(" ".join(notes)), table(header, body)]
    for what, path in pictures.items():
        parts += [f"<h2>{html.escape(what)}</h2>", picture(what, path)]
    parts += [
        "<h2>Where the runs differ</h2>",
        _differences(runs),
        "<h2>How fast they went</h2>",
        note(
            "Goodput: of the time since the first start, the share that went into steps which count; not into starting, compiling, evaluating, saving, waiting, or steps done again."
        ),
        _speed(runs),
        "<h2>What they ran with</h2>",
        _provenance(runs),
    ]
    return document(title, parts)


def _differences(runs: list[Run]) -> str:
    fields = differing(runs)
    if not fields:
        return "<p>In nothing.</p>"
    return table(["run", *fields], [[Cell(run.name), *(Cell(str(run.config.get(field))) for field in fields)] for run in runs])


def _speed(runs: list[Run]) -> str:
    rows = []
    for run in runs:
        names: dict[str, list[float]] = {}
        for line in run.timing:
            for name, value in line.items():
                names.setdefault(name, []).append(value)
        middle = lambda ending: next((statistics.median(values) for name, values in names.items() if name.endswith(ending)), None)
        speed, utilization, seconds = middle("_per_second"), middle("model_flop_utilization"), names.get("timing/seconds", [None])[-1]
        goodput = names.get("timing/goodput", [None])[-1]
        unit = next((name.removeprefix("timing/").removesuffix("_per_second") for name in names if name.endswith("_per_second")), "")
        rows.append(
            [
                Cell(run.name),
                Cell("" if seconds is None else f"{seconds / 60:.1f}"),
                Cell("" if speed is None else f"{speed:,.0f} {unit}"),
                Cell("" if utilization is None else f"{utilization:.1%}"),
                Cell("" if goodput is None else f"{goodput:.0%}"),
                Cell(str(len(run.starts))),
            ]
        )
    return table(["run", "minutes of training", "a second (median)", "model-FLOP utilization (median)", "goodput", "starts"], rows)


def _provenance(runs: list[Run]) -> str:
    """One line for all runs that had the same in one of their starts."""
    told: dict[tuple[str, str, str], dict[str, None]] = {}
    for run in runs:
        for start in run.starts:
            diff = start["git_diff"]
            commit = (start["git_commit"] or "unknown")[:10] + (f" with changes {hashlib.sha256(diff.encode()).hexdigest()[:6]}" if diff else "")
            devices = f"{len(start['devices'])} x {start['devices'][0]}"
            packages = ", ".join(f"{name} {start['packages'][name]}" for name in ("jax", "flax", "optax") if name in start["packages"])
            told.setdefault((commit, f"Python {start['python']}, {packages}", devices), {})[run.name] = None
    rows = [[*map(Cell, what), Cell(", ".join(which))] for what, which in told.items()]
    commands = "\n".join(
        f"<p>{html.escape(run.name)}<br><code>{html.escape(' '.join(run.starts[-1]['command']))}</code></p>" for run in runs if run.starts
    )
    return table(["commit", "packages", "devices", "runs"], rows) + f"<details><summary>Commands</summary>\n{commands}\n</details>"
