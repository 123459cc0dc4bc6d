"""Labels for texts: by rules that vote, by a model that is sure, by people where it is worth their time; what is wrong with them, and who agrees.

    python -m research.label --weak=functions.py --data=movie_reviews --out=labels.csv
        labelling functions (each `def lf_NAME(text)`, which returns a class or None), of a file or a package.module, put together by a label model;
        [--classes=negative,positive]  where the data has none   [--balance=0.3,0.7]  how frequent they are; absent: learned too
    python -m research.label --pseudo --workdir=RUN --data=NAME --out=labels.csv [--threshold=0.95] [--held_out=validation]
        the run's own labels where it is sure enough, after temperature scaling; how far to believe it is measured on a split of its data held out
    python -m research.label --choose=entropy|margin|k_center|random --workdir=RUN --data=NAME --out=to_label.csv [--count=50] [--labelled=labels.csv]
        what to label next: where the run is least sure, or what lies farthest from all that has a label; random, [--seed=0], takes no run
    python -m research.label --serve=to_label.csv --classes=negative,positive [--annotator=NAME] [--port=8000]
        a page for this machine alone: a key for each class, and each label is in the file at once
    python -m research.label --errors --workdir=RUN --data=NAME --out=errors.csv
        the labels most likely to be wrong, by confident learning on the run's embeddings (extra `data`): they are taken away, to be asked again
    python -m research.label --agreement=a.csv,b.csv [--out=differ.csv]
        Cohen's and Fleiss' kappa and Krippendorff's alpha, with 95 % intervals; --out: where they differ, to be settled with --serve

--data: a data set as data.name of a config [--split=train] [--dir=...] [--text_field=text] [--label_field=label], or a CSV file with the columns key,
text, label, confidence, annotator, such as these commands write; configs/data/labelled.py makes a data set of it. --step=N: which checkpoint.
What a run, or one that it was begun from, was trained on with labels, as their configs say, is left out: of that it tells what it was told. Rows of
--data=FILE.csv with a label are not chosen, and no text twice. A text too long for a run is cut, as in training.
"""

import functools
import itertools
import pathlib
import re
from collections.abc import Callable

import numpy as np
from absl import flags

from configs import base
from research import build, restore
from research.core import config as config_lib
from research.core.errors import UserError, run_command
from research.data.corpus import Corpus
from research.data.tokenizer import load_tokenizer, vocabulary
from research.labelling import active, functions, label_model, pseudo_labels, table, texts
from research.labelling import agreement as measures
from research.labelling import errors as confident_learning
from research.labelling.run import Run
from research.labelling.server import ADDRESS, Server, Sheet
from research.labelling.texts import Texts
from research.reports import figures
from research.reports.tables import Cell, markdown
from research.tables import DATASETS


def main(argv):
    parse = config_lib.parse_over if config_lib.given("workdir", argv) is None else config_lib.parse_run
    values, config = parse(argv, base.get_config(), define)
    what = {mode: mode.partition("=")[0] for mode in MODES}  # the flag that asks for it
    flagged = {name for _, needs, takes in MODES.values() for name in (*needs, *takes)} - {"config"} | {*what.values()}
    given = [name for name in sorted(flagged) if values[name].present and values[name].value is not False]
    if empty := [name for name in given if values[name].value in ("", []) and name != "annotator"]:
        raise UserError(f"--{empty[0]} says nothing: give it a value, or leave it out.")
    given += ["config"] * any(arg.startswith("--config.") for arg in argv)
    modes = [mode for mode in MODES if what[mode] in given and mode in (what[mode], f"choose={values.choose}")]
    if len(modes) != 1:
        raise UserError(f"say one thing to do: {', '.join(f'--{flag}' for flag in dict.fromkeys(what.values()))}; --help tells more.")
    mode, needs, takes = MODES[modes[0]]
    if extra := [name for name in given if name not in (what[modes[0]], *needs, *takes)]:
        raise UserError(f"--{extra[0]} has nothing to do with --{modes[0]}: leave it out.")
    if missing := [name for name in needs if name not in given]:
        raise UserError(f"--{modes[0]} needs --{missing[0]} as well.")
    if not all(values.classes) or len({*values.classes}) < len(values.classes):
        raise UserError(f"--classes={','.join(values.classes)}: each class needs a name, and its own.")
    if values.out and not values.out.endswith(".csv"):
        raise UserError(f"--out={values.out}: it is written as a CSV file, so let its name end in .csv.")
    if values.out:
        table.make_place(values.out)  # rather than find out once all is done
    mode(values, restore.fitting(config, argv))


