"""How alike embeddings are, each with each of the global batch, and the losses and measures that are made of it.

N is the examples of the global batch, B those same rows as they lie split over the devices, E the dimensions of an embedding. Similarities are
kept as (B, N), split by rows: no device holds N x N of them. `valid` False rows neither count nor serve as negatives.
"""

import jax
import jax.numpy as jnp

from research.core.sharding import constrain
from research.core.types import Mean

LOWEST = jnp.finfo(jnp.float32).min


def similarities(a_BE, b_NE):
    """Inner products (B, N) float32 of every row of the one with every row of the other, split by rows."""
    b_NE = constrain(b_NE, None, None)
    return constrain(jnp.einsum("BE,NE->BN", a_BE, b_NE, preferred_element_type=jnp.float32), "batch", None)


def diagonal(x_BN):
    """x_B: of each row the entry of its own column."""
    return jnp.sum(jnp.where(same(x_BN), x_BN, 0), axis=1)


def same(x_BN):
    return constrain(jnp.arange(x_BN.shape[0])[:, None] == jnp.arange(x_BN.shape[1]), "batch", None)


def among(valid, logits_BN):
    """The logits of what is valid, and each row's own so that what is not valid has a finite loss too; all others as low as can be."""
    return jnp.where(valid | same(logits_BN), logits_BN, LOWEST)


def rank(x_BN, valid_N):
    """(B,) how many other columns are at least as similar to a row as its own: 0 where that is the nearest. A tie counts against it."""
    above_BN = (x_BN >= diagonal(x_BN)[:, None]) & valid_N & ~same(x_BN)
    return above_BN.sum(1)


def own_among(candidates, valid_B):
    """(losses, nearest), each (B,): -log of the softmax of a row's own column of the first of `candidates`, among all columns of all; whether it is
    the highest. candidates: logits, each (B, N).
    """
    own_BN, others = among(valid_B, candidates[0]), [jnp.where(valid_B, x_BN, LOWEST) for x_BN in candidates[1:]]
    positive_B = diagonal(candidates[0])
    log_z_B = jax.nn.logsumexp(jnp.stack([jax.nn.logsumexp(x_BN, axis=1) for x_BN in (own_BN, *others)]), axis=0)
    nearest_B = rank(candidates[0], valid_B) == 0
    for x_BN in others:
        nearest_B &= x_BN.max(1) < positive_B
    return log_z_B - positive_B, nearest_B


def nt_xent(a_BE, b_BE, temperature: float, valid_B):
    """NT-Xent (arXiv 2002.05709, eq. 1) of both views of each example, whose negatives are all views of all others.

    a_BE, b_BE of length 1 -> (losses (2, B) float32, nearest (2, B) bool: whether the other view is the most similar).
    """
    found = []
    for x_BE, other_BE in ((a_BE, b_BE), (b_BE, a_BE)):
        across_BN, within_BN = similarities(x_BE, other_BE) / temperature, similarities(x_BE, x_BE) / temperature
        found.append(own_among([across_BN, jnp.where(same(within_BN), LOWEST, within_BN)], valid_B))  # eq. 1: k != i
    losses, nearest = zip(*found)
    return jnp.stack(losses), jnp.stack(nearest)


def info_nce(logits_BN, valid_B):
    """(losses from rows to columns, from columns to rows), each (B,): cross-entropy of the diagonal among what is valid (arXiv 2103.00020, figure 3).

    The softmax down the columns is over the split dimension: what crosses the devices is a maximum and a sum for each column.
    """
    rows_B, columns_B = (jax.nn.logsumexp(among(mask, logits_BN), axis) for mask, axis in ((valid_B, 1), (valid_B[:, None], 0)))
    positive_B = diagonal(logits_BN)
    return rows_B - positive_B, constrain(columns_B, "batch") - positive_B


def pairwise_sigmoid(logits_BN, valid_B):
    """(B,): for each row the sum over columns of -log sigmoid(z logits), z = 1 on the diagonal and -1 elsewhere (arXiv 2303.15343, eq. 1)."""
    signs_BN = jnp.where(same(logits_BN), 1.0, -1.0)
    return -jnp.sum(jnp.where(valid_B, jax.nn.log_sigmoid(signs_BN * logits_BN), 0), axis=1)


def uniformity(x_BE, valid_B) -> Mean:
    """log of the mean over pairs of exp(-2 |x - y|^2) (arXiv 2005.10242, eq. 3), x_BE of length 1. All in one point: 0; the lowest is -4.

    Over several batches it is the mean of theirs, each weighted by its pairs.
    """
    pairs_BN = valid_B[:, None] & valid_B & ~same(jnp.empty((len(valid_B), len(valid_B))))
    closeness_BN = jnp.exp(-4 + 4 * similarities(x_BE, x_BE))  # |x - y|^2 = 2 - 2 x.y
    count = jnp.sum(pairs_BN, dtype=jnp.float32)
    mean = jnp.sum(jnp.where(pairs_BN, closeness_BN, 0)) / jnp.maximum(count, 1)
    return Mean(jnp.where(count > 0, jnp.log(jnp.maximum(mean, 1e-30)), 0) * count, count)


def alignment(a_BE, b_BE, valid_B) -> Mean:
    """The mean of |x - y|^2 over positive pairs (arXiv 2005.10242, eq. 2), of length 1: from 0 to 4."""
    return Mean.of(jnp.sum((a_BE - b_BE) ** 2, axis=1), valid_B)


def recalls(similarities_BN, valid_B, names: tuple[str, str]):
    """Of how many the counterpart is among the 1 and 5 most similar of the batch, looked for both ways."""
    first, second = names
    metrics: dict[str, Mean] = {}
    # The transpose by a second product in `similarities` would cost more than comparing down the columns of this one.
    above_BN = (similarities_BN >= diagonal(similarities_BN)[None]) & valid_B[:, None] & ~same(similarities_BN)
    for name, rank_B in ((f"{first}_to_{second}", rank(similarities_BN, valid_B)), (f"{second}_to_{first}", above_BN.sum(0))):
        metrics |= {f"in_batch_{name}_recall_at_{k}": Mean.of(rank_B < k, valid_B) for k in (1, 5)}
    return metrics


@jax.custom_vjp
def at_most(x, highest):
    """min(x, highest), with the gradient of a parameter that is cut back after each step: at the limit it may still be led down, but not up."""
    return jnp.minimum(x, highest)


at_most.defvjp(
    lambda x, highest: (jnp.minimum(x, highest), x >= highest),
    lambda limited, gradient: (jnp.where(limited, jnp.maximum(gradient, 0), gradient), None),
)
