"""Figures over seeds as tables: mean and standard error, the best in bold. For a page, for Markdown, for LaTeX, and every run in a CSV file."""

import csv
import io
import math
from typing import NamedTuple

from research.reports.runs import Group, Reached, Run, better, differing


class Cell(NamedTuple):
    text: str
    bold: bool = False


def rows(groups: list[Group], metrics: list[str]) -> tuple[list[str], list[list[Cell]]]:
    """(header, rows): the fields in which groups differ, the number of runs, and of each metric mean and standard error; the step where groups were measured at
    different ones. Best groups first."""
    runs = [run for group in groups for run in group.runs]
    groups = ranked(groups, metrics[0])
    first = [group.reached(metrics[0]) for group in groups]
    columns = {field: [Cell(_told(group.values[field])) for group in groups] for field in groups[0].values}
    columns["runs"] = [Cell(_counted(found.runs if found else 0, len(group.runs))) for found, group in zip(first, groups)]
    if len({found and found.step for found in first}) > 1:
        columns["step"] = [Cell(f"{found.step:,}" if found else "") for found in first]
    for metric in metrics:
        reached = [group.reached(metric) for group in groups]
        best = _best(reached, better(metric, runs))
        columns[metric] = [Cell(measured(found), found is not None and found.mean == best) for found in reached]
    return list(columns), [list(row) for row in zip(*columns.values())]


def ranked(groups: list[Group], metric: str) -> list[Group]:
    """The best first; what was not measured or is not finite last."""
    sign = 1 if better(metric, [run for group in groups for run in group.runs]) == "min" else -1
    worth = lambda found: sign * found.mean if found and math.isfinite(found.mean) else math.inf
    return sorted(groups, key=lambda group: worth(group.reached(metric)))


def _counted(measured: int, there_are: int) -> str:
    return str(there_are) if measured == there_are else f"{measured} of {there_are}"


def _best(reached: list[Reached | None], mode: str) -> float | None:
    """The best mean; None where all are the same."""
    means = {found.mean for found in reached if found is not None and math.isfinite(found.mean)}
    return (min if mode == "min" else max)(means) if len(means) > 1 else None


def measured(found: Reached | None, plus_minus: str = "±") -> str:
    """The mean to the second digit of its standard error, or to four significant digits."""
    if found is None:
        return ""
    if not found.error or not math.isfinite(found.error):
        return f"{found.mean:.4g}"
    digits = max(0, 1 - math.floor(math.log10(found.error)))
    return f"{found.mean:.{digits}f} {plus_minus} {found.error:.{digits}f}"


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
    """A line a run: where it is, what is its own of the config, what it reached, and the step at which the first metric was measured."""
    fields = differing(runs)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *fields, "step", *metrics])
    for run in runs:
        last = [run.last(metric) or (None, None) for metric in metrics]
        writer.writerow([run.name, *(run.config.get(field) for field in fields), last[0][0], *(value for _, value in last)])
    return text.getvalue()
