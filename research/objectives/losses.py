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
