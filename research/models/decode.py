"""Text from a causal language model: prefill, one-token steps with a key-value cache, sampling, beam search.

B rows, T prompt tokens, S slots of the cache, V vocabulary, W beams, C candidates, N tokens to come. Prompts of different lengths are padded on
the right. Slot s of the cache holds the token of position s, so a row's own tokens overwrite its padding before they can see it, and rows know
nothing of each other.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from research.core.linen import apply
from research.core.sharding import split_rows
from research.models.attention import Mask


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A model that decodes (see Gpt: `cache`, and a call that takes one) and its tokens: those from `vocab_size` on are never chosen."""

    model: nn.Module
    vocab_size: int
    end: int  # the token that ends a text


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is chosen, in this order: penalty, temperature, top-k, top-p."""

    temperature: float = 1.0  # divides the logits; 0: always the likeliest
    top_k: int | None = None  # choose among so many
    top_p: float | None = None  # choose among the fewest that have this probability
    repetition_penalty: float = 1.0  # over 1: what the row has already becomes less likely


class State(NamedTuple):
    """Between steps. token_B, int32, was chosen last and goes to position_B of the cache; seen_BV says which tokens the row has."""

    cache: Any
    token_B: jax.Array
    position_B: jax.Array
    seen_BV: jax.Array
    done_B: jax.Array


def bucket(n: int, largest: int) -> int:
    """The length that stands for n, so that few are compiled: a power of two from 16 on, at most `largest`."""
    return min(max(16, 1 << (n - 1).bit_length()), largest)


def pad(prompts: list[list[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """tokens_BT int32, padded on the right with 0 to T = length, and lengths_B int32."""
    tokens_BT = np.zeros((len(prompts), length), np.int32)
    for row, prompt in zip(tokens_BT, prompts):
        row[: len(prompt)] = prompt
    return tokens_BT, np.array([len(prompt) for prompt in prompts], np.int32)


def forward(decoder: Decoder, params, cache, tokens_BT, positions_BT):
    """(logits_BTV float32, cache): the model's, each token seeing the slots up to its own position."""
    logits_BTV, cache = apply(decoder.model, params, None, tokens_BT, positions_BT, Mask(positions_BT=positions_BT, causal=True), cache)
    return jnp.where(jnp.arange(logits_BTV.shape[-1]) < decoder.vocab_size, logits_BTV, -jnp.inf), cache


@functools.partial(jax.jit, static_argnums=(0, 1))
def prefill(decoder: Decoder, slots: int, params, tokens_BT, lengths_B) -> State:
    """The state from which the first step chooses the token after the prompts, tokens_BT int32 of lengths_B.

    It keeps no logits, so that none is computed for any of the T tokens: the first step runs the last token again.
    """
    B, T = tokens_BT.shape
    positions_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
    logits_BTV, cache = forward(decoder, params, decoder.model.cache(B, slots), tokens_BT, positions_BT)
    real_BT, rows_B = positions_BT < lengths_B[:, None], jnp.arange(B)
    seen_BV = jnp.zeros((B, logits_BTV.shape[-1]), bool).at[rows_B[:, None], tokens_BT].max(real_BT)
    return State(cache, tokens_BT[rows_B, lengths_B - 1], lengths_B - 1, seen_BV, jnp.zeros(B, bool))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def step(decoder: Decoder, sampling: Sampling, params, keys_B, state: State) -> tuple[jax.Array, State]:
    """(chosen_B int32, state): the next token of each row; -1 where the row has ended, by its end token or because the cache is full.

    A row draws with its own key and position, so that what it draws depends on no neighbour.
    """
    logits_B1V, cache = forward(decoder, params, state.cache, state.token_B[:, None], state.position_B[:, None])
    keys_B = jax.vmap(jax.random.fold_in)(keys_B, state.position_B)
    token_B = choose(sampling, logits_B1V[:, 0], state.seen_BV, keys_B)
    done_B = state.done_B | (token_B == decoder.end) | (state.position_B + 1 >= cache["key"].shape[2])
    seen_BV = state.seen_BV.at[jnp.arange(len(token_B)), token_B].set(True)
    position_B = jnp.where(done_B, state.position_B, state.position_B + 1)
    return jnp.where(done_B, -1, token_B), State(cache, token_B, position_B, seen_BV, done_B)


