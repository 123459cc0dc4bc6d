"""Masked autoencoding of images (He et al., arXiv 2111.06377)."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core import linen
from research.core.errors import UserError
from research.core.types import Mean
from research.models.mae import MaeDecoder, decoder_config
from research.models.vit import patches_of, pixels


@dataclasses.dataclass(frozen=True)
class MaskedImage:
    """Predicts the pixels of hidden patches from the visible ones, which alone are encoded (section 3).

    loss = mean over hidden patches of the mean squared error of their pixels, normalised patch by patch to mean 0 and variance 1. Foretelling the
    mean of every patch would give 1 (less where patches are all of one colour, whose target is 0).

    Batch: `image` (B, H, W, C) uint8, `valid` (B,) bool. The draws of an example are keyed by the step, the microbatch and the example's own pixels:
    where in the batch it stands and which device holds it do not matter, and in evaluation it has one fixed mask. Parameters: those of the model, a
    ViT, and beside them `decoder`, which only this objective uses.
    """

    model: nn.Module
    batch_size: int
    mask_rate: float = 0.75
    decoder_width: int = 512
    decoder_layers: int = 8
    decoder_heads: int = 16
    separable = True

    def __post_init__(self):
        if not hasattr(self.model, "encode_visible"):
            raise UserError("objective.name=masked_image encodes some patches of an image alone, which this model cannot: choose model.name=vit.")
        if self.model.config.pool == "attention":
            raise UserError("objective.name=masked_image trains no attention pooling: choose model.pool mean or first.")
        if self.decoder_width % self.decoder_heads or self.decoder_width % 4:
            raise UserError(f"objective.decoder_width {self.decoder_width} must divide by 4 and by objective.decoder_heads, {self.decoder_heads}.")
        if not 0 < self.visible < self.model.config.patches:
            raise UserError(
                f"objective.mask_rate {self.mask_rate} of {self.model.config.patches} patches leaves {self.visible} visible: some patches "
                "must be, and some hidden."
            )

    @property
    def visible(self) -> int:
        """K, the patches that are encoded."""
        return self.model.config.patches - round(self.mask_rate * self.model.config.patches)

    @property
    def decoder(self) -> MaeDecoder:
        return MaeDecoder(decoder_config(self.model.config, self.decoder_width, self.decoder_layers, self.decoder_heads))

    @property
    def example_batch(self):
        return self.model.inputs(self.batch_size, 0) | {"valid": jax.ShapeDtypeStruct((self.batch_size,), bool)}

    @property
    def _calls(self):
        order_1N = jnp.arange(self.model.config.patches)[None]
        encoder = linen.Call(self.model, (linen.zeros(self.model.inputs(1, 0)), order_1N[:, : self.visible]), "encode_visible")
        hidden = jnp.zeros((1, self.visible + self.model.config.class_token, self.model.width))
        return {"": encoder, "decoder": linen.Call(self.decoder, (hidden, order_1N))}

    def init(self, rng):
        return linen.init_all(self._calls, rng)

    @property
    def logical_axes(self):
        return linen.all_logical_axes(self._calls)

    def loss_fn(self, params, batch, rng):
        mask_rng, encoder_rng, decoder_rng = (jax.random.key(0), None, None) if rng is None else jax.random.split(rng, 3)
        order_BN = self.orders(batch["image"], mask_rng)
        hidden = linen.apply(self.model, params, encoder_rng, batch, order_BN[:, : self.visible], method="encode_visible")
        found = linen.apply(self.decoder, params["decoder"], decoder_rng, hidden, order_BN)
        wanted = jnp.take_along_axis(self.targets(batch["image"]), order_BN[:, self.visible :, None], axis=1)
        error = ((found - wanted) ** 2).mean(-1)
        return {"reconstruction_loss": Mean.of(error, jnp.broadcast_to(batch["valid"][:, None], error.shape))}, {}

    def orders(self, image_BHWC, rng):
        """order_BN int32: the patches of each image in random order; the first K are visible."""
        flat = image_BHWC.reshape(len(image_BHWC), -1).astype(jnp.uint32)
        # 0x9E3779B1 is 2^32 over the golden ratio: a multiplicative hash that tells the places of the pixels as well.
        weights = (jnp.arange(1, flat.shape[1] + 1, dtype=jnp.uint32) * jnp.uint32(0x9E3779B1)) | 1
        keys_B = jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.sum(flat * weights, axis=1, dtype=jnp.uint32))
        return jax.vmap(lambda key: jax.random.permutation(key, self.model.config.patches))(keys_B)

    def targets(self, image_BHWC):
        """(B, N, P * P * C) float32: the pixels of each patch, less their mean, over their standard deviation (section 4.1)."""
        patches = patches_of(pixels(image_BHWC, self.model.config), self.model.config.patch_size)
        return (patches - patches.mean(-1, keepdims=True)) * jax.lax.rsqrt(patches.var(-1, keepdims=True) + 1e-6)
