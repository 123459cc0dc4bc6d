"""The command, on a run whose parameters are as random as they began: what it says is nonsense, but the same nonsense each time."""

import contextlib
import io
import json
import re
import shutil

import jax
import pytest

from research import build, generate, restore
from research.core import config as config_lib
from research.core.errors import run_command
from research.data.tokenizer import load_tokenizer, train_byte_bpe, vocabulary
from research.training.checkpoint import Checkpoints
from tests.tiny import tiny_config
from tests.tiny_text import document

CONTEXT = 32
GPT = dict(model__name="gpt", model__vocab_size=320, model__norm="pre", objective__name="causal_lm", data__source="packed_text")
GPT |= dict(run__best_metric="validation/loss", data__length=CONTEXT, model__initializer_stddev=0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a language model as training would leave it, on step 0."""
    workdir = tmp_path_factory.mktemp("gpt")
    tokenizer = train_byte_bpe([[document(i, 0)] for i in range(5)], 300)  # fewer tokens than the model has rows
    tokenizer.save(str(workdir / "tokenizer.json"))
    config = tiny_config(**GPT)
    (workdir / "config.json").write_text(config_lib.to_json(config))
    e = build.experiment(restore.fitting(config, []), vocabulary(tokenizer))
    checkpoints = Checkpoints(workdir, best_metric=config.run.best_metric)
    checkpoints.save(jax.jit(e.init, out_shardings=e.shardings)(), {"step": 0}, None)
    checkpoints.close()
    return workdir


@contextlib.contextmanager
def said():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


def call(workdir, *arguments):
    """(what the command prints, what it says on stderr)"""
    with said() as (out, err):
        generate.main(["generate", f"--workdir={workdir}", *arguments])
    return out.getvalue(), err.getvalue()


def results(workdir, *arguments):
    return [json.loads(line) for line in call(workdir, "--json", *arguments)[0].splitlines()]


def error(workdir, *arguments):
    with pytest.raises(SystemExit) as stopped, said() as (out, _):
        run_command(generate.main, ["generate", f"--workdir={workdir}", *arguments])
    assert isinstance(stopped.value.code, str) and "\n" not in stopped.value.code and out.getvalue() == ""
    return stopped.value.code


@pytest.fixture(scope="module")
def drawn(run):
    """One prompt, 12 tokens, as JSON."""
    return results(run, "--prompt=Da db", "--max_tokens=12")[0]


def test_one_prompt_streams_and_says_how_fast(run, drawn):
    out, err = call(run, "--prompt=Da db", "--max_tokens=12")
    assert drawn["finish"] == "length" and drawn["tokens"] == 12 and drawn["prompt"] == "Da db"
    assert out == "Da db" + drawn["text"] + "\n"
    tokens = len(load_tokenizer(run / "tokenizer.json").encode("Da db").ids)
    took = r"tokens in [\d.]+ s \([\d,]+ tokens/s\)"
    assert re.fullmatch(rf"prefill: {tokens} {took}; decode: 11 {took}; compilation, not counted: [\d.]+ s\n", err)


def test_pieces_are_printed_as_tokens_come(run, drawn, monkeypatch):
    """At each token asked for, all that is certain of those before it has been printed."""
    seen, real = [], generate.decode.stream

    def stream(*args):
        for chosen_B in real(*args):
            seen.append(out.getvalue())
            yield chosen_B

    monkeypatch.setattr(generate.decode, "stream", stream)
    with said() as (out, _):
        generate.main(["generate", f"--workdir={run}", "--prompt=Da db", "--max_tokens=12"])
    seen = [text for text in seen if text]
    assert len(seen) == 12 and seen[0] == "Da db" and len(set(seen)) > 3
    assert all(("Da db" + drawn["text"]).startswith(text) for text in seen)


def test_a_prompt_goes_on_the_same_in_any_company(run, drawn, tmp_path):
    (tmp_path / "prompts.txt").write_text("Ab ac ad ae\nDa db\nC\n")
    arguments = (f"--file={tmp_path / 'prompts.txt'}", "--max_tokens=12", "--samples=2", "--batch_size=4")  # two batches, of which one is filled up
    found = results(run, *arguments)
    assert [(r["prompt"], r["sample"]) for r in found] == [(p, s) for p in ("Ab ac ad ae", "Da db", "C") for s in (0, 1)]
    assert found[2] == drawn
    assert len({r["text"] for r in found}) == 6
    printed = call(run, *arguments)[0]
    assert printed == "---\n".join(f"{r['prompt']}{r['text']}\n" for r in found)


def test_a_stop_string_ends_the_text_before_it(run, drawn):
    stop = drawn["text"][4:6]
    at = drawn["text"].index(stop)
    found = results(run, "--prompt=Da db", "--max_tokens=12", f"--stop={stop}", "--stop=never said")[0]
    assert (found["text"], found["finish"]) == (drawn["text"][:at], "stop") and found["tokens"] < 12
    assert call(run, "--prompt=Da db", "--max_tokens=12", f"--stop={stop}")[0] == "Da db" + drawn["text"][:at] + "\n"


def test_seeds_differ_and_cold_draws_do_not(run, drawn):
    assert results(run, "--prompt=Da db", "--max_tokens=12", "--seed=1")[0]["text"] != drawn["text"]
    cold = ("--prompt=Da db", "--max_tokens=12", "--temperature=0")
    assert results(run, *cold) == results(run, *cold, "--seed=1")


def test_the_text_stops_where_the_context_does(run):
    tokens = len(load_tokenizer(run / "tokenizer.json").encode("Da db").ids)
    out, err = call(run, "--prompt=Da db", "--max_tokens=100", "--json")
    found = json.loads(out)
    assert (found["finish"], found["tokens"]) == ("context", CONTEXT - tokens)
    assert err.startswith(f"the context has {CONTEXT} tokens and the prompt {tokens}: its text stops after {CONTEXT - tokens} tokens, not 100.\n")


def test_beams_print_the_best_texts(run):
    arguments = ("--prompt=Da db", "--max_tokens=4", "--beams=3", "--samples=2")
    first, second = results(run, *arguments)
    assert first["score"] > second["score"] and first["text"] != second["text"] and (first["sample"], second["sample"]) == (0, 1)
    assert call(run, *arguments)[0] == f"Da db{first['text']}\n---\nDa db{second['text']}\n"


def test_bad_input_is_one_line(run, tmp_path):
    prompt = "--prompt=Da db"
    long = "da db " * CONTEXT
    tokens = len(load_tokenizer(run / "tokenizer.json").encode(long).ids)
    assert f"has {tokens} tokens, this run's context {CONTEXT}" in error(run, f"--prompt={long}")
    assert "a prompt is empty" in error(run, "--prompt=  ")
    assert "say what the text begins with" in error(run)
    (tmp_path / "prompts.txt").write_text("a\n\nb\n")
    assert "say what the text begins with" in error(run, prompt, f"--file={tmp_path / 'prompts.txt'}")
    assert f"a line of {tmp_path / 'prompts.txt'} is empty" in error(run, f"--file={tmp_path / 'prompts.txt'}")
    (tmp_path / "none.txt").write_text("")
    assert "none.txt is empty" in error(run, f"--file={tmp_path / 'none.txt'}")
    assert "cannot be read" in error(run, f"--file={tmp_path / 'absent.txt'}")
    for flag in ("--max_tokens=0", "--temperature=-1", "--top_k=0", "--top_p=1.5", "--top_p=0", "--repetition_penalty=0", "--samples=0", "--stop="):
        assert flag[2:].split("=")[0] in error(run, prompt, flag), flag
    assert "all 2 samples would be the same" in error(run, prompt, "--temperature=0", "--samples=2")
    assert "leave out --top_k" in error(run, prompt, "--beams=2", "--top_k=3")
    assert "raise --beams" in error(run, prompt, "--beams=2", "--samples=3")
    assert "no finished checkpoint at step 7" in error(run, prompt, "--step=7")


def test_a_run_that_is_no_language_model_is_refused(run, tmp_path):
    (tmp_path / "config.json").write_text(config_lib.to_json(tiny_config()))
    shutil.copy(run / "tokenizer.json", tmp_path)
    assert "trained for masked_lm, which generates no text" in error(tmp_path, "--prompt=Da db")
