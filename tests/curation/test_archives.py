import bz2
import datetime
import decimal
import gzip
import io
import tracemalloc

import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from research.core.errors import UserError
from research.curation.archives import EXAMPLES, Parquet, Tfds, Warc, Wikitext, page_text
from research.curation.preparation import together
from tests.curation.test_inputs import all_of


def parquet(files, text_field="text", key_field=None, image_field=None):
    return Parquet(files=str(files), text_field=text_field, image_field=image_field, key_field=key_field)


def test_rows_come_from_all_row_groups_of_files_in_any_folders(tmp_path):
    for name, texts in (("en/train-0.parquet", ["a", "b", "c", "d", "e"]), ("de/train-0.parquet", ["ä"])):
        (tmp_path / name).parent.mkdir()
        pq.write_table(pa.table({"text": texts, "id": range(len(texts))}), tmp_path / name, row_group_size=2)
    format = parquet(tmp_path / "**/*.parquet")
    assert [(part.name, part.start, part.stop) for part in format.parts()] == [("de/train-0.parquet", 0, 1)] + [
        ("en/train-0.parquet", i, i + 1) for i in range(3)
    ]
    found = all_of(format)
    assert [document["text"] for document in found] == ["ä", "a", "b", "c", "d", "e"]
    assert [document["key"] for document in found] == ["de/train-0.parquet:0"] + [f"en/train-0.parquet:{i}" for i in range(5)]
    assert [document["key"] for document in all_of(parquet(tmp_path / "en/*", key_field="id"))] == list("01234")


