"""Files that are there whole or not at all."""

import pathlib


def write_atomically(path: pathlib.Path, text: str):
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text)
    draft.replace(path)
