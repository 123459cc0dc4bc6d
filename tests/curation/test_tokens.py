"""Tokens as the last stage of a preparation: what is counted, what is kept, and that training finds both."""

import hashlib
import json
import shutil

import pytest

from research import build, prepare
from research.core import config as config_lib
from research.core.errors import UserError
from research.curation import preparation
from research.curation.engine import Engine
from research.curation.tokens import Tokens, count
from research.data import text
from research.data import tokenizer as tokenizers
from research.data.packing import PackedText
from research.reports import funnel
from tests.curation.test_preparation import FIELDS, everything, recipe
from tests.data.test_text import Lines
from tests.tiny import tiny_config

GPT = dict(model__name="gpt", model__norm="pre", model__vocab_size=300, objective__name="causal_lm", data__source="packed_text", data__name="made")
BYTE_BPE = Tokens(tokenizers.train_byte_bpe, 280, 16, None)


def prepared(tmp_path, tokens=BYTE_BPE, workers=1, **more):
    """(the recipe, what the manifest says of its tokens), as the command leaves them."""
    made = recipe(tmp_path, ("fields", FIELDS), tokens=tokens, **more)
    manifest, _ = preparation.prepare(made, Engine(workers, []))
    made.tokens.store(made.place, manifest["splits"])
    return made, manifest["tokens"]


@pytest.fixture(scope="module")
def shared(cache, tmp_path_factory):
    """(the recipe, what its manifest says of its tokens, its input and data set): only to be read."""
    folder = tmp_path_factory.mktemp("shared")
    return *prepared(folder), folder


def test_tokens_are_counted_as_they_are():
    tokenizer = tokenizers.train_wordpiece([["ab cd ef"]], 60)
    documents = Lines("all", [["ab cd", "ef"], ["ab ab ? ?"], [""], ["ef"]])
    found = count(tokenizer, documents, None)
    ids = [[i for part in document for i in tokenizer.encode(part, add_special_tokens=False).ids] for document in documents]
    everything, sizes = sum(ids, []), sorted(map(len, ids))
    assert (found["documents"], found["tokens"]) == (4, len(everything))
    assert found["tokens_per_word"] == round(len(everything) / 8, 4) and found["characters_per_token"] == round((5 + 2 + 9 + 2) / len(everything), 4)
    assert found["unknown"] == round(2 / len(everything), 6) > 0  # the question marks
    assert found["vocabulary_used"] == round(len(set(everything)) / tokenizer.get_vocab_size(), 4) < 1
    assert found["tokens_of_a_document"] == {"1%": 0, "25%": 0, "50%": sizes[1], "75%": sizes[2], "99%": sizes[3]}
    assert "rows" not in found


@pytest.mark.parametrize("length", [1, 7, 16, 1000])
def test_rows_are_those_of_packed_text(cache, length):
    documents = Lines("packed", [["ab cd."], [""], ["ef " * 20], ["g"]])
    tokenizer = tokenizers.train_byte_bpe([["ab cd ef g"]], 270)
    found = count(tokenizer, documents, length)
    rows = PackedText(text.token_store(documents, tokenizer), length, tokenizers.vocabulary(tokenizer))
    assert (found["rows"], found["packing_efficiency"]) == (len(rows), rows.manifest["packing_efficiency"])


def test_documents_without_a_token_are_told():
    with pytest.raises(UserError, match="nothing has no text"):
        count(tokenizers.train_wordpiece([["ab"]], 60), Lines("nothing", [[""], [" \u200e"]]), 16)


def test_a_run_finds_the_tokenizer_and_the_tokens(shared, tmp_path, monkeypatch):
    made, counted, folder = shared
    monkeypatch.setattr(text, "_write_store", lambda *_: pytest.fail("tokenised again"))
    monkeypatch.setattr(tokenizers, "TRAINERS", {})
    config = tiny_config(data__dir=str(folder / "out"), data__tokenizer_type="wordpiece", **GPT)
    corpus = build.make_corpus(config, tmp_path / "run")
    assert corpus.text_tools()[0].to_str() == tokenizers.load_tokenizer(made.place / "tokenizer.json").to_str()
    assert corpus.text_tools()[1].size == counted["vocabulary"] <= 280
    for split, of in counted["splits"].items():
        manifest = build.examples_of(config, corpus, split, 16, True).manifest
        assert (manifest["number_of_tokens"], manifest["number_of_documents"]) == (of["tokens"], of["documents"])
        assert (manifest["number_of_rows"], manifest["packing_efficiency"]) == (of["rows"], of["packing_efficiency"])
    with pytest.raises(UserError, match=f"the tokenizer has {counted['vocabulary']} tokens, config.model.vocab_size is 100"):
        build.objective(tiny_config(**GPT | dict(model__vocab_size=100)), corpus.vocabulary)


def test_sentences_are_found_by_what_wants_sentences(cache, tmp_path, monkeypatch):
    _, counted = prepared(tmp_path, Tokens(tokenizers.train_wordpiece, 100, None, "en"))
    monkeypatch.setattr(text, "_write_store", lambda *_: pytest.fail("tokenised again"))
    config = tiny_config(data__dir=str(tmp_path / "out"), data__name="made", data__source="text_views", objective__name="simcse")
    corpus = build.make_corpus(config, tmp_path / "run")
    assert build.examples_of(config, corpus, "train", 32, True).manifest["number_of_tokens"] == counted["splits"]["train"]["tokens"]


