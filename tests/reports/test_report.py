"""A report of runs whose figures are known: what it groups, computes, marks and writes, and how the page looks in a browser."""

import contextlib
import csv
import io
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest

from configs import base
from research import report
from research.core import config as config_lib
from research.core.errors import run_command
from research.reports import figures, tables
from research.reports.runs import Reached, find_runs, grouped

RATES, SEEDS = (1e-3, 1e-2), (0, 1, 2)


def reached(rate, seed):
    return 3 + rate * 100 + 0.1 * seed**2


def write_run(directory, rate, seed, steps=(0, 10, 20), **more):
    directory.mkdir(parents=True)
    c = base.get_config()
    c.seed, c.optimizer.learning_rate, c.optimizer.b2 = seed, rate, more.get("b2", 0.999)
    (directory / "config.json").write_text(config_lib.to_json(c))
    lines = [{"step": s, "validation/loss": reached(rate, seed) + 20 - s, "validation/accuracy": 0.5, "train/loss": 1.0} for s in steps]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    timing = {"step": 20, "timing/tokens_per_second": 1500.0, "timing/model_flop_utilization": 0.25, "timing/seconds": 90.0, "timing/goodput": 0.62}
    (directory / "timing.jsonl").write_text(json.dumps(timing) + "\n")
    start = {
        "command": ["train", "--config=<b>"],
        "git_commit": "0123456789abcdef",
        "git_diff": "",
        "python": "3.11.7",
        "packages": {"jax": "0.10.2"},
        "devices": ["cpu cpu"],
    }
    (directory / "provenance.json").write_text(json.dumps({"starts": [start]}))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    names = {f"rate={rate},b2={b2},seed={seed}": (rate, b2, seed) for rate in RATES for b2 in (0.9, 0.999) for seed in SEEDS}
    for name, (rate, b2, seed) in names.items():
        write_run(folder / name, rate, seed, b2=b2)
    (folder / "sweep.json").write_text(json.dumps({"trials": dict.fromkeys([*names, "not begun"], {})}))
    return folder


@pytest.fixture(scope="module")
def written(sweep, tmp_path_factory):
    out, said = tmp_path_factory.mktemp("report"), io.StringIO()
    with contextlib.redirect_stdout(said):
        report.main(["report", str(sweep), f"--out={out}"])
    return out, said.getvalue()


@pytest.mark.short
def test_seeds_are_one_row_with_mean_and_standard_error(sweep):
    groups = grouped(find_runs([sweep], base.get_config())[0])
    assert [list(group.values) for group in groups] == [["optimizer.b2", "optimizer.learning_rate"]] * 4 and {
        len(group.runs) for group in groups
    } == {3}
    for group in groups:
        values = [reached(group.values["optimizer.learning_rate"], seed) for seed in SEEDS]
        mean, error, n, step = group.reached("validation/loss")
        assert (n, step) == (3, 20) and mean == pytest.approx(np.mean(values)) and error == pytest.approx(np.std(values, ddof=1) / 3**0.5)


@pytest.mark.parametrize(
    "found, text",
    [
        (Reached(3.14159, 0.0123, 3, 20), "3.142 ± 0.012"),
        (Reached(3.14159, 0.000456, 3, 20), "3.14159 ± 0.00046"),
        (Reached(1234.5, 27.3, 3, 20), "1234 ± 27"),
        (Reached(0.5, 0.0, 3, 20), "0.5"),
        (Reached(math.inf, math.nan, 3, 20), "inf"),
        (None, ""),
    ],
)
def test_a_mean_is_told_to_the_second_digit_of_its_error(found, text):
    assert tables.measured(found) == text


def test_best_rows_come_first_and_the_best_is_bold(sweep):
    header, body = tables.rows(grouped(find_runs([sweep], base.get_config())[0]), ["validation/loss", "validation/accuracy"])
    assert header == ["optimizer.b2", "optimizer.learning_rate", "runs", "validation/loss", "validation/accuracy"]
    assert [row[1].text for row in body] == ["0.001", "0.001", "0.01", "0.01"]
    assert [row[3].bold for row in body] == [True, True, False, False] and not any(row[4].bold for row in body), "where all are the same none is best"


def test_what_is_printed_can_be_pasted(written):
    _, said = written
    loss = "3.27 ± 0.12"
    assert f"| 0.9 | 0.001 | 3 | **{loss}** | 0.5 |" in said
    assert rf"  0.9 & 0.001 & 3 & \textbf{{{loss.replace('±', chr(36) + chr(92) + 'pm' + chr(36))}}} & 0.5 \\" in said
    assert r"optimizer.learning\_rate" in said and said.count(r"\toprule") == 1


def test_every_run_is_a_line_of_the_csv_file(written):
    out, _ = written
    rows = list(csv.DictReader((out / "runs.csv").open()))
    assert len(rows) == 12 and {row["seed"] for row in rows} == {"0", "1", "2"}
    for row in rows:
        assert (
            float(row["validation/loss"]) == pytest.approx(reached(float(row["optimizer.learning_rate"]), int(row["seed"]))) and row["step"] == "20"
        )