def stream(decoder: Decoder, sampling: Sampling, params, tokens_BT, lengths_B, keys_B, max_tokens: int, slots: int) -> Iterator[np.ndarray]:
    """Yields chosen_B (see `step`) as it comes, at most max_tokens times, until all rows have ended. The device works on the next token meanwhile."""
    state = prefill(decoder, slots, params, tokens_BT, lengths_B)
    chosen_B, state = step(decoder, sampling, params, keys_B, state)
    for left in reversed(range(max_tokens)):
        ahead = step(decoder, sampling, params, keys_B, state) if left else None
        now_B = np.asarray(chosen_B)
        if (now_B < 0).all():
            return
        yield now_B
        if ahead is not None:
            chosen_B, state = ahead


class Completed(NamedTuple):
    """Rows (B, S) of prompt and completion: what the model chose is where mask_BS, bool, is True, the end token among it, with its log-probability."""

    tokens_BS: jax.Array
    mask_BS: jax.Array
    log_probs_BS: jax.Array  # float32; 0 elsewhere


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def complete(decoder: Decoder, temperature: float, max_tokens: int, params, tokens_BT, lengths_B, keys_B) -> Completed:
    """Goes on from the prompts, tokens_BT int32 of lengths_B, by at most `max_tokens` tokens, all of it on the devices: S = T + max_tokens.

    Draws with a row's own key and position, as `step` does, from the softmax of logits / temperature, whose logarithm it keeps.
    """
    tokens_BT, lengths_B, keys_B = split_rows((tokens_BT, lengths_B, keys_B))
    (B, T), rows_B = tokens_BT.shape, jnp.arange(len(tokens_BT))
    slots = T + max_tokens
    padded_BS = jnp.pad(jnp.where(jnp.arange(T) < lengths_B[:, None], tokens_BT, 0), ((0, 0), (0, max_tokens)))
    begin = split_rows(Completed(padded_BS, jnp.zeros((B, slots), bool), jnp.zeros((B, slots))))

    def goes_on(carry):
        n, state, _ = carry
        return (n < max_tokens) & ~state.done_B.all()

    def draw(carry):
        n, state, made = carry
        logits_B1V, cache = forward(decoder, params, state.cache, state.token_B[:, None], state.position_B[:, None])
        log_p_BV = jax.nn.log_softmax(logits_B1V[:, 0] / temperature)
        token_B = jax.vmap(jax.random.categorical)(jax.vmap(jax.random.fold_in)(keys_B, state.position_B), log_p_BV).astype(jnp.int32)
        at_B, draws_B = state.position_B + 1, ~state.done_B
        put = lambda x_BS, new_B: x_BS.at[rows_B, at_B].set(jnp.where(draws_B, new_B, x_BS[rows_B, at_B]))
        made = split_rows(Completed(put(made.tokens_BS, token_B), put(made.mask_BS, draws_B), put(made.log_probs_BS, log_p_BV[rows_B, token_B])))
        done_B = state.done_B | (token_B == decoder.end)
        return n + 1, State(cache, token_B, jnp.where(done_B, state.position_B, at_B), state.seen_BV, done_B), made

    state = prefill(decoder, slots, params, tokens_BT, lengths_B)
    return jax.lax.while_loop(goes_on, draw, (0, state, begin))[2]


def choose(sampling: Sampling, logits_BV, seen_BV, keys_B):
    """token_B int32, drawn from the softmax of the logits as `sampling` bends them, with one key a row; the likeliest at temperature 0."""
    logits_BV = penalise(logits_BV, seen_BV, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits_BV.argmax(-1).astype(jnp.int32)
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_k is not None:
        logits_BV = keep_top_k(logits_BV, sampling.top_k)
    if sampling.top_p is not None:
        logits_BV = keep_top_p(logits_BV, sampling.top_p)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def penalise(logits_BV, seen_BV, penalty: float):
    """CTRL's repetition penalty (arXiv 1909.05858, section 4.1): logits of tokens seen are divided by it, or multiplied where they are negative."""
    if penalty == 1:
        return logits_BV
    return jnp.where(seen_BV, jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty), logits_BV)


def keep_top_k(logits_BV, k: int):
    """-inf but for the k largest, and those equal to the smallest of them."""
    least_B1 = jax.lax.top_k(logits_BV, min(k, logits_BV.shape[-1]))[0][:, -1:]
    return jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)


def keep_top_p(logits_BV, p: float):
    """-inf but for the nucleus (arXiv 1904.09751, eq. 2): the fewest tokens whose probability reaches p, and those equal to the least of them."""
    sorted_BV = jnp.sort(logits_BV, descending=True)
    probability_BV = jax.nn.softmax(sorted_BV)
    before_BV = jnp.cumsum(probability_BV, -1) - probability_BV  # of all that are likelier; 0 for the first, which always stays
    least_B1 = jnp.where((before_BV < p) | (jnp.arange(sorted_BV.shape[-1]) == 0), sorted_BV, jnp.inf).min(-1, keepdims=True)
    return jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)


