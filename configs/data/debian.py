"""Descriptions of all packages of Debian, in three languages and many much alike, down to English of which each says something new.

    python -m research.prepare --config=configs/data/debian.py
    python -m research.train --config=configs/gpt/tiny.py --config.data.name=debian --workdir=runs/debian

After a colon `raw`: the English descriptions as they stand in the index, to compare with.
"""

from configs.data import base
from research.core.errors import UserError


def get_config(which="clean"):
    if which not in ("clean", "raw"):
        raise UserError(f"there is no {which!r} text of Debian: choose clean or raw.")
    c = base.get_config()
    c.name = "debian"
    c.input.update(fetch="debian", key_field="key")
    c.rules = (
        "fields",
        "debian_description",
        "unicode",
        "language",
        "gopher_quality",
        "gopher_repetition",
        "pii",
        "exact_duplicates",
        "near_duplicates",
        "repeated_passages",
    )
    c.gopher_quality.min_words = 20  # of texts that have some 70
    c.near_duplicates.update(bands=20, rows=6)  # which miss fewer than FineWeb's
    c.repeated_passages.update(words=25, whole_sentences=True)
    c.tokens.update(type="wordpiece", vocab_size=1024, length=128)  # as many and as long as in configs/gpt/tiny.py; of words in lower case
    c.output.update(fields=("text", "package"), split_by="source")  # packages that are built together have much the same description
    if which == "raw":
        c.name = "debian_raw"
        c.input.fetch = "debian_en"
        c.rules = ("fields",)
        c.tokens.type = None
    return c
