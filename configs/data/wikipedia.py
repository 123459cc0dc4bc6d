"""Wikitext, as Wikipedia's dumps have it, down to prose: here the first 106 articles of an old dump, which a package carries, or --config.input.files=DUMP.xml.bz2.

    python -m research.prepare --config=configs/data/wikipedia.py
    python -m research.train --config=configs/gpt/tiny.py --config.data.name=wikipedia_prose --workdir=runs/wikipedia_prose
"""

from configs.data import base


def get_config():
    c = base.get_config()
    c.name = "wikipedia_prose"
    c.input.update(format="wikitext", fetch="wikipedia_dump")
    c.rules = ("fields", "unicode", "language", "gopher_quality", "gopher_repetition", "exact_duplicates", "near_duplicates", "repeated_passages")
    c.repeated_passages.whole_sentences = True
    c.output.update(fields=("title", "text"), validation=0.1)
    return c
