"""Augmentations to look at: each original beside what became of it."""

import difflib
import html
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from research.core.errors import UserError
from research.core.files import write_atomically
from research.reports.html_page import document

PICTURES, PAGES = (".png", ".pdf", ".svg"), (".html",)  # endings of files
STYLE = """
td { vertical-align: top; white-space: normal; min-width: 2rem; }
td.number { font-variant-numeric: tabular-nums; color: color-mix(in srgb, currentColor 65%, transparent); white-space: nowrap; }
tr.original td { border-top: 2px solid color-mix(in srgb, currentColor 40%, transparent); font-weight: 600; }
ins { background: color-mix(in srgb, #2a9d4a 28%, transparent); text-decoration: none; border-radius: 3px; padding: 0 .15em; }
del { color: color-mix(in srgb, currentColor 50%, transparent); text-decoration-color: #c0392b; }
"""


def contact_sheet(originals: Sequence, variants: Sequence[Sequence], columns: Sequence[str], captions: Sequence[str], path: pathlib.Path):
    """Writes a page of texts, or of images a picture: a row an example, the original first. Raises UserError if the path is of the other kind.

    Args:
      originals: images (H, W, 1 or 3) uint8, or texts.
      variants: of each original what it became, as many as there are `columns`.
      columns: what each variant is, as "epoch 0".
      captions: of each original, as its label.
    """
    texts = isinstance(originals[0], str)
    if path.suffix not in (endings := PAGES if texts else PICTURES):
        raise UserError(f"{path}: a sheet of {'texts' if texts else 'images'} is a file that ends in {' or '.join(endings)}.")
    if texts:
        write_atomically(path, page(originals, variants, columns, captions))
    else:
        grid(originals, variants, columns, captions).savefig(path, dpi=130)


def grid(originals: Sequence[np.ndarray], variants: Sequence[Sequence[np.ndarray]], columns: Sequence[str], captions: Sequence[str]) -> Figure:
    """One row of axes an example, images as they are where they are small."""
    wide, high = 1 + len(columns), len(originals)
    figure = Figure(figsize=(1.3 * wide + 0.5, 1.3 * high + 0.3), layout="constrained")
    axes = figure.subplots(high, wide, squeeze=False)
    for row, original, became, caption in zip(axes, originals, variants, captions, strict=True):
        row[0].set_ylabel(caption, fontsize=9)
        for axis, image in zip(row, (original, *became), strict=True):
            axis.imshow(np.broadcast_to(image, (*image.shape[:2], 3)))
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, name in zip(axes[0], ("original", *columns), strict=True):
        axis.set_title(name, fontsize=9)
    return figure


def page(originals: Sequence[str], variants: Sequence[Sequence[str]], columns: Sequence[str], captions: Sequence[str]) -> str:
    """An HTML page that needs nothing beside it."""
    rows = []
    for original, became, caption in zip(originals, variants, captions, strict=True):
        rows.append(f'<tr class="original"><td class="number">{html.escape(caption)}</td><td>{html.escape(original)}</td></tr>')
        for name, variant in zip(columns, became, strict=True):
            rows.append(f'<tr><td class="number">{html.escape(name)}</td><td>{marked(original, variant)}</td></tr>')
    legend = (
        "In bold the original; under it what training sees in its place. <ins>New</ins> words are marked, those that are <del>gone</del> struck out."
    )
    parts = [f'<p class="note">{legend}</p>', "<table>\n<tbody>", *rows, "</tbody>\n</table>"]
    return document("Augmented texts", parts, STYLE)


def marked(original: str, variant: str) -> str:
    """The words of a variant as HTML: those that the original has not as <ins>, and as <del> those of the original that are gone."""
    before, now = original.split(), variant.split()
    parts = []
    for what, i, j, k, end in difflib.SequenceMatcher(None, before, now, autojunk=False).get_opcodes():
        gone, new = (html.escape(" ".join(words)) for words in (before[i:j], now[k:end]))
        parts += [new] if what == "equal" else [f"<{tag}>{text}</{tag}>" for tag, text in (("del", gone), ("ins", new)) if text]
    return " ".join(parts)