def define(values):
    word, words = flags.DEFINE_string, flags.DEFINE_list
    number, yes = flags.DEFINE_integer, flags.DEFINE_bool
    word("weak", None, "Labelling functions.", flag_values=values)
    yes("pseudo", False, "Labels that a run is sure of.", flag_values=values)
    flags.DEFINE_enum("choose", None, [*active.STRATEGIES], "What to label next.", flag_values=values)
    word("serve", None, "A CSV file to label.", flag_values=values)
    yes("errors", False, "Labels that look wrong.", flag_values=values)
    words("agreement", [], "CSV files of several annotators.", flag_values=values)
    word("data", None, "A data set, or a CSV file.", flag_values=values)
    word("split", None, "Of a data set; absent: as the run's training split.", flag_values=values)
    word("dir", None, "Where TFDS has it; absent: as the run's.", flag_values=values)
    word("text_field", None, "The feature that holds the text; absent: as the run's.", flag_values=values)
    word("label_field", None, "The feature that holds the label; absent: as the run's.", flag_values=values)
    word("out", None, "The CSV file to write.", flag_values=values)
    words("classes", [], "The names of the labels.", flag_values=values)
    words("balance", [], "How frequent the classes are.", flag_values=values)
    flags.DEFINE_float("threshold", 0.95, "The least confidence.", 0, 1, flag_values=values)
    word("held_out", "validation", "A split of the run's own data.", flag_values=values)
    number("count", 50, "How many to choose.", lower_bound=1, flag_values=values)
    word("labelled", None, "A CSV file of what has a label.", flag_values=values)
    number("seed", 0, "Of --choose=random.", flag_values=values)
    word("annotator", "", "Whose labels they are.", flag_values=values)
    number("port", 8000, "Of the page.", 0, 65535, flag_values=values)
    number("step", None, "Which checkpoint; absent: the latest.", flag_values=values)


def weak(values, config):
    voters, data = functions.load(values.weak), read(values, config)
    classes = data.classes or tuple(values.classes)
    if len(classes) < 2:
        raise UserError("the data does not say which classes there are: name them, --classes=negative,positive.")
    votes_NM = functions.votes(voters, data.texts, classes)
    covered_N = (votes_NM >= 0).any(1)
    if not covered_N.any():
        raise UserError(f"no function of {values.weak} votes on any of {len(data.texts):,} texts.")
    model = label_model.fit(votes_NM, len(classes), balance(values.balance, classes, votes_NM))
    p_NC = model.probabilities(votes_NM)
    columns = [*label_model.analysis(votes_NM, data.labels_N), label_model.estimated_accuracy(votes_NM, model)]
    header = ["function", "coverage", "overlaps", "conflicts", "accuracy", "estimated accuracy"]
    show(header, [[name, *map(share, row)] for name, *row in zip(voters, *columns)])
    print(f"No accuracy is estimated of a function fewer than {label_model.COUNTS} of whose votes met another's: it would be the prior's.\n")
    if (judged_N := covered_N & (data.labels_N >= 0)).any():
        of = label_model.ways(votes_NM, model, label_model.one_accuracy(votes_NM, len(classes)))
        qualities = [label_model.quality(of_way_NC[judged_N], data.labels_N[judged_N]) for of_way_NC in of.values()]
        show(["votes put together by", "accuracy", "log-loss", "Brier score"], [[name, *map(share, quality)] for name, quality in zip(of, qualities)])
    print(
        f"Some function votes on {covered_N.mean():.1%} of the texts. Classes: {', '.join(f'{a} {b:.1%}' for a, b in zip(classes, model.balance_C))}."
    )
    second_N, best_N = np.sort(p_NC, 1)[:, -2:].T
    save(values.out, data, p_NC, covered_N & (best_N - second_N > 1e-6), classes, re.split(r"[./]", values.weak.removesuffix(".py"))[-1])


def balance(shares: list[str], classes: tuple[str, ...], votes_NM: np.ndarray) -> np.ndarray | None:
    """P(class) by what --balance says; None, it is to be learned, where that says nothing.

    Raises UserError for what is no such thing, and for a class to be learned that has no vote: of its share the votes say nothing.
    """
    if not shares and (unvoted := [name for c, name in enumerate(classes) if not (votes_NM == c).any()]):
        raise UserError(
            f"no function votes for {', '.join(unvoted)}, so how frequent that is cannot be learned: write a function for it, leave it out of "
            "--classes, or say how frequent each class is, --balance."
        )
    if not shares:
        return None
    try:
        balance_C = np.array([float(share) for share in shares])
    except ValueError:
        balance_C = np.zeros(0)
    if len(balance_C) != len(classes) or not (balance_C > 0).all() or abs(balance_C.sum() - 1) > 1e-6:
        raise UserError(f"--balance={','.join(shares)}: give a share of more than 0 for each of {', '.join(classes)}, which together are 1.")
    return balance_C