def test_what_a_run_or_its_user_has_comes_before_the_tokenizer_of_the_data(shared, tmp_path):
    made, _, folder = shared
    other = tokenizers.train_wordpiece([["ab cd"]], 60)
    for name in ("run", "given", "earlier"):
        (tmp_path / name).mkdir()
        other.save(str(tmp_path / name / "tokenizer.json"))
    (tmp_path / "earlier" / "config.json").write_text('{"model_type": "gpt2"}')
    where = dict(data__dir=str(folder / "out"), **GPT)
    found = lambda workdir, **more: build.make_corpus(tiny_config(**where, **more), tmp_path / workdir).text_tools()[0].to_str()
    assert found("new") == tokenizers.load_tokenizer(made.place / "tokenizer.json").to_str()
    assert found("run") == found("new", data__tokenizer=str(tmp_path / "given" / "tokenizer.json")) == other.to_str()
    assert found("new", init__from=str(tmp_path / "earlier")) == other.to_str()


@pytest.mark.parametrize("train", tokenizers.TRAINERS.values(), ids=tokenizers.TRAINERS)
def test_the_same_again_is_the_same_to_the_byte(shared, tmp_path, train):
    made, counted, _ = shared
    one, other = (shutil.copytree(made.place, tmp_path / name) for name in ("one", "other"))
    tokens = Tokens(train, 320, 16, None)
    assert tokens.describe(one, counted["splits"]) == tokens.describe(other, counted["splits"])
    assert everything(one) == everything(other) != everything(made.place)


def test_the_manifest_has_the_tokenizer_and_every_split(shared):
    made, counted, _ = shared
    manifest = json.loads((made.place / "manifest.json").read_text())
    assert manifest["output"]["tokenizer.json"] == hashlib.sha256((made.place / "tokenizer.json").read_bytes()).hexdigest()
    assert manifest["tokens"] == counted and set(counted["splits"]) == {"train", "validation"}


@pytest.mark.slow
def test_one_worker_or_several_make_the_same_tokens(cache, tmp_path):
    (one, _), (several, _) = prepared(tmp_path, out="one"), prepared(tmp_path, workers=2, out="several")
    assert everything(one.place) == everything(several.place)


def test_a_preparation_killed_at_its_tokens_leaves_nothing_and_goes_on(shared, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("research.curation.tokens.count", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepared(tmp_path)
    assert not (tmp_path / "out" / "made" / "1.0.0").exists()
    made, _ = prepared(tmp_path)
    assert everything(made.place) == everything(shared[0].place)


def test_the_report_has_a_row_for_each_split(shared, tmp_path):
    made, counted, _ = shared
    header, body = funnel.tokens(counted)
    told = dict(zip(header, (cell.text for cell in body[1])))
    of = counted["splits"]["validation"]
    assert told["split"] == "validation" and told["tokens"] == f"{of['tokens']:,}" and told["a word"] == f"{of['tokens_per_word']:.2f}"
    assert told["of a document, 50%"] == str(of["tokens_of_a_document"]["50%"]) and told["rows of 16"] == f"{of['rows']:,}"
    funnel.write(json.loads((made.place / "manifest.json").read_text()), tmp_path)
    assert f"{counted['splits']['train']['tokens']:,}" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    "fields, message",
    [
        (["tokens.type=sentencepiece"], "config.tokens.type is 'sentencepiece': choose one of wordpiece, byte_bpe, unigram"),
        (["tokens.type=unigram", "output.fields=('image',)"], "tokens.type is unigram, but output.fields, image, have no text"),
        (
            ["tokens.type=unigram", "tokens.length=8", "tokens.language=en"],
            "tokens.length is of rows of packed_text.* leave out that or tokens.language",
        ),
    ],
)
def test_what_cannot_be_tokenised_is_told_before_anything_is_read(tmp_path, fields, message):
    (tmp_path / "a.jsonl").touch()
    argv = ["prepare", "--config=configs/data/base.py", f"--config.input.files={tmp_path / 'a.jsonl'}", *(f"--config.{field}" for field in fields)]
    with pytest.raises(UserError, match=message):
        prepare.recipe(config_lib.parse(argv)[1])


def test_the_command_keeps_the_tokens_and_says_how_to_train_on_them(cache, tmp_path, capsys):
    recipe(tmp_path)  # its input
    fields = f"input.files={tmp_path / 'in' / '*.jsonl'} output.dir={tmp_path / 'out'} rules=('fields',) tokens.type=byte_bpe tokens.vocab_size=270".split()
    argv = ["prepare", "--config=configs/data/base.py", "--workers=1", *(f"--config.{field}" for field in fields)]
    stores = lambda: set((cache / "tokens").glob("mine-*"))
    before = stores()
    for made in (2, 0):  # splits; the second time all is there
        prepare.main(argv)
        assert len(stores() - before) == made
        before = stores()
        assert f"--config.data.name=mine --config.data.dir={tmp_path / 'out'} --config.model.vocab_size=270 " in capsys.readouterr().out


@pytest.mark.parametrize("size", [3, 48])
def test_a_vocabulary_larger_than_asked_for_is_refused(shared, tmp_path, size):
    made, counted, _ = shared
    with pytest.raises(UserError, match=rf"the tokenizer has \d+ tokens, tokens.vocab_size is {size}: .* raise it"):
        Tokens(tokenizers.train_wordpiece, size, None, None).describe(shutil.copytree(made.place, tmp_path / "copy"), counted["splits"])