def length_penalty(length, alpha: float):
    """((5 + |Y|) / 6)^alpha (arXiv 1609.08144, eq. 14), by which the log-probability of a text is divided."""
    return ((5 + length) / 6) ** alpha


class Beams(NamedTuple):
    """Of beam search: the W best unended texts of each row by log-probability, and the W best ended ones by score, with their lengths."""

    alive_BW: jax.Array  # float32; -inf where there are fewer than W
    tokens_BWN: jax.Array
    ended_BW: jax.Array  # float32
    ended_tokens_BWN: jax.Array
    ended_length_BW: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def beam_search(decoder: Decoder, beams: int, max_tokens: int, params, state: State, alpha, at_most):
    """The best texts after a prefilled state, of at most `at_most` <= max_tokens tokens, best first.

    -> tokens_BWN and lengths_BW int32, scores_BW float32. A score is log-probability / length_penalty(length, alpha), where length counts the end token. A text that the limit or the end of the cache
    cuts off counts as ended. tokens_BWN has -1 after the text, without its end token; a score of -inf means that there are fewer than W texts.
    """
    B, W, N, V = len(state.token_B), beams, max_tokens, state.seen_BV.shape[-1]
    slots, begins_B = state.cache["key"].shape[2], state.position_B
    limit_B1 = jnp.minimum(at_most, slots - 1 - begins_B)[:, None]
    none_BW, none_BWN = jnp.full((B, W), -jnp.inf), jnp.full((B, W, N), -1, jnp.int32)
    first = Beams(none_BW.at[:, 0].set(0.0), none_BWN, none_BW, none_BWN, jnp.zeros((B, W), jnp.int32))
    take = lambda x, index_BW: jax.vmap(lambda x, index: x[index])(x, index_BW)

    def body(carry):
        n, cache, token_BW, b = carry
        positions_BW = jnp.broadcast_to((begins_B + jnp.minimum(n, limit_B1[:, 0]))[:, None], (B, W))
        logits, cache = forward(decoder, params, cache, token_BW.reshape(B * W, 1), positions_BW.reshape(B * W, 1))
        total_BWV = b.alive_BW[..., None] + jax.nn.log_softmax(logits.reshape(B, W, V))
        # At most W of the best 2 W end here: W go on.
        total_BC, index_BC = jax.lax.top_k(total_BWV.reshape(B, W * V), min(2 * W, W * V))
        from_BC, token_BC = index_BC // V, (index_BC % V).astype(jnp.int32)
        is_end_BC, last = token_BC == decoder.end, n + 1 >= limit_B1
        tokens_BCN = take(b.tokens_BWN, from_BC).at[:, :, n].set(jnp.where(is_end_BC, -1, token_BC))
        ends_BC = (is_end_BC | last) & (n < limit_B1)
        score_BC = jnp.where(ends_BC, total_BC / length_penalty(n + 1.0, alpha), -jnp.inf)
        ended_BW, best_BW = jax.lax.top_k(jnp.concatenate([b.ended_BW, score_BC], 1), W)
        length_BC = jnp.broadcast_to(n + 1 - is_end_BC, is_end_BC.shape)
        ended = [take(jnp.concatenate(both, 1), best_BW) for both in ((b.ended_tokens_BWN, tokens_BCN), (b.ended_length_BW, length_BC))]
        alive_BW, best_BW = jax.lax.top_k(jnp.where(is_end_BC | last, -jnp.inf, total_BC), W)
        rows = (jnp.arange(B)[:, None] * W + take(from_BC, best_BW)).reshape(-1)
        cache = jax.tree.map(lambda x: x[:, rows], cache)
        return n + 1, cache, take(token_BC, best_BW), Beams(alive_BW, take(tokens_BCN, best_BW), ended_BW, *ended)

    def goes_on(carry):
        n, _, _, b = carry
        hope_B = b.alive_BW.max(1) / length_penalty(limit_B1[:, 0], alpha)  # log-probabilities only fall, the penalty is at most this
        return (n < at_most) & jnp.any(hope_B > b.ended_BW.min(1))

    cache = jax.tree.map(lambda x: jnp.repeat(x, W, axis=1), state.cache)
    token_BW = jnp.broadcast_to(state.token_B[:, None], (B, W))
    *_, b = jax.lax.while_loop(goes_on, body, (0, cache, token_BW, first))
    return b.ended_tokens_BWN, b.ended_length_BW, b.ended_BW
