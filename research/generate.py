"""A run of a language model + prompts -> how they go on.

    python -m research.generate --workdir=runs/gpt --prompt="The history of" --max_tokens=100
        [--temperature=1 --top_k=50 --top_p=0.9 --repetition_penalty=1.2 --seed=0 --samples=1]  how a token is drawn; temperature 0: the likeliest
        [--beams=4 --length_penalty=0.6]  search for the likeliest text instead; --samples=N prints the N best
        [--stop=TEXT ...]  end before this text
        [--prompt=... ... | --file=prompts.txt] [--batch_size=16]  several prompts, or a file with one a line
        [--json] [--step=N]

One text is printed as it comes, several when they are done; --json prints one object a line. Tokens per second go to stderr, compilation not counted.
"""

import json
import pathlib
import sys
import time
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from configs import base
from research import build, restore
from research.core import config as config_lib
from research.core.errors import UserError, run_command
from research.data.text_stream import TextStream
from research.data.tokenizer import load_tokenizer, vocabulary
from research.models import decode


def main(argv):
    values, config = config_lib.parse_run(argv, base.get_config(), define)
    workdir, config = pathlib.Path(values.workdir), restore.fitting(config, argv)
    if not getattr(build.objective_class(config), "generates", False):
        raise UserError(f"this run was trained for {config.objective.name}, which generates no text: a run of causal_lm does.")
    sampling, prompts = check_flags(values), read_prompts(values)
    tokenizer = load_tokenizer(workdir / "tokenizer.json")
    e = build.experiment(config, vocabulary(tokenizer, config.data.end_token))
    model = e.objective.model
    if not hasattr(model, "cache"):
        raise UserError(f"config.model.name is {config.model.name!r}, which has no `cache` to decode with: see research/models/gpt.py.")
    context = e.objective.length  # as trained: of positions past it the model knows nothing
    ids = encode(prompts, tokenizer, context, values.max_tokens)
    _, params = restore.trained_params(e, workdir, values.step)
    decoder = decode.Decoder(model, tokenizer.get_vocab_size(), e.objective.vocabulary.end)
    samples, size = (1, max(1, values.batch_size // values.beams)) if values.beams else (values.samples, values.batch_size)
    requests = [Request(prompt, of_prompt, sample) for prompt, of_prompt in zip(prompts, ids) for sample in range(samples)]
    batches, speed = Batches(requests, size, values.max_tokens, context), Speed()
    streamed = len(requests) == 1 and not values.beams and not values.json
    if values.beams:
        results = search(decoder, params, batches, tokenizer, values, speed)
    else:
        results = draw(decoder, sampling, params, batches, tokenizer, values, speed, streamed)
    for i, found in enumerate(results):
        if values.json:
            print(json.dumps(found, ensure_ascii=False), flush=True)
        elif not streamed:
            print("---\n" * (i > 0) + found["prompt"] + found["text"], flush=True)
    print(speed.report(), file=sys.stderr)


def define(values):
    number, real = flags.DEFINE_integer, flags.DEFINE_float
    flags.DEFINE_multi_string("prompt", [], "What the text begins with; may be repeated.", flag_values=values)
    flags.DEFINE_string("file", None, "A file of prompts, one a line.", flag_values=values)
    number("max_tokens", 100, "How many tokens at most.", lower_bound=1, flag_values=values)
    real("temperature", 1.0, "Divides the logits; 0: always the likeliest.", flag_values=values)
    number("top_k", None, "Draw among so many tokens.", lower_bound=1, flag_values=values)
    real("top_p", None, "Draw among the fewest tokens that have this probability.", flag_values=values)
    real("repetition_penalty", 1.0, "Over 1: what the text has already becomes less likely.", flag_values=values)
    number("beams", None, "Beam search with so many.", lower_bound=1, flag_values=values)
    real("length_penalty", 0.6, "Of beam search: 0 favours short texts, 1 long ones.", lower_bound=0.0, flag_values=values)
    flags.DEFINE_multi_string("stop", [], "End before this text; may be repeated.", flag_values=values)
    number("seed", 0, "Of what is drawn.", flag_values=values)
    number("samples", 1, "Texts of each prompt.", lower_bound=1, flag_values=values)
    number("batch_size", 16, "Texts computed at once.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("json", False, "Print JSON lines.", flag_values=values)
    number("step", None, "Which checkpoint; absent: the latest.", flag_values=values)


def check_flags(values) -> decode.Sampling:
    """How tokens are drawn. Raises UserError for flags that contradict each other or have no meaning."""
    if not values.temperature >= 0:  # which nan is not either
        raise UserError(f"--temperature is {values.temperature}: it is at least 0, which takes the likeliest.")
    if values.top_p is not None and not 0 < values.top_p <= 1:
        raise UserError(f"--top_p is {values.top_p}: it is a probability over 0, 0.9 for instance.")
    if not values.repetition_penalty > 0:
        raise UserError(f"--repetition_penalty is {values.repetition_penalty}: it is over 0; 1 is none, 1.2 is usual.")
    if "" in values.stop:
        raise UserError("--stop is empty: every text begins with that.")
    if values.samples > 1 and not values.beams and values.temperature == 0:
        raise UserError(f"at --temperature=0 all {values.samples} samples would be the same: raise it, or leave out --samples.")
    if values.beams:
        drawing = [name for name in ("temperature", "top_k", "top_p", "repetition_penalty") if values[name].value != values[name].default]
        if drawing:
            raise UserError(f"--beams draws nothing but searches for the likeliest text: leave out --{drawing[0]}.")
        if values.samples > values.beams:
            raise UserError(f"--beams={values.beams} finds {values.beams} texts, --samples asks for {values.samples}: raise --beams.")
    return decode.Sampling(values.temperature, values.top_k, values.top_p, values.repetition_penalty)


def read_prompts(values) -> list[str]:
    if bool(values.prompt) == (values.file is not None):
        raise UserError('say what the text begins with: --prompt="The history of", or --file=prompts.txt with one prompt a line.')
    if values.file is None:
        prompts, where = values.prompt, "a prompt"
    else:
        try:
            prompts, where = pathlib.Path(values.file).read_text(encoding="utf-8").splitlines(), f"a line of {values.file}"
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"--file={values.file} cannot be read ({e}).") from e
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise UserError(f"{where} is empty: a text begins with something." if prompts else f"{values.file} is empty: give it one prompt a line.")
    return prompts


def encode(prompts: list[str], tokenizer, context: int, max_tokens: int) -> list[list[int]]:
    """The tokens of each prompt, with that which begins a text where the tokenizer has one.

    Raises UserError where one leaves no room in the context; says on stderr where one leaves less than max_tokens.
    """
    ids = [encoding.ids for encoding in tokenizer.encode_batch(prompts)]
    for prompt, of_prompt in zip(prompts, ids):
        if not of_prompt:
            raise UserError(f"the prompt {prompt!r} has no token that the tokenizer of this run knows.")
        if len(of_prompt) >= context:
            begins = f"{prompt[:40]!r}{'...' * (len(prompt) > 40)}"
            raise UserError(f"the prompt {begins} has {len(of_prompt)} tokens, this run's context {context}, text to come included: shorten it.")
    longest = max(map(len, ids))
    if longest + max_tokens > context:
        room = f"the context has {context} tokens and the {'longest ' * (len(ids) > 1)}prompt {longest}"
        print(f"{room}: its text stops after {context - longest} tokens, not {max_tokens}.", file=sys.stderr)
    return ids


class Request(NamedTuple):
    prompt: str
    ids: list[int]
    sample: int


class Batches:
    """Requests in batches of one shape, so that one compilation serves all: the last is filled up with its last request."""

    def __init__(self, requests: list[Request], size: int, max_tokens: int, context: int):
        self.requests, self.size, self.context = requests, min(size, len(requests)), context
        longest = max(len(request.ids) for request in requests)
        self.length = decode.bucket(longest, context)
        self.slots = decode.bucket(min(longest + max_tokens, context), context)

    def __iter__(self) -> Iterator[tuple[list[Request], list[Request], np.ndarray, np.ndarray]]:
        """(requests, requests with the filling, tokens_BT, lengths_B)"""
        for begin in range(0, len(self.requests), self.size):
            batch = self.requests[begin : begin + self.size]
            filled = batch + batch[-1:] * (self.size - len(batch))
            yield batch, filled, *decode.pad([request.ids for request in filled], self.length)


def draw(decoder, sampling, params, batches: Batches, tokenizer, values, speed: "Speed", streamed: bool) -> Iterator[dict]:
    """A result for each request, in order. Streamed, its text is printed as it comes."""
    write = (lambda piece: print(piece, end="", flush=True)) if streamed else (lambda piece: None)
    for batch, filled, tokens_BT, lengths_B in batches:
        keys_B = jnp.stack([row_key(values.seed, request) for request in filled])
        stream = lambda max_tokens: decode.stream(decoder, sampling, params, tokens_BT, lengths_B, keys_B, max_tokens, batches.slots)
        speed.compile(lambda: list(stream(2)))  # prefill, a step after it, a step after a step
        texts = [TextStream(tokenizer, request.ids, values.stop) for request in batch]
        write(batch[0].prompt)
        begin, first = time.perf_counter(), None
        for chosen_B in stream(values.max_tokens):
            first = first or time.perf_counter()
            for text, token in zip(texts, chosen_B):
                if token >= 0 and not text.stopped:
                    write(text.push(int(token)))
            if all(text.stopped or token < 0 for text, token in zip(texts, chosen_B)):
                break
        end = time.perf_counter()
        first = first or end
        speed.add(lengths_B[: len(batch)].sum(), first - begin, sum(max(text.tokens - 1, 0) for text in texts), end - first)
        for request, text in zip(batch, texts):
            write(text.close() + "\n")
            yield result(request, text, values.max_tokens, batches.context)


def result(request: Request, text: TextStream, max_tokens: int, context: int, **more) -> dict:
    """What --json prints. `finish` is why the text ends: a stop string, its end token, no room in the context, or max_tokens (length)."""
    full = "context" if len(request.ids) + text.tokens >= context else "end"
    finish = "stop" if text.stopped else "length" if text.tokens == max_tokens else full
    return {"prompt": request.prompt, "sample": request.sample, "text": text.text, "tokens": text.tokens, "finish": finish} | more


def row_key(seed: int, request: Request) -> jax.Array:
    """A prompt's samples are the same in whatever company it comes, and those of different prompts independent."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), zlib.crc32(request.prompt.encode())), request.sample)


def search(decoder, params, batches: Batches, tokenizer, values, speed: "Speed") -> Iterator[dict]:
    """The best texts that beam search finds for each request, in order."""
    for batch, _, tokens_BT, lengths_B in batches:
        prefill = lambda: jax.block_until_ready(decode.prefill(decoder, batches.slots, params, tokens_BT, lengths_B))
        find = lambda state, at_most: jax.device_get(
            decode.beam_search(decoder, values.beams, values.max_tokens, params, state, values.length_penalty, at_most)
        )
        speed.compile(lambda: find(prefill(), 1))
        begin = time.perf_counter()
        state = prefill()
        middle = time.perf_counter()
        tokens_BWN, lengths_BW, scores_BW = find(state, values.max_tokens)
        speed.add(lengths_B[: len(batch)].sum(), middle - begin, lengths_BW[: len(batch), : values.samples].sum(), time.perf_counter() - middle)
        for request, tokens_WN, lengths_W, scores_W in zip(batch, tokens_BWN, lengths_BW, scores_BW):
            for w in np.flatnonzero(np.isfinite(scores_W))[: values.samples]:
                text = TextStream(tokenizer, request.ids, values.stop)
                for token in tokens_WN[w, : lengths_W[w]]:
                    if not text.stopped:
                        text.push(int(token))
                text.close()
                yield result(request._replace(sample=int(w)), text, values.max_tokens, batches.context, score=float(scores_W[w]))


class Speed:
    """Tokens per second, of prompts and of what comes after them; compilation apart."""

    def __init__(self):
        self._compilation, self._sums = None, np.zeros(4)

    def compile(self, run):
        """Calls `run` the first time it is asked to, so that what is measured later has been compiled."""
        if self._compilation is None:
            begin = time.perf_counter()
            run()
            self._compilation = time.perf_counter() - begin

    def add(self, prompt_tokens, prompt_seconds, tokens, seconds):
        self._sums += prompt_tokens, prompt_seconds, tokens, seconds

    def report(self) -> str:
        def rate(tokens, seconds):
            return f"{tokens:.0f} tokens in {seconds:.3f} s" + (f" ({tokens / seconds:,.0f} tokens/s)" if tokens else "")

        prompt, prompt_seconds, tokens, seconds = self._sums
        return f"prefill: {rate(prompt, prompt_seconds)}; decode: {rate(tokens, seconds)}; compilation, not counted: {self._compilation:.1f} s"


if __name__ == "__main__":
    run_command(main)
