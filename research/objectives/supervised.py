"""Supervised objectives: a backbone, and on top of it a linear head beside the backbone's parameters, under "head".

Each has `predicts`, which says what the head tells (see research/predict.py), and a pure `predict(params, inputs) -> {name: array}`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core import linen
from research.core.errors import UserError
from research.core.types import Mean, Vocabulary
from research.models.heads import Head
from research.objectives.losses import cross_entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Supervised:
    """What all share. Parameters: those that `method` of the model uses, so that a pretrained run can be gone on from, and `head`.

    Raises UserError where the model does not read what the objective is about.
    """

    model: nn.Module
    batch_size: int
    length: int = 0  # tokens of an example; images have none
    separable = True
    method = "embed"  # embed: one vector of an example; encode: one of each token
    reads = "tokens"

    def __post_init__(self):
        if self.reads not in getattr(self.model, "inputs", lambda *_: {})(1, self.length):
            what = "images: choose model.name=vit" if self.reads == "image" else "text: choose model.name bert or gpt"
            raise UserError(f"{type(self).__name__} reads {what}, not {type(self.model).__name__}.")
        if not self.outputs > 0 or "classes" in self._fields and self.outputs < 2:
            raise UserError(f"objective.classes is {self.outputs}: there are at least 2.")
        for field in {"label_smoothing"} & self._fields:
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"objective.{field} is {getattr(self, field)}: it must be at least 0, and under 1.")

    @property
    def _fields(self) -> set[str]:
        return {field.name for field in dataclasses.fields(self)}

    @property
    def outputs(self) -> int:
        """C, of the head."""
        return getattr(self, "classes")  # a field of all that have no other outputs

    @property
    def head(self) -> Head:
        return Head(self.model.config, self.outputs)

    @property
    def labels(self):
        """What a batch holds besides the inputs and `valid`."""
        return {"label": jax.ShapeDtypeStruct((self.batch_size,), jnp.int32)}

    @property
    def inputs(self):
        tokens = jax.ShapeDtypeStruct((self.batch_size, self.length), jnp.int32)
        return {"tokens": tokens, "token_types": tokens, "mask": jax.ShapeDtypeStruct(tokens.shape, bool)}

    @property
    def example_batch(self):
        return self.inputs | self.labels | {"valid": jax.ShapeDtypeStruct((self.batch_size,), bool)}

    @property
    def _calls(self):
        model = linen.Call(self.model, (linen.zeros(self.model.inputs(1, self.length)),), self.method)
        return {"": model, "head": linen.Call(self.head, (jnp.zeros((1, self.model.width)),))}

    def init(self, rng):
        return linen.init_all(self._calls, rng)

    @property
    def logical_axes(self):
        return linen.all_logical_axes(self._calls)

    def logits(self, params, inputs, rng):
        """(B, C) float32, or (B, T, C) where `method` is encode."""
        model_rng, head_rng = (None, None) if rng is None else jax.random.split(rng)
        x = linen.apply(self.model, params, model_rng, inputs, method=self.method)
        return linen.apply(self.head, params["head"], head_rng, x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceClassification(Supervised):
    """The class of a text or a pair of texts (arXiv 1810.04805, section 4.1): loss = mean of -log p(label).

    Batch: `tokens`, `token_types` (B, T) int32, `mask` (B, T) bool, `label` (B,) int32, `valid` (B,) bool.
    """

    vocabulary: Vocabulary
    classes: int = 2
    label_smoothing: float = 0.0
    predicts = "label"

    def loss_fn(self, params, batch, rng):
        logits_BC = self.logits(params, batch, rng)
        loss_B = cross_entropy(logits_BC, batch["label"], self.label_smoothing)
        return {"classification_loss": Mean.of(loss_B, batch["valid"])}, accuracies(logits_BC, batch["label"], batch["valid"])

    def predict(self, params, inputs):
        """probabilities (B, C) float32."""
        return {"probabilities": jax.nn.softmax(self.logits(params, inputs, None))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceRegression(Supervised):
    """A score of a text or a pair of texts: loss = mean squared error. Batch: as above, `label` float32."""

    vocabulary: Vocabulary
    outputs = 1
    predicts = "score"

    @property
    def labels(self):
        return {"label": jax.ShapeDtypeStruct((self.batch_size,), jnp.float32)}

    def loss_fn(self, params, batch, rng):
        error_B = self.logits(params, batch, rng)[:, 0] - batch["label"]
        return {"squared_error": Mean.of(error_B**2, batch["valid"])}, {"absolute_error": Mean.of(abs(error_B), batch["valid"])}

    def predict(self, params, inputs):
        """score (B,) float32."""
        return {"score": self.logits(params, inputs, None)[:, 0]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenClassification(Supervised):
    """The class of each word, told at its first token (arXiv 1810.04805, section 5.3): loss = mean over labelled tokens of -log p(label).

    Batch: `tokens`, `token_types` (B, T) int32, `mask` (B, T) bool, `labels` (B, T) int32, -1 where a token does not count, `valid` (B,) bool.
    """

    vocabulary: Vocabulary
    classes: int = 2
    label_smoothing: float = 0.0
    method = "encode"
    predicts = "word labels"

    @property
    def labels(self):
        return {"labels": jax.ShapeDtypeStruct((self.batch_size, self.length), jnp.int32)}

    def loss_fn(self, params, batch, rng):
        logits_BTC = self.logits(params, batch, rng)
        weights_BT = (batch["labels"] >= 0) & batch["valid"][:, None]
        labels_BT = jnp.maximum(batch["labels"], 0)
        loss_BT = cross_entropy(logits_BTC, labels_BT, self.label_smoothing)
        return {"classification_loss": Mean.of(loss_BT, weights_BT)}, accuracies(logits_BTC, labels_BT, weights_BT)

    def predict(self, params, inputs):
        """probabilities (B, T, C) float32."""
        return {"probabilities": jax.nn.softmax(self.logits(params, inputs, None))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Supervised):
    """Where in a text the answer to a question begins and ends (arXiv 1810.04805, sections 4.2 and 4.3).

    loss = mean of -log p(start) + mean of -log p(end), each over the tokens of an example. An answer is the span from i to j >= i of the second
    text with the greatest start_i + end_j, or the first token alone: there is none.

    Batch: `tokens`, `token_types` (B, T) int32 (1 in the second text), `mask` (B, T) bool, `start`, `end` (B,) int32, `valid` (B,) bool.
    """

    vocabulary: Vocabulary
    outputs = 2
    method = "encode"
    predicts = "answer"
    longest = 30  # tokens of an answer that is predicted

    @property
    def labels(self):
        place = jax.ShapeDtypeStruct((self.batch_size,), jnp.int32)
        return {"start": place, "end": place}

    def _log_probabilities(self, params, inputs, rng):
        logits_BTC = jnp.where(inputs["mask"][..., None], self.logits(params, inputs, rng), jnp.finfo(jnp.float32).min)
        return (jax.nn.log_softmax(logits_BTC[..., i]) for i in range(2))

    def best_span(self, start_BT, end_BT, inputs):
        """(i_B, j_B int32, score_B) of the likeliest answer."""
        B, T = start_BT.shape
        index_T, mask_BT = jnp.arange(T), inputs["mask"]
        last_BT = mask_BT & ~jnp.pad(mask_BT[:, 1:], ((0, 0), (0, 1)))  # the token that ends the second text
        inside_BT = (inputs["token_types"] == 1) & mask_BT & ~last_BT
        length_TT = index_T - index_T[:, None]
        allowed_BTT = inside_BT[:, :, None] & inside_BT[:, None] & (length_TT >= 0) & (length_TT < self.longest)
        allowed_BTT = allowed_BTT.at[:, 0, 0].set(True)
        score_BN = jnp.where(allowed_BTT, start_BT[:, :, None] + end_BT[:, None], -jnp.inf).reshape(B, T * T)
        best_B = score_BN.argmax(-1)
        return best_B // T, best_B % T, score_BN.max(-1)

    def loss_fn(self, params, batch, rng):
        start_BT, end_BT = self._log_probabilities(params, batch, rng)
        at = lambda log_p_BT, place_B: jnp.take_along_axis(log_p_BT, place_B[:, None], axis=1)[:, 0]
        valid_B = batch["valid"]
        terms = {"start_loss": Mean.of(-at(start_BT, batch["start"]), valid_B), "end_loss": Mean.of(-at(end_BT, batch["end"]), valid_B)}
        i_B, j_B, _ = self.best_span(start_BT, end_BT, batch)
        return terms, {"exact_match": Mean.of((i_B == batch["start"]) & (j_B == batch["end"]), valid_B)}

    def predict(self, params, inputs):
        """start, end (B,) int32, the first and last token of the answer, 0 where there is none; probability (B,) float32."""
        start_BT, end_BT = self._log_probabilities(params, inputs, None)
        i_B, j_B, score_B = self.best_span(start_BT, end_BT, inputs)
        return {"start": i_B, "end": j_B, "probability": jnp.exp(score_B)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageClassification(Supervised):
    """The class of an image: loss = mean of -log p(label), where two images are mixed weighted by what there is of each.

    Mixing happens here, on the device, with the step's key, and never in evaluation; with both mixup and CutMix set, each example has one of the
    two. Batch: `image` (B, H, W, C) uint8, `label` (B,) int32, `valid` (B,) bool.
    """

    classes: int = 2
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    reads = "image"
    predicts = "label"

    def __post_init__(self):
        super().__post_init__()
        if self.mixup < 0 or self.cutmix < 0:
            raise UserError(f"objective.mixup is {self.mixup}, objective.cutmix {self.cutmix}: they are the alpha of a Beta, or 0 for none.")

    @property
    def head(self) -> Head:
        return Head(self.model.config, self.classes, stddev=0.0)  # zeros (arXiv 2010.11929, section 3.2)

    @property
    def inputs(self):
        return self.model.inputs(self.batch_size, self.length)

    def loss_fn(self, params, batch, rng):
        image_BHWC, label_B, other_B, weight_B = batch["image"], batch["label"], batch["label"], jnp.ones(len(batch["label"]))
        if rng is not None and (self.mixup or self.cutmix):
            rng, mix_rng = jax.random.split(rng)
            image_BHWC, other_B, weight_B = self.mix(image_BHWC, label_B, batch["valid"], mix_rng)
        logits_BC = self.logits(params, {"image": image_BHWC}, rng)
        both = lambda f: weight_B * f(label_B) + (1 - weight_B) * f(other_B)
        loss_B = both(lambda label_B: cross_entropy(logits_BC, label_B, self.label_smoothing))
        own, others = (
            accuracies(logits_BC, label_B, batch["valid"] * weight_B) for label_B, weight_B in ((label_B, weight_B), (other_B, 1 - weight_B))
        )
        return {"classification_loss": Mean.of(loss_B, batch["valid"])}, {name: own[name] + others[name] for name in own}

    def mix(self, image_BHWC, label_B, valid_B, rng):
        """Each image with the one before it in the batch, whose order is random -> (image_BHWC float32, that one's label other_B, weight_B of its own label).

        A row that is filler mixes with nothing, and nothing with it.
        """
        B, H, W, _ = image_BHWC.shape
        which_rng, mixup_rng, cutmix_rng = jax.random.split(rng, 3)
        image_BHWC = image_BHWC.astype(jnp.float32)
        previous = lambda x: jnp.roll(x, 1, axis=0)
        pair_B = valid_B & previous(valid_B)
        share_BHW = jnp.ones((B, H, W))  # of the image itself, pixel by pixel
        if self.mixup:
            share_BHW = share_BHW * jax.random.beta(mixup_rng, self.mixup, self.mixup, (B, 1, 1))
        if self.cutmix:
            outside_BHW = 1.0 - boxes(cutmix_rng, self.cutmix, B, H, W)
            cut_B11 = jax.random.bernoulli(which_rng, 0.5 if self.mixup else 1.0, (B, 1, 1))
            share_BHW = jnp.where(cut_B11, outside_BHW, share_BHW)
        share_BHW = jnp.where(pair_B[:, None, None], share_BHW, 1.0)
        mixed_BHWC = share_BHW[..., None] * image_BHWC + (1 - share_BHW[..., None]) * previous(image_BHWC)
        return mixed_BHWC, previous(label_B), share_BHW.mean((1, 2))

    def predict(self, params, inputs):
        """probabilities (B, C) float32."""
        return {"probabilities": jax.nn.softmax(self.logits(params, inputs, None))}


def boxes(rng, alpha: float, B: int, H: int, W: int):
    """(B, H, W) bool: CutMix's boxes (arXiv 1905.04899, eq. 2), of 1 - Beta(alpha, alpha) of the area around a random centre, clipped at the edges."""
    size_rng, y_rng, x_rng = jax.random.split(rng, 3)
    side_B = jnp.sqrt(1 - jax.random.beta(size_rng, alpha, alpha, (B,)))

    def inside(rng, size):
        centre_B1, half_B1 = jax.random.randint(rng, (B, 1), 0, size), (side_B * size).astype(jnp.int32)[:, None] // 2
        return (jnp.arange(size) >= centre_B1 - half_B1) & (jnp.arange(size) < centre_B1 + half_B1)

    return inside(y_rng, H)[:, :, None] & inside(x_rng, W)[:, None]


def accuracies(logits, labels, weights):
    """How often the label has the greatest logit; with more than five classes also how often it is among the greatest five."""
    found = {"accuracy": Mean.of(logits.argmax(-1) == labels, weights)}
    if logits.shape[-1] > 5:
        found["top_5_accuracy"] = Mean.of((jax.lax.top_k(logits, 5)[1] == labels[..., None]).any(-1), weights)
    return found
