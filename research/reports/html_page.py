"""Parts of an HTML page that needs nothing beside it."""

import base64
import html
import pathlib

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


def document(title: str, parts: list[str], style: str = "") -> str:
    """A whole page, light or dark as its reader has it; `style` is added to that of all pages."""
    head = f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n<style>{STYLE}{style}</style>'
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n<h1>{html.escape(title)}</h1>\n' + "\n".join(parts) + "\n</body>\n</html>\n"


def picture(what: str, path: pathlib.Path) -> str:
    """A PNG file, within the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(what)}" src="data:image/png;base64,{data}">'


def note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def table(header: list[str], body: list[list[Cell]]) -> str:
    cell = lambda c: f'<td class="best">{html.escape(c.text)}</td>' if c.bold else f"<td>{html.escape(c.text)}</td>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    rows = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in body)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'
