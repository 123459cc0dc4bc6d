import io

import numpy as np
import pytest

from research.data.records import Records
from research.data.wikipedia_sample import WikipediaTopics, plain_text, read_articles, split_articles

WIKITEXT = """{{Infobox person|name=X}}
'''London''' is the [[capital city|capital]] of [[England]] and the largest city.<ref name="a">{{cite web|url=x}}</ref> It stands on the [[River Thames]].
[[File:London.jpg|thumb|A caption with a [[link]] that nobody wants to read here]]
{| class="wikitable"
| this table || has || several || cells || and || words || in || it
|}
== History ==
In the year 43 the Romans founded a city ({{lang-la|Londinium}}) &mdash; about seven years later.<!-- a comment -->
* A list item that holds more than five words of prose.
== References ==
{{reflist}} A line among the references that nobody should be reading.
=== Sources ===
Another line below the references that nobody should be reading.
== Geography ==
Greater London covers an area of about 1,583 square kilometres in all.
== External links ==
* [http://example.org A site that has a fairly long name indeed]
[[Category:London]]
"""


def test_markup_templates_tables_references_and_appendices_go():
    assert plain_text(WIKITEXT).split("\n") == [
        "London is the capital of England and the largest city. It stands on the River Thames.",
        "In the year 43 the Romans founded a city — about seven years later.",
        "A list item that holds more than five words of prose.",
        "Greater London covers an area of about 1,583 square kilometres in all.",
    ]


def test_only_articles_are_read():
    page = "<page><title>{}</title><ns>{}</ns>{}<revision><text>{}</text></revision></page>"
    pages = [
        page.format("A", 0, "", "one"),
        page.format("B", 0, '<redirect title="A" />', "#REDIRECT"),
        page.format("Talk:A", 1, "", "two"),
        page.format("C", 0, "", ""),
    ]
    xml = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{"".join(pages)}</mediawiki>'
    assert list(read_articles(io.BytesIO(xml.encode()))) == [("A", "one"), ("C", "")]


@pytest.mark.slow
def test_topics_are_of_articles_that_no_run_is_trained_on(cache):
    builder = WikipediaTopics(data_dir=str(cache), file_format="array_record")
    train, validation = (
        Records(builder, split, {"text_field": ("text", "text"), "label_field": ("label", "class")}) for split in ("train", "validation")
    )
    labels = [np.bincount([records[i]["label"] for i in range(len(records))], minlength=8) for records in (train, validation)]
    assert 0 <= len(train) - len(validation) <= 1 and len(train) > 700 and (labels[0] > 20).all() and (abs(labels[0] - labels[1]) <= 1).all()
    seen = {title for title, _ in split_articles()[0]}
    assert not seen & set(builder.info.features["label"].names)
