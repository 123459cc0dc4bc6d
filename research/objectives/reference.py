"""What objectives share that train a decoder, the policy, by what is thought of its texts, and may hold it to what it was: a frozen reference."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict

from research.core import linen
from research.core.errors import UserError
from research.core.types import Vocabulary
from research.models.attention import Mask
from research.objectives.losses import token_log_probs

# What the fields of the objectives may be, and how that is said. Nan is none of it.
LIMITS = {
    **dict.fromkeys(
        ("beta", "temperature", "clip_high", "value_clip", "importance_cap", "desirable_weight", "undesirable_weight"), (lambda x: x > 0, "over 0")
    ),
    **dict.fromkeys(("kl_weight", "value_weight", "entropy_weight"), (lambda x: x >= 0, "at least 0")),
    **dict.fromkeys(("discount", "gae_decay"), (lambda x: 0 <= x <= 1, "in 0..1")),
    "clip": (lambda x: 0 < x < 1, "over 0 and under 1"),
    "label_smoothing": (lambda x: 0 <= x < 0.5, "at least 0 and under 0.5, or the rejected would be preferred"),
    "completion_length": (lambda x: x >= 1, "at least 1"),
}


def check_limits(objective):
    """Raises UserError for a field of an objective outside of LIMITS."""
    for name in (field.name for field in dataclasses.fields(objective) if field.name in LIMITS):
        (fits, words), value = LIMITS[name], getattr(objective, name)
        if value is not None and not fits(value):
            raise UserError(f"objective.{name} is {value}: it must be {words}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """A decoder, and where `has_reference` a copy of it that stays as it is.

    Parameters: those of the model, as causal_lm has them, so that such a run can be gone on from and this one generates text; `heads` under their
    names; under "reference" the copy, of the model's alone. Rows are padded on the right, where a causal model's own tokens do not see: no mask is
    needed. Raises UserError for a model that does not decode, and for a field outside of LIMITS.
    """

    model: nn.Module
    vocabulary: Vocabulary
    batch_size: int
    length: int
    temperature: float = 1.0  # of the softmax over the logits, in what is drawn and in its log-probabilities
    separable = True
    generates = True

    def __post_init__(self):
        if not hasattr(self.model, "cache"):
            raise UserError(f"{type(self).__name__} trains a decoder such as gpt, not {type(self.model).__name__}: choose model.name=gpt.")
        check_limits(self)

    @property
    def has_reference(self) -> bool:
        return True

    @property
    def heads(self) -> dict[str, linen.Call]:
        """What stands beside the model."""
        return {}

    @property
    def _calls(self):
        zeros_1T = jnp.zeros((1, self.length), jnp.int32)
        return {"": linen.Call(self.model, (zeros_1T, zeros_1T, Mask(causal=True)))} | self.heads

    def of_model(self, tree):
        """Of a tree over the parameters, what is the model's."""
        return {name: x for name, x in tree.items() if name not in {*self.heads, "reference"}}

    def init(self, rng):
        return self.begin(linen.init_all(self._calls, rng))

    def begin(self, params):
        """`params` with the model as it now is for reference, whatever that was before: how a run begins, from loaded parameters too.

        A copy, so that the buffers of the one can be donated while the other's stay.
        """
        trained = {name: x for name, x in params.items() if name != "reference"}
        return trained | ({"reference": jax.tree.map(jnp.copy, self.of_model(params))} if self.has_reference else {})

    @property
    def logical_axes(self):
        axes = linen.all_logical_axes(self._calls)
        return axes | ({"reference": self.of_model(axes)} if self.has_reference else {})

    @property
    def frozen(self) -> frozenset[str]:
        reference = flatten_dict(self.logical_axes.get("reference", {}), sep="/")
        return frozenset(f"reference/{name}" for name in reference)

    def hidden(self, params, tokens_BT, rng=None):
        """hidden_BTD, each token seeing those before it and itself; with dropout of the key `rng`, None: without."""
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        return linen.apply(self.model, params, rng, tokens_BT, positions_BT, Mask(causal=True), method="hidden")[0]

    def logits(self, params, hidden_BTD):
        return linen.apply(self.model, params, None, hidden_BTD, method="logits")

    def log_probs(self, params, tokens_BT, rng=None):
        """log p(tokens[t] | tokens[<t]) -> (B, T) float32, 0 at the first token. Those of the reference: with params["reference"]."""
        return token_log_probs(self.logits(params, self.hidden(params, tokens_BT, rng)), tokens_BT, self.vocabulary.size, self.temperature)
