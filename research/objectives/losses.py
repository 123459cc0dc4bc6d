"""What several objectives share."""

import jax
import jax.numpy as jnp


def cross_entropy(logits, labels, label_smoothing: float = 0.0):
    """-log softmax(logits)[labels]: logits (..., C) float32, labels (...) int -> (...) float32.

    With label smoothing s the label has 1 - s of the probability and all C share s (arXiv 1512.00567, section 7).
    """
    log_z = jax.nn.logsumexp(logits, axis=-1)
    loss = log_z - jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return loss if label_smoothing == 0 else (1 - label_smoothing) * loss + label_smoothing * (log_z - logits.mean(-1))


def token_log_probs(logits_BTV, tokens_BT, vocab_size: int, temperature: float = 1.0):
    """log p(tokens[t] | tokens[<t]) -> (B, T) float32, which the logits at t - 1 tell; 0 at the first token, of which nothing is told.

    logits_BTV float32, tokens_BT int32. The softmax is that of which research/models/decode.py draws: ids from `vocab_size` on are no tokens and have
    no probability, and logits are divided by the temperature.
    """
    log_p_BT = -cross_entropy(_drawn_from(logits_BTV, vocab_size, temperature), jnp.roll(tokens_BT, -1, axis=1))
    return told_before(log_p_BT)


def token_entropy(logits_BTV, vocab_size: int, temperature: float = 1.0):
    """The entropy of what tokens[t] is drawn from, in nats -> (B, T) float32; 0 at the first token. Arguments as above."""
    log_p_BTV = jax.nn.log_softmax(_drawn_from(logits_BTV, vocab_size, temperature))
    # 0 log 0 is 0, and has no gradient.
    return told_before(-jnp.sum(jnp.exp(log_p_BTV) * jnp.where(jnp.isfinite(log_p_BTV), log_p_BTV, 0), axis=-1))


def _drawn_from(logits_BTV, vocab_size: int, temperature: float):
    return jnp.where(jnp.arange(logits_BTV.shape[-1]) < vocab_size, logits_BTV / temperature, -jnp.inf)


def told_before(x_BT):
    """From where the logits are to the token that they tell. All T are moved, which shards as T - 1 would not; the last comes first, and goes."""
    return jnp.where(jnp.arange(x_BT.shape[1]) > 0, jnp.roll(x_BT, 1, axis=1), 0)