def pseudo(values, config):
    run, out, d = opened(values, config), pathlib.Path(values.out), config.data
    held_out = own(config_lib.changed(config, {"data.name": d.validation_name or d.name}), values.held_out)
    held_out = run.not_trained_on(held_out, f"--held_out={values.held_out}")
    if run.classes and held_out.classes and run.classes != held_out.classes:
        raise UserError(
            f"{run.workdir} tells {', '.join(run.classes)} apart, --held_out has {', '.join(held_out.classes)}: name data with the same classes."
        )
    found = pseudo_labels.calibration(run.probabilities(held_out.texts), held_out.labels_N)
    data = run.not_trained_on(read(values, config), f"--data={values.data}")
    p_NC = pseudo_labels.tempered(run.probabilities(data.texts), found.temperature)
    if p_NC.max() < values.threshold:
        raise UserError(
            f"once calibrated, the run is as sure as --threshold={values.threshold:g} of none of {len(p_NC):,} texts, at most {p_NC.max():.3f}: "
            "lower it, or label more."
        )
    print(pseudo_labels.summary(found, values.threshold, values.held_out))
    classes = run.classes or tuple(map(str, range(p_NC.shape[1])))
    save(out, data, p_NC, p_NC.max(1) >= values.threshold, classes, f"{run.workdir} at step {run.step}")
    before, after = f"as trained: ECE {found.before.error:.3f}", f"temperature {found.temperature:.2f}: ECE {found.after.error:.3f}"
    figures.reliability_diagram({before: found.before, after: found.after}, values.threshold, out.with_suffix(".png"))
    print(f"How sure and how right it is, bin by bin: {out.with_suffix('.png')}")


def choose(values, config):
    data, run = read(values, config), opened(values, config) if values.workdir else None
    known = {*(texts.of_table(values.labelled).labelled.texts if values.labelled else ()), *(run.trained_on if run else ())}
    known |= {*(data.labelled.texts if values.data.endswith(".csv") else ())}  # a data set has labels, as for an experiment, that nobody gave
    first = {text: i for i, text in reversed([*enumerate(data.texts)])}  # to be asked once
    if not (new := sorted(i for text, i in first.items() if text not in known)):
        raise UserError(f"all {len(data.texts):,} texts have a label already: there is nothing to choose from.")
    pool = data.where(np.array(new))
    chosen = pool.where(active.STRATEGIES[values.choose](run, pool.texts, sorted(known), values.count, values.seed))
    table.write(values.out, itertools.starmap(table.row, zip(chosen.keys, chosen.texts)))
    print(
        f"{len(chosen.keys):,} of {len(pool.keys):,} texts are in {values.out}, those most worth a label first: --serve={values.out} asks for them."
    )


def serve(values, config):
    path = pathlib.Path(values.serve)
    with Server(Sheet(path, values.classes, values.annotator), values.port) as server:
        print(f"http://{ADDRESS}:{server.server_address[1]}/ labels {path}. Ctrl-C stops: what was labelled is in the file.", flush=True)
        server.serve_forever()


def errors(values, config):
    run = opened(values, config)
    data = run.not_trained_on(read(values, config), f"--data={values.data}").labelled
    if not data.keys:
        raise UserError(f"{values.data} has no labels of classes that could be wrong: name other data, or another --label_field.")
    found = confident_learning.doubts(data.labels_N, confident_learning.out_of_sample(run.embeddings(data.texts), data.labels_N, data.classes))
    rows = found.rows(data)
    table.write(values.out, rows)
    show(["quality", "given", "suggested", "text"], [[row["quality"], row["given"], row["suggested"], row["text"][:100]] for row in rows[:10]])
    print(
        f"{found.wrong_N.sum():,} of {len(rows):,} labels look wrong. All texts are in {values.out}, the most doubtful first, and those without a "
        f"label: --serve={values.out} asks for it again. What they had is in the column `given`."
    )


def agreement(values, config):
    if len(values.agreement) < 2:
        raise UserError("--agreement is of several files: --agreement=a.csv,b.csv.")
    if len({pathlib.Path(path).resolve() for path in values.agreement}) < len(values.agreement):
        raise UserError(f"--agreement={','.join(values.agreement)} names a file twice, which agrees with itself: name each annotator's once.")
    rows, classes, ratings_NR = measures.ratings([table.read(path) for path in values.agreement])
    if not ((ratings_NR >= 0).sum(1) > 1).any():
        raise UserError(f"no text has a label in two of {', '.join(values.agreement)}: they are told by their keys.")
    body = [
        [name, ", ".join(values.agreement[i] for i in who), f"{count:,}", *map(share, (alike, found.value)), found.between]
        for name, who, count, alike, found in measures.statistics(ratings_NR)
    ]
    show(["", "of", "texts", "alike", "beyond chance", "95 % interval"], body)
    if values.out:
        disputed = [row | dict(zip(values.agreement, told)) for row, told in measures.disputed(rows, classes, ratings_NR)]
        table.write(values.out, disputed)
        print(f"{len(disputed):,} texts are disputed; they are in {values.out}, without a label: --serve={values.out} asks for it.")