def test_what_a_row_has_is_what_msgpack_can_hold(tmp_path):
    row = {"content": "a", "at": datetime.datetime(2024, 2, 1, 3), "price": decimal.Decimal("1.50"), "meta": {"tags": ["x", None], "raw": b"\xff"}}
    pq.write_table(pa.Table.from_pylist([row, row | {"content": None}]), tmp_path / "a.parquet")
    first, second = all_of(parquet(tmp_path / "a.parquet", text_field="content"))
    assert first == {"key": "a.parquet:0", "text": "a", "at": "2024-02-01 03:00:00", "price": "1.50", "meta": row["meta"]}
    assert msgpack.unpackb(msgpack.packb(first)) == first and "text" not in second


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    pq.write_table(pa.table({"body": ["a"], "id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"input.text_field is 'text', but .*a\.parquet has: body, id"):
        parquet(tmp_path / "*").parts()
    with pytest.raises(UserError, match="input.key_field is 'url', but"):
        parquet(tmp_path / "*", text_field="body", key_field="url").parts()


def test_small_row_groups_are_taken_together_by_their_size(tmp_path):
    texts = [f"{i}" * 1000 for i in range(40)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=1, use_dictionary=False, write_statistics=False)
    parts = parquet(tmp_path / "a.parquet").parts()
    assert len(parts) == 40 and all(1000 < part.size < 3000 for part in parts)  # before compression
    assert [len(shard) for shard in together(parts, sum(part.size for part in parts[:25]))] == [25, 15]


def png(*color):
    file = io.BytesIO()
    Image.new("RGB", (4, 3), color).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("as_column", [lambda images: [image and {"bytes": image, "path": "a.png"} for image in images], list])
def test_images_of_a_column_are_the_documents(tmp_path, as_column):
    images = [png(200, 0, 0), png(0, 200, 0), None, png(0, 0, 9)[:40]]
    pq.write_table(pa.table({"picture": as_column(images), "label": [3, 1, 4, 1]}), tmp_path / "a.parquet")
    assert all_of(parquet(tmp_path / "a.parquet", image_field="picture")) == [
        {"key": "a.parquet:0", "label": 3, "image": images[0]},
        {"key": "a.parquet:1", "label": 1, "image": images[1]},
        {"key": "a.parquet:2", "label": 4},
        {"key": "a.parquet:3", "malformed": "an image that cannot be decoded to 8 bits a channel"},
    ]


def test_an_image_may_have_a_text_and_be_named_by_its_path_alone(tmp_path):
    rows = {"image": [{"bytes": png(1, 2, 3), "path": None}, {"bytes": None, "path": "b.png"}], "text": ["red", "green"]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    assert all_of(parquet(tmp_path / "a.parquet", image_field="image")) == [
        {"key": "a.parquet:0", "text": "red", "image": png(1, 2, 3)},
        {"key": "a.parquet:1", "text": "green"},
    ]


def test_a_column_that_holds_no_images_is_refused(tmp_path):
    pq.write_table(pa.table({"url": ["http://a.b/c.png"], "where": [{"path": "c.png"}]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"input.image_field is 'image', but .*a\.parquet has: url, where"):
        parquet(tmp_path / "*", image_field="image").parts()
    with pytest.raises(UserError, match=r"input.image_field is 'url', but in .*a\.parquet that is string: name one"):
        parquet(tmp_path / "*", image_field="url").parts()
    with pytest.raises(UserError, match=r"that is struct<path: string>: name one"):
        parquet(tmp_path / "*", image_field="where").parts()


def test_a_damaged_parquet_file_is_named(tmp_path):
    rng = np.random.default_rng(0)
    pq.write_table(pa.table({"text": [rng.bytes(50).hex() for _ in range(200)]}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for damaged in (b"", b"text", whole[:-10], whole[:100] + bytes(400) + whole[500:]):
        (tmp_path / "a.parquet").write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.parquet cannot be read"):
            all_of(parquet(tmp_path / "a.parquet"))


class Everything(tfds.core.GeneratorBasedBuilder):
    """Texts at all depths, and numbers."""

    VERSION = tfds.core.Version("1.0.0")
    COUNT = EXAMPLES + 3

    def _info(self):
        f = tfds.features
        nested = {"answers": f.Sequence({"text": f.Text(), "start": np.int32}), "words": f.Sequence(f.Text()), "inner": {"title": f.Text()}}
        flat = {"text": f.Text(), "id": f.Text(), "label": f.ClassLabel(names=["no", "yes"]), "vector": f.Tensor(shape=(2,), dtype=np.float32)}
        return self.dataset_info_from_configs(features=f.FeaturesDict(flat | nested))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(self.COUNT), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        for i in range(count):
            nested = {"answers": {"text": ["ä", "b"], "start": [0, 1]}, "words": ["ö"] * (i % 3), "inner": {"title": f"t{i}"}}
            yield i, {"text": f"text {i} é", "id": f"n{i}", "label": i % 2, "vector": [0.5, i]} | nested


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))
    return lambda **fields: Tfds(
        **{"name": "everything", "dir": folder, "split": "train", "text_field": "text", "image_field": None, "key_field": None, "datasets": {"everything": Everything}}
        | fields
    )


def test_examples_are_documents_as_python_has_them(everything):
    found = {document["key"]: document for document in all_of(everything(key_field="id"))}
    assert len(found) == Everything.COUNT
    assert found["n5"] == {
        "key": "n5",
        "text": "text 5 é",
        "id": "n5",
        "label": 1,
        "vector": [0.5, 5.0],
        "answers": {"text": ["ä", "b"], "start": [0, 1]},
        "words": ["ö", "ö"],
        "inner": {"title": "t5"},
    }
    assert msgpack.unpackb(msgpack.packb(found["n5"])) == found["n5"]


def test_parts_of_a_split_are_ranges_of_the_files_it_is_in(everything):
    format = everything(split="train[1:]+test")
    parts = format.parts()
    assert [(part.name, part.start, part.stop) for part in parts] == [
        ("everything/1.0.0/everything-train.array_record-00000-of-00001", 0, 1000),
        ("everything/1.0.0/everything-train.array_record-00000-of-00001", 1000, 1002),
        ("everything/1.0.0/everything-test.array_record-00000-of-00001", 1002, 1004),
    ]
    assert all(open(part.path, "rb").read(1) for part in parts)
    assert [document["key"] for document in format.read(parts[1])] == [f"everything/1.0.0:train[1:]+test:{i}" for i in (1000, 1001)]
    assert {document["text"] for document in format.read(parts[2])} == {"text 0 é", "text 1 é"}


def test_what_a_data_set_does_not_have_is_refused(everything):
    with pytest.raises(UserError, match="input.text_field is 'body', but everything/1.0.0:train has: text, id, label, vector, answers, words, inner"):
        everything(text_field="body").parts()
    with pytest.raises(UserError, match="input.key_field is 'url', but"):
        everything(key_field="url").parts()
    with pytest.raises(UserError, match="no split 'dev'"):
        everything(split="dev").parts()
    with pytest.raises(UserError, match="input.name is not set"):
        everything(name=None).parts()


class Pictures(tfds.core.GeneratorBasedBuilder):
    """Two images, given as the bytes of their files: TFDS needs TensorFlow to encode others."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"picture": tfds.features.Image(), "label": np.int64}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(2):
            yield i, {"picture": io.BytesIO(b"bytes of %d" % i), "label": i}


def test_the_image_of_a_data_set_without_text_is_the_document(tmp_path):
    format = Tfds(name="pictures", dir=str(tmp_path), split="train", text_field="text", image_field=None, key_field=None, datasets={"pictures": Pictures})
    found = sorted(all_of(format), key=lambda document: document["label"])
    assert [(document["image"], document["label"]) for document in found] == [(b"bytes of 0", 0), (b"bytes of 1", 1)]


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_that_are_named_become_the_file_of_an_image(tmp_path, channels):
    pixels = np.arange(4 * 5 * channels, dtype=np.uint8).reshape(4, 5, channels)

    class Pixels(tfds.core.GeneratorBasedBuilder):
        name = f"pixels_{channels}"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"pixels": tfds.features.Tensor(shape=(4, 5, channels), dtype=np.uint8), "text": tfds.features.Text()}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": [(0, {"pixels": pixels, "text": "a picture"})]}

        def _generate_examples(self):
            raise NotImplementedError

    fields = dict(dir=str(tmp_path), split="train", text_field="text", image_field="pixels", key_field=None, datasets={"pixels": Pixels})
    (found,) = all_of(Tfds(name="pixels", **fields))
    assert found["text"] == "a picture" and "pixels" not in found
    with Image.open(io.BytesIO(found["image"])) as image:
        assert np.array_equal(np.asarray(image).reshape(4, 5, channels), pixels)


def response(html, content_type="text/html", status="200 OK", kind="response", **headers):
    """(kind, HTTP headers, payload) of a record."""
    fields = [("Content-Type", content_type), *((name.replace("_", "-"), value) for name, value in headers.items())]
    return kind, StatusAndHeaders(status, fields, protocol="HTTP/1.1"), html


def warc(path, records, compress=True):
    with open(path, "wb") as file:
        writer = WARCWriter(file, gzip=compress)
        for i, (kind, http, payload) in enumerate(records):
            headers = {"WARC-Date": "2024-02-01T03:04:05Z"}
            record = writer.create_warc_record(f"https://a.b/{i}", kind, io.BytesIO(payload), http_headers=http, warc_headers_dict=headers)
            writer.write_record(record)
    return Warc(files=str(path))


@pytest.mark.parametrize("compress", [True, False])
def test_pages_of_a_crawl_come_with_where_and_when(tmp_path, compress):
    records = [
        ("warcinfo", None, b"software: x"),
        response("<p>für</p>".encode()),
        response(b"GIF89a", "image/gif"),
        response(b"<p>gone</p>", status="404 Not Found"),
        response(b"", kind="request"),
        response(b""),
        response(gzip.compress(b"<p>packed</p>"), "application/xhtml+xml; charset=utf-8", Content_Encoding="gzip"),
        response(b"7\r\n<p>ch</\r\n2\r\np>\r\n0\r\n\r\n", Transfer_Encoding="chunked"),
        response(b"whatever", Content_Encoding="br"),
        ("metadata", None, b"x: y"),
    ]
    suffix = "warc.gz" if compress else "warc"
    found = all_of(warc(tmp_path / f"a.{suffix}", records, compress))
    assert found[0] == {"key": f"a.{suffix}:1", "url": "https://a.b/1", "date": "2024-02-01T03:04:05Z", "text": "<p>für</p>"}
    assert [document.get("text") for document in found] == ["<p>für</p>", "", "<p>packed</p>", "<p>ch</p>", None]
    assert [document["key"].rpartition(":")[2] for document in found] == ["1", "5", "6", "7", "8"]
    assert found[4]["malformed"] == "a content encoding that cannot be undone"


def test_texts_of_a_wet_file_are_utf_8_whatever_they_say(tmp_path):
    texts = ["Grüße <meta charset=gb2312>", "日本"]
    format = warc(tmp_path / "a.warc.wet.gz", [("conversion", None, text.encode()) for text in texts])
    assert [(document["text"], document["url"]) for document in all_of(format)] == [(texts[0], "https://a.b/0"), (texts[1], "https://a.b/1")]


@pytest.mark.parametrize("compress", [True, False])
def test_a_warc_file_that_was_cut_off_is_named_wherever_that_was(tmp_path, compress):
    path = tmp_path / ("a.warc.gz" if compress else "a.warc")
    format = warc(path, [response(b"<p>one</p>"), response(b"<p>two</p>" * 50)], compress)
    whole = path.read_bytes()
    second = whole.rindex(b"\x1f\x8b\x08" if compress else b"WARC/1.0")
    assert len(all_of(format)) == 2
    for cut in range(second + 20, len(whole) - 10, 7):  # the last bytes are a checksum, or blank
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"a\.warc.*damaged"):
            all_of(format)


def test_a_broken_record_is_named(tmp_path):
    path = tmp_path / "a.warc"
    format = warc(path, [response(b"<p>one</p>"), response(b"<p>two</p>")], compress=False)
    whole = path.read_bytes()
    longer = [whole.replace(b"<p>one</p>", b"<p>one</p>" + more) for more in (b" and more", b" and\nmore")]
    for damaged in (b"no WARC at all\r\n\r\n" * 3, whole.replace(b"WARC/1.0", b"BROKEN!!"), *longer):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"(?s)a\.warc .*damaged"):
            all_of(format)


@pytest.mark.parametrize(
    "data, charset, text",
    [
        ("für".encode(), None, "für"),
        ("für".encode("latin-1"), "ISO-8859-1", "für"),
        ("“a” – €".encode("cp1252"), "iso-8859-1", "“a” – €"),
        ('<meta charset="shift_jis">日本①'.encode("cp932"), None, '<meta charset="shift_jis">日本①'),
        (
            "<META http-equiv=a content='text/html; charset=gb2312'>镕".encode("gbk"),
            None,
            "<META http-equiv=a content='text/html; charset=gb2312'>镕",
        ),
        ("<meta charset=utf-16>für".encode(), None, "<meta charset=utf-16>für"),
        ("<meta charset=latin-1>für".encode(), "utf-8", "<meta charset=latin-1>für"),
        ("für <meta charset=cp1252>".encode("cp1252"), "utf-8", "für <meta charset=cp1252>"),
        ("für".encode(), "no-such-charset", "für"),
        ("für".encode(), "rot13", "für"),
        ("für".encode("utf-16"), "latin-1", "für"),
        ("\ufefffür".encode(), "latin-1", "für"),
        ("日本".encode()[:-1], "utf-8", "日\ufffd"),
        ("日本".encode("euc_jp")[:-1], "euc-jp", "日\ufffd"),
        (b"", None, ""),
    ],
)
def test_a_page_is_read_in_the_encoding_that_it_or_its_server_says(data, charset, text):
    assert page_text(data, charset) == text


PAGE = "<page><title>{}</title><ns>{}</ns>{}<revision><text>{}</text></revision></page>"
PROSE = "'''London''' is the [[capital city|capital]] of [[England]].{{cite}}"


def export(pages):
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{"".join(pages)}</mediawiki>'.encode()


def test_articles_of_an_export_are_their_prose(tmp_path):
    pages = [
        PAGE.format("London", 0, "", PROSE),
        PAGE.format("Londres", 0, '<redirect title="London" />', "#REDIRECT"),
        PAGE.format("Talk:London", 1, "", "x"),
        PAGE.format("Empty", 0, "", ""),
    ]
    data = export(pages)
    (tmp_path / "plain.xml").write_bytes(data)
    (tmp_path / "dump.xml.bz2").write_bytes(bz2.compress(data[:200]) + bz2.compress(data[200:]))  # as multistream dumps are
    for name in ("plain.xml", "dump.xml.bz2"):
        assert all_of(Wikitext(files=str(tmp_path / name))) == [
            {"key": "London", "title": "London", "text": "London is the capital of England."},
            {"key": "Empty", "title": "Empty", "text": ""},
        ]


def test_a_broken_export_is_named(tmp_path):
    data = export([PAGE.format("London", 0, "", PROSE)] * 3)
    for name, damaged in (("a.xml", data[:-50]), ("a.xml", b""), ("a.xml", b"no XML"), ("a.xml.bz2", bz2.compress(data)[:-20])):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{name} cannot be read"):
            all_of(Wikitext(files=str(tmp_path / name)))


def test_memory_does_not_grow_with_the_number_of_pages(tmp_path):
    def most(pages):
        (tmp_path / "a.xml").write_bytes(export([PAGE.format("Talk:A", 1, "", "x" * 100)] * pages))
        tracemalloc.start()
        assert all_of(Wikitext(files=str(tmp_path / "a.xml"))) == []
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return memory

    most(10)
    assert most(8000) < 2 * most(1000)
