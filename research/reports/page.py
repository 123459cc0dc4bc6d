"""One HTML page that needs nothing beside it: tables, pictures, and what the runs were."""

import base64
import hashlib
import html
import pathlib
import statistics

from research.reports.runs import Run, differing
from research.reports.tables import Cell

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: left; white-space: nowrap; border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); }
td.best { font-weight: 700; }
img { max-width: 100%; height: auto; background: white; border-radius: 4px; }
code { font-size: .85em; overflow-wrap: anywhere; white-space: normal; }
p.note { color: color-mix(in srgb, currentColor 65%, transparent); }
"""


def page(title: str, header: list[str], body: list[list[Cell]], pictures: dict[str, pathlib.Path], runs: list[Run], notes: list[str]) -> str:
    """pictures: {what stands above: a PNG file}. notes: what there is to know of what is shown."""
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="note">{html.escape(" ".join(notes))}</p>',
    ]
    parts.append(_table(header, body))
    for what, path in pictures.items():
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(f'<h2>{html.escape(what)}</h2>\n<img alt="{html.escape(what)}" src="data:image/png;base64,{data}">')
    parts += [
        "<h2>Where the runs differ</h2>",
        _differences(runs),
        "<h2>How fast they went</h2>",
        '<p class="note">Goodput: of the time since the first start, the share that went into steps which count; not into starting, compiling, evaluating, saving, waiting, or steps done again.</p>',
        _speed(runs),
        "<h2>What they ran with</h2>",
        _provenance(runs),
    ]
    head = f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n<style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n' + "\n".join(parts) + "\n</body>\n</html>\n"


def _table(header: list[str], body: list[list[Cell]]) -> str:
    cell = lambda c: f'<td class="best">{html.escape(c.text)}</td>' if c.bold else f"<td>{html.escape(c.text)}</td>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    rows = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in body)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def _differences(runs: list[Run]) -> str:
    fields = differing(runs)
    if not fields:
        return "<p>In nothing.</p>"
    return _table(["run", *fields], [[Cell(run.name), *(Cell(str(run.config.get(field))) for field in fields)] for run in runs])


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
    return _table(["run", "minutes of training", "a second (median)", "model-FLOP utilization (median)", "goodput", "starts"], rows)


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
    return _table(["commit", "packages", "devices", "runs"], rows) + f"<details><summary>Commands</summary>\n{commands}\n</details>"