DATA = ("split", "dir", "text_field", "label_field", "classes")
RUN = ("config", "step")
MODES: dict[str, tuple[Callable, tuple[str, ...], tuple[str, ...]]] = {  # flag, or =value -> (what it does, flags that it needs, flags that it takes)
    "weak": (weak, ("data", "out"), (*DATA, "balance")),
    "pseudo": (pseudo, ("workdir", "data", "out"), (*DATA, *RUN, "threshold", "held_out")),
    **{f"choose={how}": (choose, ("workdir", "data", "out"), (*DATA, *RUN, "count", "labelled")) for how in active.STRATEGIES},
    "choose=random": (choose, ("data", "out"), (*DATA, "count", "labelled", "seed")),
    "serve": (serve, ("classes",), ("annotator", "port")),
    "errors": (errors, ("workdir", "data", "out"), (*DATA, *RUN)),
    "agreement": (agreement, (), ("out",)),
}


def read(values, config) -> Texts:
    """What --data names."""
    if values.data.endswith(".csv"):
        if unused := [name for name in DATA[:4] if values[name].present]:
            raise UserError(f"--{unused[0]} is of data sets, {values.data} is a file: leave it out.")
        return texts.of_table(values.data, values.classes or None)
    told = {"name": values.data, "dir": values.dir, "text_field": values.text_field, "label_field": values.label_field}
    changed = config_lib.changed(config, {f"data.{name}": value for name, value in told.items() if value is not None})
    data = own(changed, values.split or changed.data.train_split)
    if data.classes and values.classes and tuple(values.classes) != data.classes:
        raise UserError(f"{values.data} has the classes {', '.join(data.classes)}: leave out --classes.")
    return data


def own(config, split: str) -> Texts:
    """A split of the data that a config names."""
    return texts.of_dataset(Corpus(config, DATASETS, None, None), split, config.data.text_field, config.data.label_field)


def opened(values, config) -> Run:
    """The run --workdir. Raises UserError for one that reads no text, or pairs of texts."""
    workdir = pathlib.Path(values.workdir)
    if not build.has_vocabulary(config) or config.data.source == "labelled_text" and config.data.second_text_field is not None:
        raise UserError(f"{workdir} reads {'pairs of texts' if build.has_vocabulary(config) else 'no text'}: labelling is of single texts.")
    tokenizer = load_tokenizer(workdir / "tokenizer.json")
    e = build.experiment(config, vocabulary(tokenizer, config.data.end_token))
    step, params = restore.trained_params(e, workdir, values.step)
    reader = functools.partial(restore.reader, e, tokenizer, params)
    return Run(workdir, config, e.objective, step, params, reader, tuple(restore.label_names(workdir) or ()), trained_on(workdir, config.data.dir))


def trained_on(workdir: pathlib.Path, folder: str | None) -> frozenset[str]:
    """The texts whose labels a run was given, or one that it was begun from: as the configs in their folders say, not the command line, but for
    data.dir, where data sets lie. Raises UserError where they cannot be read."""
    known: frozenset[str] = frozenset()
    runs = restore.lineage(workdir, base.get_config())
    moved = {} if folder == runs[workdir].data.dir else {"data.dir": folder}
    for run, kept in runs.items():
        if kept.data.source == "labelled_text" and getattr(build.objective_class(kept), "predicts", None) in ("label", "score"):
            try:
                known |= frozenset(own(config_lib.changed(kept, moved), kept.data.train_split).texts)
            except UserError as e:
                what = f"{run} was trained on {kept.data.train_split!r} of {kept.data.name}, which is not to be read here"
                raise UserError(f"{what}, so that it cannot be left out: say in which folder it lies, --config.data.dir=...") from e
    return known


def save(path, data: Texts, p_NC: np.ndarray, sure_N: np.ndarray, classes: tuple[str, ...], annotator: str):
    """Writes the likeliest labels of those that are sure enough."""
    rows = [table.row(data.keys[i], data.texts[i], classes[p_NC[i].argmax()], p_NC[i].max(), annotator) for i in np.flatnonzero(sure_N)]
    table.write(path, rows)
    print(f"{len(rows):,} of {len(sure_N):,} texts have a label in {path}.")


def show(header: list[str], body: list[list[str]]):
    print(markdown(header, [[Cell(text) for text in row] for row in body]))


def share(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


if __name__ == "__main__":
    run_command(main)