def test_the_page_needs_nothing_beside_it(written):
    out, said = written
    text = (out / "index.html").read_text()
    assert not re.findall(r"https?://", text) and set(re.findall(r'(?:src|href)="([^"]{0,10})', text)) == {"data:image"}
    for words in (
        "0123456789",
        "jax 0.10.2",
        "<td>1.5</td>",
        "1,500 tokens",
        "25.0%",
        "--config=&lt;b&gt;",
        'class="best"',
        "12 runs.",
        "1 trials have not begun.",
    ):
        assert words in text
    for name in ("curves.png", "parallel.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG") and name in said


def test_seeds_are_compared_where_all_were_measured(tmp_path):
    """One at step 20, one at 10 so far, one not yet; and of another rate one that is done."""
    for seed, steps in enumerate([(0, 10, 20), (0, 10), ()]):
        write_run(tmp_path / f"slow{seed}", 1e-3, seed, steps)
    write_run(tmp_path / "fast", 1e-2, 0)
    runs, _ = find_runs(sorted(tmp_path.iterdir()), base.get_config())
    slow = max(grouped(runs), key=lambda group: len(group.runs))
    values = [reached(1e-3, seed) + 10 for seed in (0, 1)]
    assert slow.reached("validation/loss") == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1) / 2**0.5), 2, 10)
    header, body = tables.rows(grouped(runs), ["validation/loss"])
    assert header == ["optimizer.learning_rate", "runs", "step", "validation/loss"]
    assert [[cell.text for cell in row[:3]] for row in body] == [["0.01", "1", "20"], ["0.001", "2 of 3", "10"]]
    rows = {row["run"]: row for row in csv.DictReader(io.StringIO(tables.as_csv(runs, ["validation/loss"])))}
    assert [rows[f"slow{seed}"]["step"] for seed in range(3)] == ["20", "10", ""]


def test_a_run_given_twice_counts_once_and_runs_of_one_name_are_told_apart(tmp_path):
    for parent, seed in (("x", 0), ("y", 1)):
        write_run(tmp_path / parent / "run", 1e-3, seed)
    runs, _ = find_runs([tmp_path / "x/run", tmp_path / "y/run", tmp_path / "x" / ".." / "x" / "run"], base.get_config())
    assert [run.name for run in runs] == ["x/run", "y/run"]


def test_where_a_run_computes_tells_no_groups_apart_but_where_it_was_swept(tmp_path):
    for threads in (1, 2):
        write_run(tmp_path / str(threads), 1e-3, threads)
        kept = json.loads((tmp_path / str(threads) / "config.json").read_text())
        kept["data"]["threads"] = threads
        del kept["objective"]["z_loss"]  # as in a run made before there was such a field
        (tmp_path / str(threads) / "config.json").write_text(json.dumps(kept))
    write_run(tmp_path / "3", 1e-3, 3)
    found = lambda *paths: [len(group.runs) for group in grouped(find_runs(list(paths), base.get_config())[0])]
    assert found(*(tmp_path / name for name in "123")) == [3]
    (tmp_path / "sweep.json").write_text(json.dumps({"trials": {"1": {"data.threads": "1"}, "2": {"data.threads": "2"}}}))
    assert found(tmp_path) == [1, 1]


def test_numbers_that_span_much_are_placed_by_their_logarithm():
    assert figures._scaled([1e-4, 1e-2, 1e0])[0] == pytest.approx([0, 0.5, 1]) and figures._scaled([1, 2, 3])[0] == pytest.approx([0, 0.5, 1])
    assert figures._scaled(["lion", "adamw", "lion"]) == ([1.0, 0.0, 1.0], [(0.0, "adamw"), (1.0, "lion")])


@pytest.mark.parametrize(
    "arguments, message",
    [([], "say of what"), (["nowhere"], "holds no run"), (["{sweep}", "--metric=validation/los"], "what was validated is validation/loss")],
)
def test_what_cannot_be_reported_is_one_line(arguments, message, sweep):
    with pytest.raises(SystemExit) as stopped:
        run_command(report.main, ["report", *(argument.format(sweep=sweep) for argument in arguments)])
    assert message in stopped.value.code and stopped.value.code.startswith("error: ")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_nothing_is_wider_than_the_window(written, tmp_path, width):
    """Of a desktop and of a phone; wide tables scroll in themselves. All pictures are seen."""
    measure = (
        "[document.documentElement.scrollWidth, innerWidth, ...[...document.images].map(i => i.naturalWidth > 0 && i.width <= innerWidth)].join(' ')"
    )
    page = (written[0] / "index.html").read_text().replace("</body>", f"<script>onload = () => document.title = {measure}</script></body>")
    (tmp_path / "page.html").write_text(page)
    command = [
        "chromium",
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    frame = f'<iframe src="page.html" style="width:{width}px;height:3000px;border:0" onload="document.title = this.contentDocument.title"></iframe>'
    (tmp_path / "frame.html").write_text(f"<!doctype html><body>{frame}</body>")  # a window cannot be made as narrow as a phone
    done = subprocess.run(
        [*command, "--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", f"file://{tmp_path}/frame.html"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    scroll, inner, *pictures = re.search(r"<title>(.*?)</title>", done.stdout)[1].split()
    assert int(inner) == width and int(scroll) <= width and pictures == ["true", "true"]
