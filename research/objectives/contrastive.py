"""Contrastive learning: what belongs together is drawn together, and away from all else in the global batch.

`valid` False rows neither count nor serve as negatives. What is made of the similarities is in similarity.py.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core import linen
from research.core.errors import UserError
from research.core.types import Mean, Vocabulary, view
from research.models.heads import ProjectionHead
from research.models.two_tower import unit
from research.objectives.similarity import alignment, at_most, info_nce, nt_xent, own_among, pairwise_sigmoid, recalls, similarities, uniformity

MAX_SCALE = 100.0  # of similarities under CLIP (arXiv 2103.00020, section 2.5)


class _OneModel:
    """What NtXent and SimCse share: one model sees every view, and a head stands on it in training only."""

    separable = False
    views: tuple[str, ...]

    def __post_init__(self):
        if hasattr(self.model, "towers"):
            raise UserError(f"objective {type(self).__name__} shows all views to one model: choose one that is not two_tower.")

    @property
    def example_batch(self):
        inputs = batch_inputs(self.model.inputs(self.batch_size, self.length))
        return {f"{name}/{key}": x for name in self.views for key, x in inputs.items()} | {"valid": jax.ShapeDtypeStruct((self.batch_size,), bool)}

    @property
    def _calls(self):
        model = linen.Call(self.model, (linen.zeros(self.model.inputs(1, self.length)),), "embed")
        head = linen.Call(self.head, (jnp.zeros((1, self.model.width)),))
        return {"": model} | ({"projection": head} if self.projection_width else {})

    def init(self, rng):
        return linen.init_all(self._calls, rng)

    @property
    def logical_axes(self):
        return linen.all_logical_axes(self._calls)

    def _project(self, params, embedding_BD):
        """What the loss compares: the embedding, or what the head makes of it."""
        return linen.apply(self.head, params["projection"], None, embedding_BD) if self.projection_width else embedding_BD


@dataclasses.dataclass(frozen=True)
class NtXent(_OneModel):
    """SimCLR (Chen et al., arXiv 2002.05709): two augmentations of an image find each other among those of all others.

    loss = mean over views of -log exp(sim(z_i, z_j) / t) / sum over k != i of exp(sim(z_i, z_k) / t) (eq. 1), z_i = W2 relu(W1 h_i).

    Batch: `first/image`, `second/image` (B, H, W, C) uint8, `valid` (B,) bool. Parameters: those of the model, and beside them `projection`, the
    two layers that make z of h and that only this objective uses: h is the embedding. The metric `contrastive_accuracy` is how often the
    other view is the nearest of the 2 N - 1: by chance 1 / (2 N - 1).
    """

    model: nn.Module
    batch_size: int
    length: int
    temperature: float = 0.1
    projection_width: int = 128
    views = ("first", "second")

    @property
    def head(self):
        return ProjectionHead(self.model.config, (self.model.width, self.projection_width))

    def loss_fn(self, params, batch, rng):
        keys = (None, None) if rng is None else jax.random.split(rng)
        embeddings = (linen.apply(self.model, params, key, view(batch, name), method="embed") for name, key in zip(self.views, keys))
        first_BE, second_BE = (unit(self._project(params, x)) for x in embeddings)
        losses, nearest = nt_xent(first_BE, second_BE, self.temperature, batch["valid"])
        weights = jnp.broadcast_to(batch["valid"], losses.shape)
        return {"nt_xent_loss": Mean.of(losses, weights)}, {"contrastive_accuracy": Mean.of(nearest, weights)}


@dataclasses.dataclass(frozen=True)
class SimCse(_OneModel):
    """SimCSE (Gao et al., arXiv 2104.08821): embeddings of texts.

    loss = mean over texts of -log exp(sim(h_i, h_i') / t) / sum over j of [exp(sim(h_i, h_j') / t) + exp(sim(h_i, h_j-) / t)].

    Unsupervised (eq. 4) h' is the same text, or what is left of it when other words are left out, under another dropout, and there are no h-; in
    evaluation nothing but dropout tells the two apart, so that it has that too, of fixed keys. Supervised (eq. 5) h' is an entailed text and h- a
    contradicting one.

    Batch: `first/tokens`, `first/token_types` (B, T) int32, `first/mask` (B, T) bool, the same of second/, supervised of third/ too; `valid` (B,) bool.
    Parameters: those of the model, and beside them `projection`, a tanh layer that only training uses; none with projection_width 0. Metrics:
    `contrastive_accuracy`, how often h' is the nearest; `alignment` and `uniformity` (arXiv 2005.10242) of the model's embeddings, without that layer: lower is better. Uniformity is
    measured without dropout.
    """

    model: nn.Module
    vocabulary: Vocabulary
    batch_size: int
    length: int
    temperature: float = 0.05
    projection_width: int = 128
    supervised: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not self.supervised and not self.model.config.dropout:
            raise UserError("simcse sees a text twice under different dropout, and model.dropout is 0: set it to 0.1, or objective.supervised=True.")

    @property
    def views(self):
        return ("first", "second", "third") if self.supervised else ("first", "second")

    @property
    def head(self):
        return ProjectionHead(self.model.config, (self.projection_width,))

    def loss_fn(self, params, batch, rng):
        valid_B = batch["valid"]
        fixed = jax.random.key(0) if rng is None and not self.supervised else rng
        keys = [None] * len(self.views) if fixed is None else jax.random.split(fixed, len(self.views))
        embeddings = [linen.apply(self.model, params, key, view(batch, name), method="embed") for name, key in zip(self.views, keys)]
        anchor_BE, *others = (unit(jnp.tanh(self._project(params, x)) if self.projection_width else x) for x in embeddings)
        losses_B, nearest_B = own_among([similarities(anchor_BE, x_BE) / self.temperature for x_BE in others], valid_B)
        metrics = {"contrastive_accuracy": Mean.of(nearest_B, valid_B), "alignment": alignment(*(unit(x) for x in embeddings[:2]), valid_B)}
        if rng is None:
            plain = linen.apply(self.model, params, None, view(batch, "first"), method="embed")
            metrics["uniformity"] = uniformity(unit(plain), valid_B)
        return {"simcse_loss": Mean.of(losses_B, valid_B)}, metrics


class _TwoTowers:
    """What Clip and SigLip share."""

    separable = False

    def __post_init__(self):
        if not hasattr(self.model, "towers"):
            raise UserError(f"objective {type(self).__name__} is of pairs: choose model.name=two_tower.")

    @property
    def example_batch(self):
        return batch_inputs(self.model.inputs(self.batch_size, self.length)) | {"valid": jax.ShapeDtypeStruct((self.batch_size,), bool)}

    def init(self, rng):
        return linen.init(self.model, rng, linen.zeros(self.model.inputs(1, self.length)), method="towers")

    @property
    def logical_axes(self):
        return linen.logical_axes(self.model, linen.zeros(self.model.inputs(1, self.length)), method="towers")


@dataclasses.dataclass(frozen=True)
class Clip(_TwoTowers):
    """CLIP (Radford et al., arXiv 2103.00020): image and text find each other among the pairs of the batch.

    loss = mean over pairs of half the cross-entropy of each given the other, logits = scale * similarity, scale learned and at most 100 (figure 3).

    Batch: what the towers take, as `first/image`, `second/tokens`, ...; `valid` (B,) bool. Metrics: recall at 1 and 5 within the batch, both ways;
    over a whole split where one evaluation batch holds it. Chance: k / N.
    """

    model: nn.Module
    batch_size: int
    length: int
    vocabulary: Vocabulary | None = None

    def loss_fn(self, params, batch, rng):
        valid_B = batch["valid"]
        first_BE, second_BE, log_scale = linen.apply(self.model, params, rng, batch, method="towers")
        similarities_BN = similarities(first_BE, second_BE)
        scale = jnp.exp(at_most(log_scale, math.log(MAX_SCALE)))
        rows_B, columns_B = info_nce(scale * similarities_BN, valid_B)
        metrics = recalls(similarities_BN, valid_B, self.model.kinds) | {"scale": Mean.of(scale, jnp.ones(()))}
        return {"clip_loss": Mean.of((rows_B + columns_B) / 2, valid_B)}, metrics


@dataclasses.dataclass(frozen=True)
class SigLip(_TwoTowers):
    """SigLIP (Zhai et al., arXiv 2303.15343): each image with each text of the batch is a case of its own, a pair or none.

    loss = 1 / N * sum over i, j of -log sigmoid(z_ij (scale * similarity_ij + bias)) (eq. 1), scale and bias learned. The paper begins at a scale of
    10, which is model.temperature=0.1, and a bias of -10.

    Batch and metrics: as Clip's. Parameters: those of the model, and beside them `bias`.
    """

    model: nn.Module
    batch_size: int
    length: int
    vocabulary: Vocabulary | None = None
    initial_bias: float = -10.0

    def init(self, rng):
        return super().init(rng) | {"bias": jnp.float32(self.initial_bias)}

    @property
    def logical_axes(self):
        return super().logical_axes | {"bias": ()}

    def loss_fn(self, params, batch, rng):
        valid_B = batch["valid"]
        first_BE, second_BE, log_scale = linen.apply(self.model, params, rng, batch, method="towers")
        similarities_BN, scale = similarities(first_BE, second_BE), jnp.exp(log_scale)
        losses_B = pairwise_sigmoid(scale * similarities_BN + params["bias"], valid_B)
        learned = {"scale": Mean.of(scale, jnp.ones(())), "bias": Mean.of(params["bias"], jnp.ones(()))}
        return {"siglip_loss": Mean.of(losses_B, valid_B)}, recalls(similarities_BN, valid_B, self.model.kinds) | learned


def batch_inputs(inputs):
    """The arrays of a batch for a model that takes `inputs`: sources give the types of tokens to all who read text, used or not."""
    return inputs | {name.replace("tokens", "token_types"): x for name, x in inputs.items() if name.endswith("tokens")}
