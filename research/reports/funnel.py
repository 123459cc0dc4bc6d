"""What a preparation did to its documents, out of the manifest: a table, a picture, a page with examples of what was dropped and changed."""

import html
import json
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from research.core.errors import UserError
from research.core.files import write_atomically
from research.reports.html_page import document, note, picture, table
from research.reports.tables import Cell

LEFT, GONE = "#31688e", "#d8dee9"
STYLE = """
.example { border-left: 3px solid color-mix(in srgb, currentColor 25%, transparent); margin: .6rem 0; padding: .1rem .8rem; }
.example p { margin: .2rem 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.example .key { font-size: .85em; color: color-mix(in srgb, currentColor 65%, transparent); }
.example .before { color: color-mix(in srgb, currentColor 65%, transparent); border-bottom: 1px dashed; }
td:last-child { white-space: normal; min-width: 20rem; overflow-wrap: anywhere; } td { vertical-align: top; } summary { cursor: pointer; }
"""


def write(manifest: dict, folder: pathlib.Path):
    """funnel.png and index.html."""
    funnel(manifest, folder / "funnel.png")
    write_atomically(folder / "index.html", page(manifest, folder / "funnel.png"))


def read_manifest(folder: pathlib.Path) -> dict:
    """The manifest of a prepared data set. Raises UserError if it cannot be read."""
    try:
        return json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as e:
        raise UserError(f"{folder / 'manifest.json'} cannot be read ({e}): prepare the data set again.") from e


def rows(manifest: dict) -> tuple[list[str], list[list[Cell]]]:
    """(header, a row for each rule): what came, what left, what was changed and why the others went."""
    header = ["rule", "documents in", "out", "dropped", "changed", "characters in", "out", "why"]
    body = []
    for rule in manifest["rules"]:
        dropped = rule["documents_in"] - rule["documents_out"]
        why = "; ".join(f"{reason}: {count:,}" for reason, count in sorted(rule["why"].items(), key=lambda item: -item[1]))
        numbers = [rule["documents_in"], rule["documents_out"], dropped, rule["documents_changed"], rule["characters_in"], rule["characters_out"]]
        body.append([Cell(rule["rule"]), *(Cell(f"{number:,}") for number in numbers), Cell(why)])
    return header, body


def tokens(counted: dict) -> tuple[list[str], list[list[Cell]]]:
    """(header, a row for each split): how many tokens there are, what they stand for and how documents and rows are filled with them."""
    header = ["split", "documents", "tokens", "a word", "characters of one", "unknown", "of the vocabulary"]
    header += [f"of a document, {q}" for q in next(iter(counted["splits"].values()))["tokens_of_a_document"]]
    header += [] if counted["length"] is None else [f"rows of {counted['length']:,}", "filled"]
    body = []
    for split, of in counted["splits"].items():
        row = [split, f"{of['documents']:,}", f"{of['tokens']:,}", f"{of['tokens_per_word']:.2f}", f"{of['characters_per_token']:.2f}"]
        row += [f"{of['unknown']:.2%}", f"{of['vocabulary_used']:.1%}", *(f"{n:,}" for n in of["tokens_of_a_document"].values())]
        row += [] if counted["length"] is None else [f"{of['rows']:,}", f"{of['packing_efficiency']:.1%}"]
        body.append([Cell(text) for text in row])
    return header, body


def contaminated(sets: dict) -> tuple[list[str], list[list[Cell]]]:
    """(header, a row for each evaluation set): how many of its examples have text that is in documents which came to the rule."""
    body = [[name, f"{of['examples']:,}", f"{of['too_short']:,}", f"{of['hit']:,}"] for name, of in sets.items()]
    return ["evaluation set", "examples", "too short to be looked for", "found"], [[Cell(text) for text in row] for row in body]


def funnel(manifest: dict, path: pathlib.Path):
    """How many documents and characters are left after each rule, as shares of what came in."""
    rules = manifest["rules"]
    names = ["input"] + [rule["rule"] for rule in rules]
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.36 * len(names) + 1.1), sharey=True, layout="constrained")
    for axis, what in zip(axes, ("documents", "characters")):
        left = [rules[0][f"{what}_in"]] + [rule[f"{what}_out"] for rule in rules]
        shares = [100 * count / max(1, left[0]) for count in left]
        axis.barh(range(len(names)), [100] + shares[:-1], color=GONE)  # what the rule was given
        axis.barh(range(len(names)), shares, color=LEFT)
        for y, (count, share) in enumerate(zip(left, shares)):
            inside = share > 35
            axis.text(share - 1 if inside else max(share, ([100] + shares)[y]) + 1, y, f"{count:,}", va="center", ha="right" if inside else "left", color="white" if inside else "black", fontsize=8)
        axis.set(title=what, xlabel="% of the input", xlim=(0, 100))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def page(manifest: dict, plot: pathlib.Path) -> str:
    """The whole report; `plot` is the picture that `funnel` made."""
    splits = ", ".join(f"{size:,} for {split}" for split, size in manifest["splits"].items())
    title = f"{manifest['name']} {manifest['version']}"
    parts = [note(f"{splits}. In the picture, grey is what a rule took away."), picture("What is left after each rule", plot), table(*rows(manifest))]
    if "tokens" in manifest:
        parts += [f"<h2>Its {manifest['tokens']['vocabulary']:,} tokens</h2>", table(*tokens(manifest["tokens"]))]
    for rule in manifest["rules"]:
        if "evaluation_sets" in rule:
            parts += ["<h2>Examples of evaluation sets that were found</h2>", table(*contaminated(rule["evaluation_sets"]))]
    parts.append("<h2>What was dropped, and changed</h2>")
    for rule in manifest["rules"]:
        for which in ("dropped", "changed"):
            if rule[which]:
                examples = "\n".join(map(_example, rule[which]))
                parts.append(f"<details><summary>{html.escape(rule['rule'])} {which}, for example</summary>\n{examples}\n</details>")
    parts += ["<h2>What went in</h2>", table(["file", "SHA-256"], [[Cell(file["name"]), Cell(file["sha256"])] for file in manifest["input"]])]
    parts += ["<h2>What came out</h2>", table(["file", "SHA-256"], [[Cell(name), Cell(sha256)] for name, sha256 in manifest["output"].items()])]
    parts += ["<h2>Made with</h2>", table(["package", "version"], [[Cell(name), Cell(version)] for name, version in manifest["versions"].items()])]
    parts.append(f"<details><summary>The recipe</summary>\n<pre>{html.escape(json.dumps(manifest['recipe'], indent=2))}</pre>\n</details>")
    return document(title, parts, STYLE)


def _example(example: dict) -> str:
    parts = [f'<p class="key">{html.escape(example["key"])}{": " + html.escape(example["why"]) if "why" in example else ""}</p>', _content(example)]
    if "like" in example:
        parts += [f'<p class="key">like {html.escape(example["like"]["key"])}</p>', _content(example["like"])]
    return f'<div class="example">{"".join(parts)}</div>'


def _content(example: dict) -> str:
    images = [f'<img alt="" src="data:image/png;base64,{example["image"]}">'] if "image" in example else []
    return "".join(images + [f'<p class="{name}">{html.escape(example[name])}</p>' for name in ("text", "before", "after") if name in example])
