"""Labels without labelling everything: rules that vote, a model that is sure, the texts most worth a person's time, a page to label them, and what is wrong.

    python -m research.label --weak=functions.py --data=movie_reviews --out=labels.csv
        labelling functions (each `def lf_NAME(text)`, which returns a class or None), of a file or a package.module, combined by what they tell of each other;
        prints how each votes   [--classes=negative,positive]  where the data has none   [--balance=0.3,0.7]  how frequent they are; absent: learned too
    python -m research.label --pseudo --workdir=RUN --data=NAME --out=labels.csv [--threshold=0.95] [--held_out=validation]
        the run's own labels where it is sure enough, after temperature scaling; how far that can be believed is measured on a split of its data held out
    python -m research.label --choose=entropy|margin|k_center|random --workdir=RUN --data=NAME --out=to_label.csv [--count=50] [--labelled=labels.csv]
        what to label next: where the run is least sure, or what lies farthest from all that has a label; random, [--seed=0], needs no run
    python -m research.label --serve=to_label.csv --classes=negative,positive [--annotator=NAME] [--port=8000]
        a page for this machine alone: a key for each class, and each label is in the file at once
    python -m research.label --errors --workdir=RUN --data=NAME --out=errors.csv
        the labels most likely to be wrong, by confident learning on the run's embeddings (extra `data`)
    python -m research.label --agreement=a.csv,b.csv [--out=differ.csv]
        Cohen's and Fleiss' kappa and Krippendorff's alpha, with 95 % intervals; --out: where they differ, to be settled with --serve

--data: a data set as data.name of a config, or a CSV file; of a data set [--split=train] [--dir=...] [--text_field=text] [--label_field=label]. --step=N: which
checkpoint of the run. What a run was trained on with labels is left out: of that it tells what it was told. A text too long for a run is cut, as in training.

A CSV file has the columns key, text, label, confidence and annotator; --data reads it, too.
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from tokenizers import Tokenizer

from configs import base
from research import build, restore
from research.core import config as config_lib
from research.core import linen
from research.core.errors import UserError, run_command
from research.data.corpus import Corpus
from research.data.tokenizer import load_tokenizer, vocabulary
from research.labelling import active, functions, label_model, outputs, pseudo_labels, table, texts
from research.labelling import agreement as measures
from research.labelling import errors as confident_learning
from research.labelling.server import ADDRESS, Server, Sheet
from research.labelling.texts import Texts
from research.reports.tables import Cell, markdown
from research.tables import DATASETS


def main(argv):
    parse = config_lib.parse_over if config_lib.given("workdir", argv) is None else config_lib.parse_run
    values, config = parse(argv, base.get_config(), define)
    given = [name for name in (*MODES, *FLAGS) if values[name].present] + ["config"] * any(arg.startswith("--config.") for arg in argv)
    modes = [name for name in given if name in MODES]
    if len(modes) != 1:
        raise UserError(f"say one thing to do: {', '.join(f'--{name}' for name in MODES)}; --help tells more.")
    mode, needs, takes = MODES[modes[0]]
    if extra := [name for name in given if name not in (*modes, *needs, *takes)]:
        raise UserError(f"--{extra[0]} has nothing to do with --{modes[0]}: leave it out.")
    if missing := [name for name in needs if name not in given]:
        raise UserError(f"--{modes[0]} needs --{missing[0]} as well.")
    mode(values, restore.fitting(config, argv))


def define(values):
    text, number = flags.DEFINE_string, flags.DEFINE_integer
    text("weak", None, "Labelling functions.", flag_values=values)
    flags.DEFINE_bool("pseudo", False, "Labels of a run.", flag_values=values)
    flags.DEFINE_enum("choose", None, [*STRATEGIES], "What to label next.", flag_values=values)
    text("serve", None, "A CSV file to label.", flag_values=values)
    flags.DEFINE_bool("errors", False, "Labels likely to be wrong.", flag_values=values)
    flags.DEFINE_list("agreement", [], "CSV files of several annotators.", flag_values=values)
    for name, what in {"data": "Data set or CSV file.", "split": "Of it.", "dir": "Where TFDS has it.", "out": "CSV file."}.items():
        text(name, None, what, flag_values=values)
    text("text_field", None, "The feature of --data that holds the text.", flag_values=values)
    text("label_field", None, "The feature of --data that holds the label.", flag_values=values)
    text("held_out", "validation", "A split of the run's data.", flag_values=values)
    text("labelled", None, "A CSV file of what has been labelled.", flag_values=values)
    text("annotator", "", "Whose labels they are.", flag_values=values)
    flags.DEFINE_list("classes", [], "Names of the labels.", flag_values=values)
    flags.DEFINE_list("balance", [], "How frequent the classes are.", flag_values=values)
    flags.DEFINE_float("threshold", 0.95, "The least confidence.", 0, 1, flag_values=values)
    number("count", 50, "How many to choose.", lower_bound=1, flag_values=values)
    number("seed", 0, "Of --choose=random.", flag_values=values)
    number("port", 8000, "Of the page.", 0, 65535, flag_values=values)
    number("step", None, "Which checkpoint; absent: the latest.", flag_values=values)


def weak(values, config):
    voters, data = functions.load(values.weak), read(values, config)
    classes, out = data.classes or tuple(values.classes), values.out
    if len(classes) < 2 or values.classes and tuple(values.classes) != classes:
        raise UserError(f"the data has {f'the classes {", ".join(classes)}: leave --classes out' if data.classes else 'no classes: name them as --classes'}.")
    votes_NM = functions.votes(voters, data.texts, classes)
    covered_N = (votes_NM >= 0).any(1)
    if not covered_N.any():
        raise UserError(f"no function of {values.weak} votes on any of {len(data.texts)} texts.")
    model = label_model.fit(votes_NM, len(classes), balance(values.balance, classes))
    found = {"majority vote": label_model.majority_vote(votes_NM, len(classes)), "label model": model.probabilities(votes_NM)}
    seen, judged_N = label_model.analysis(votes_NM, data.labels_N), covered_N & (data.labels_N >= 0)
    body = [[name, *map(share, (*figures, accuracy))] for name, *figures, accuracy in zip(voters, *seen, model.accuracy_M)]
    show(["function", "votes on", "with others", "against others", "accuracy", "by the model"], body)
    if judged_N.any():
        qualities = {name: label_model.quality(p_NC[judged_N], data.labels_N[judged_N]) for name, p_NC in found.items()}
        show(["combined by", "accuracy", "log-loss", "Brier score"], [[name, *map(share, quality)] for name, quality in qualities.items()])
    p_NC = found["label model"]
    save(values.out, data, p_NC, covered_N & (p_NC.max(1) > p_NC.min(1)), classes, pathlib.Path(values.weak).stem)
    print(f"Classes: {', '.join(f'{name} {part:.3f}' for name, part in zip(classes, model.balance_C))}. On {covered_N.mean():.1%} of the texts a function votes.")


def balance(parts: list[str], classes: tuple[str, ...]) -> np.ndarray | None:
    if not parts:
        return None
    try:
        balance_C = np.array([float(part) for part in parts])
    except ValueError:
        balance_C = np.zeros(0)
    if len(balance_C) != len(classes) or not (balance_C > 0).all() or abs(balance_C.sum() - 1) > 1e-6:
        raise UserError(f"--balance={','.join(parts)}: give a share for each of {', '.join(classes)}, all more than 0, which together are 1.")
    return balance_C


def pseudo(values, config):
    run = opened(values, config)
    held_out = own(config, values.held_out)
    found = pseudo_labels.calibration(probabilities(run, held_out), held_out.labels_N)
    data, out = run.not_trained_on(read(values, config)), pathlib.Path(values.out)
    p_NC = pseudo_labels.tempered(probabilities(run, data), found.temperature)
    classes = run.classes or tuple(map(str, range(p_NC.shape[1])))
    precision = pseudo_labels.precision_at(values.threshold, found.probabilities_NC, found.labels_N)
    save(out, data, p_NC, p_NC.max(1) >= values.threshold, classes, f"{run.workdir}:{run.step}")
    pseudo_labels.draw(found, values.threshold, out.with_suffix(".png"))
    print(
        f"On {len(found.labels_N):,} texts of {values.held_out}, with the temperature {found.temperature:.2f} of as many others: expected calibration error "
        f"{found.before.error:.3f} before, {found.after.error:.3f} after ({out.with_suffix('.png')}). Of these the run is so sure of {precision.number:,}, "
        f"and right in {precision.value:.1%} ({precision.low:.1%} to {precision.high:.1%})."
    )


def choose(values, config):
    if values.choose == "random" and values.workdir is not None:
        raise UserError("--choose=random looks at no run: leave out --workdir.")
    if values.choose != "random" and values.workdir is None:
        raise UserError(f"--choose={values.choose} asks a run: give --workdir.")
    data, labelled = read(values, config), texts.of_table(values.labelled).labelled.texts if values.labelled else []
    run = opened(values, config) if values.workdir else None
    known = {*labelled, *(run.trained_on if run else ())}
    new_N = np.array([text not in known for text in data.texts])
    if not new_N.any():
        raise UserError(f"all {len(new_N)} texts have a label already: there is nothing to choose from.")
    pool = data.where(new_N)
    chosen = pool.where(STRATEGIES[values.choose](run, pool, data.where(~new_N), values))
    table.write(values.out, itertools.starmap(table.row, zip(chosen.keys, chosen.texts)))
    print(f"{len(chosen.keys):,} of {len(pool.keys):,} texts without a label are in {values.out}: --serve={values.out} labels them.")


STRATEGIES: dict[str, Callable] = {  # (run, texts without a label, those with one, flags) -> places of the former, in order
    "entropy": lambda run, pool, labelled, values: active.entropy(probabilities(run, pool), values.count),
    "margin": lambda run, pool, labelled, values: active.margin(probabilities(run, pool), values.count),
    "k_center": lambda run, pool, labelled, values: active.k_center(embeddings(run, pool), embeddings(run, labelled), values.count),
    "random": lambda run, pool, labelled, values: active.random(len(pool.keys), values.count, values.seed),
}


def serve(values, config):
    path = pathlib.Path(values.serve)
    with Server(Sheet(path, values.classes, values.annotator), values.port) as server:
        print(f"http://{ADDRESS}:{server.server_address[1]}/ labels {path}. Ctrl-C stops; what was labelled is in the file.", flush=True)
        server.serve_forever()


def errors(values, config):
    run = opened(values, config)
    data = run.not_trained_on(read(values, config)).labelled
    if not data.keys:
        raise UserError(f"{values.data} has no labels that could be wrong: name data with labels of classes.")
    found = confident_learning.doubts(data.labels_N, confident_learning.out_of_sample(embeddings(run, data), data.labels_N, data.classes))
    rows = []
    for i in found.order_N:
        row = table.row(data.keys[i], data.texts[i], data.classes[data.labels_N[i]])
        rows.append(row | {"quality": f"{found.quality_N[i]:.4f}", "suggested": data.classes[found.suggested_N[i]], "wrong": str(int(found.wrong_N[i]))})
    table.write(values.out, rows)
    print(f"{found.wrong_N.sum():,} of {len(rows):,} labels look wrong. All are in {values.out}, the most doubtful first:\n")
    show(["quality", "label", "suggested", "text"], [[row["quality"], row["label"], row["suggested"], row["text"][:100]] for row in rows[:10]])


def agreement(values, config):
    if len(values.agreement) < 2:
        raise UserError("--agreement is between several files: --agreement=a.csv,b.csv.")
    files = [table.read(path) for path in values.agreement]
    classes = sorted({row["label"] for rows in files for row in rows} - {""})
    first = {row["key"]: row for rows in reversed(files) for row in rows}
    places = {key: n for n, key in enumerate(first)}
    ratings_NR = np.full((len(first), len(files)), -1)
    for r, rows in enumerate(files):
        for row in rows:
            ratings_NR[places[row["key"]], r] = classes.index(row["label"]) if row["label"] else -1
    shared = (ratings_NR >= 0).sum(1) > 1
    if not shared.any():
        raise UserError(f"{', '.join(values.agreement)} share no text that two of them label: keys tell which are the same.")
    body = []
    for a, b in itertools.combinations(range(len(files)), 2):
        pair_N2 = ratings_NR[:, [a, b]]
        both = int((pair_N2 >= 0).all(1).sum())
        body.append([f"{values.agreement[a]}, {values.agreement[b]}", f"{both:,}", share(measures.observed_agreement(pair_N2)), *interval("Cohen's kappa", measures.cohen_kappa, pair_N2)])
    everyone = f"all {len(files)}"
    body.append([everyone, f"{int((ratings_NR >= 0).all(1).sum()):,}", share(measures.observed_agreement(ratings_NR[(ratings_NR >= 0).all(1)])), *interval("Fleiss' kappa", measures.fleiss_kappa, ratings_NR)])
    body.append([everyone, f"{int(shared.sum()):,}", share(measures.observed_agreement(ratings_NR)), *interval("Krippendorff's alpha", measures.krippendorff_alpha, ratings_NR)])
    show(["of", "texts", "alike", "beyond chance", "", "95 % interval"], body)
