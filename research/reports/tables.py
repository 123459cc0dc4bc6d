"""Figures over seeds as tables: mean and standard error, the best in bold. For a page, for Markdown, for LaTeX, and every run in a CSV file."""

import csv
import io
import math
from typing import NamedTuple

from research.reports.runs import Group, Run, better, differing


class Cell(NamedTuple):
    text: str
    bold: bool = False


def rows(groups: list[Group], metrics: list[str]) -> tuple[list[str], list[list[Cell]]]:
    """(header, rows): the fields in which groups differ, the number of runs, and of each metric mean and standard error. Best groups first."""
    runs = [run for group in groups for run in group.runs]
    fields = list(groups[0].values)
    best = {metric: _best(groups, metric, better(metric, runs)) for metric in metrics}
    if metrics:
        sign = 1 if better(metrics[0], runs) == "min" else -1
        groups = sorted(groups, key=lambda group: sign * found[0] if (found := group.reached(metrics[0])) else math.inf)
    header = [*fields, "runs", *metrics]
    return header, [
        [Cell(_told(group.values[field])) for field in fields]
        + [Cell(str(len(group.runs)))]
        + [Cell(measured(found := group.reached(metric)), found is not None and found[0] == best[metric]) for metric in metrics]
        for group in groups
    ]


def _best(groups: list[Group], metric: str, mode: str) -> float | None:
    """The best mean; None where all are the same."""
    means = {found[0] for group in groups if (found := group.reached(metric)) is not None}
    return (min if mode == "min" else max)(means) if len(means) > 1 else None


def measured(found: tuple[float, float | None] | None, plus_minus: str = "±") -> str:
    """The mean to the second digit of its standard error, or to four significant digits."""
    if found is None:
        return ""
    mean, error = found
    if not error:
        return f"{mean:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{mean:.{digits}f} {plus_minus} {error:.{digits}f}"


def _told(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def markdown(header: list[str], body: list[list[Cell]]) -> str:
    line = lambda cells: "| " + " | ".join(cells) + " |"
    escape = lambda text: text.replace("|", "\\|")
    rows = [[f"**{escape(cell.text)}**" if cell.bold and cell.text else escape(cell.text) for cell in row] for row in body]
    return "\n".join(map(line, [header, ["---"] * len(header), *rows])) + "\n"


_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {c: f"\\{c}" for c in "&%$#_{}"}


def latex(header: list[str], body: list[list[Cell]]) -> str:
    """For \\usepackage{booktabs}."""

    def told(cell):
        text = "".join(_SPECIAL.get(c, c) for c in cell.text).replace("±", r"$\pm$")
        return rf"\textbf{{{text}}}" if cell.bold and text else text

    line = lambda cells: "  " + " & ".join(map(told, cells)) + r" \\"
    columns = "l" * len(header)
    parts = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"  \toprule",
        line(map(Cell, header)),
        r"  \midrule",
        *map(line, body),
        r"  \bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(parts) + "\n"


def as_csv(runs: list[Run], metrics: list[str]) -> str:
    """A line a run: where it is, what is its own of the config, what it reached, and at which step."""
    fields = differing(runs)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *fields, "step", *metrics])
    for run in runs:
        steps = [line["step"] for line in run.measured]
        writer.writerow(
            [run.directory.name, *(run.config.get(field) for field in fields), max(steps, default=0), *(run.last(metric) for metric in metrics)]
        )
    return text.getvalue()
