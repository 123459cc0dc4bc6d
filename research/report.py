"""Runs, or a sweep -> one page, pictures and tables, and the table to paste into a paper.

    python -m research.report sweeps/lr [--metric=validation/loss] [--out=DIRECTORY]
    python -m research.report runs/one runs/other
    python -m research.report path/to/tfds/debian/1.0.0

Writes index.html, which needs nothing beside it, curves.png, parallel.png (of runs that differ in two fields or more), runs.csv, table.md and table.tex, and
prints the table. Runs that differ in their seed alone are one row: mean ± standard error, the best in bold. --metric, any number of times: which to show; else
all that was validated. Absent --out: `report` in the one directory given, else here. Of a data set that research.prepare made:
what each rule did to its documents, as index.html and funnel.png beside it.
"""

import pathlib

from absl import flags

from configs import base
from research.core import config as config_lib
from research.core.errors import UserError, run_command
from research.reports import figures, funnel, tables
from research.reports.page import page
from research.reports.runs import find_runs, grouped, metrics_of


def main(argv):
    paths, wanted, out = arguments(argv)
    if (paths[0] / "manifest.json").is_file():
        if config_lib.given("metric", argv) or config_lib.given("out", argv):
            raise UserError(f"{paths[0]} is a data set, whose report lies in it and has no metrics: leave out --metric and --out.")
        return report_on_data(paths)
    runs, waiting = find_runs(paths, base.get_config())
    known = metrics_of(runs)
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"--metric={unknown[0]}: what was validated is {', '.join(known) or 'nothing so far'}.")
    groups, metrics = grouped(runs), wanted or known
    if not metrics:
        raise UserError(f"{', '.join(map(str, paths))}: nothing has been validated yet.")
    out.mkdir(parents=True, exist_ok=True)
    pictures = {"Curves": out / "curves.png"}
    drawn = wanted or metrics[:4]
    figures.curves(groups, drawn, pictures["Curves"])
    if len(groups) > 1 and len(groups[0].values) > 1:
        pictures["Fields and what came of them"] = out / "parallel.png"
        figures.parallel_coordinates(groups, metrics[0], out / "parallel.png")
    header, body = tables.rows(groups, metrics)
    markdown, latex = tables.markdown(header, body), tables.latex(header, body)
    notes = [f"{len(runs)} runs. ± is one standard error over runs that differ in their seed alone, at the last step that they share."]
    notes += [f"{waiting} trials have not begun."] * (waiting > 0)
    notes += [f"The curves are of the {figures.MOST} best of {len(groups)}."] * (len(groups) > figures.MOST)
    notes += [f"The curves are of {', '.join(drawn)}; --metric draws others."] * (len(drawn) < len(metrics))
    title = paths[0].resolve().name if len(paths) == 1 else f"{len(runs)} runs"
    for name, text in {
        "index.html": page(title, header, body, pictures, runs, notes),
        "runs.csv": tables.as_csv(runs, metrics),
        "table.md": markdown,
        "table.tex": latex,
    }.items():
        (out / name).write_text(text)
    print(f"{markdown}\n{latex}\nIn {out}: index.html, runs.csv, table.md, table.tex, {', '.join(path.name for path in pictures.values())}")


def report_on_data(paths: list[pathlib.Path]):
    """The funnel of each prepared data set, in its own folder."""
    for path in paths:
        funnel.write(funnel.read_manifest(path), path)
        print(f"In {path}: index.html, funnel.png")


def arguments(argv) -> tuple[list[pathlib.Path], list[str], pathlib.Path]:
    """(runs and sweeps, metrics, where the report goes)."""
    values = flags.FlagValues()
    flags.DEFINE_multi_string("metric", [], "Of the table and the curves.", flag_values=values)
    flags.DEFINE_string("out", None, "Where the report goes.", flag_values=values)
    try:
        rest = values(argv)
    except flags.Error as e:
        raise UserError(str(e)) from e
    paths = [pathlib.Path(path) for path in rest[1:]]
    if not paths:
        raise UserError("say of what: python -m research.report RUN ... or SWEEP.")
    return paths, values.metric, pathlib.Path(values.out) if values.out else (paths[0] / "report" if len(paths) == 1 else pathlib.Path("report"))


if __name__ == "__main__":
    run_command(main)
