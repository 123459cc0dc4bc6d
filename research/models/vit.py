"""ViT: the Vision Transformer (Dosovitskiy et al., arXiv 2010.11929), with what came of it: sin-cos positions, no class token, attention pooling.

As in transformer.py, with N patches of P x P pixels and C channels; T is N, and one more with a class token, which comes first.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from research.core.errors import UserError
from research.core.sharding import constrain
from research.models.attention import attention
from research.models.layers import Dense, Dropout, Embedding, TransformerConfig, bias, kernel, make_norm
from research.models.transformer import Mlp, Transformer

SIZES = {  # width, layers, heads, mlp_width
    "Ti": (192, 12, 3, 768),  # arXiv 2012.12877, table 1
    "S": (384, 12, 6, 1536),
    "B": (768, 12, 12, 3072),  # arXiv 2010.11929, table 1
    "L": (1024, 24, 16, 4096),
    "H": (1280, 32, 16, 5120),
    "So400m": (1152, 27, 16, 4304),  # arXiv 2305.13035, as in SigLIP
    "g": (1408, 40, 16, 6144),  # arXiv 2106.04560, table 2
    "G": (1664, 48, 16, 8192),
}


def variant(name: str) -> dict:
    """The fields of a `model` group that "B/16" stands for: a size, then the side of a patch. Raises UserError for what is none."""
    size, _, patch = name.partition("/")
    if size not in SIZES or not patch.isdecimal() or int(patch) < 1:
        raise UserError(f"there is no ViT-{name}: name a size, one of {', '.join(SIZES)}, and the side of a patch, as in B/16.")
    return dict(zip(("width", "layers", "heads", "mlp_width"), SIZES[size]), patch_size=int(patch))


@dataclasses.dataclass(frozen=True)
class VitConfig(TransformerConfig):
    image_size: int
    image_width: int | None
    channels: int
    patch_size: int
    class_token: bool
    patch_bias: bool
    embedding_norm: bool
    pixel_mean: tuple[float, ...]
    pixel_stddev: tuple[float, ...]

    def __post_init__(self):
        super().__post_init__()
        for side in self.sides:
            if self.patch_size < 1 or side < 1 or side % self.patch_size:
                raise UserError(f"model.patch_size {self.patch_size} does not divide the {side} pixels of a side of the image: choose two that do.")
        if self.positions == "rotary" or "local" in self.attention_pattern:
            raise UserError("the patches of a ViT are no line of text: model.positions is learned or sincos, model.attention_pattern all dense.")
        if self.positions == "sincos" and self.width % 4:
            raise UserError(f"sincos positions are four equal parts of model.width, {self.width}: choose a multiple of 4, or learned positions.")
        if self.pool == "last" or (self.pool == "first" and not self.class_token):
            raise UserError(f"a ViT has no {self.pool} token to pool: choose model.pool mean or attention, or first with model.class_token=True.")

        for field in ("pixel_mean", "pixel_stddev"):
            if len(getattr(self, field)) not in (1, self.channels):
                raise UserError(f"model.{field} is {getattr(self, field)}: give one number, or one for each of the {self.channels} channels.")
        if not all(stddev > 0 for stddev in self.pixel_stddev):
            raise UserError(f"model.pixel_stddev is {self.pixel_stddev}: it must be more than 0.")

    @property
    def sides(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.image_size, self.image_width or self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along each of these."""
        H, W = self.sides
        return H // self.patch_size, W // self.patch_size

    def images(self, batch_size: int):
        """What a model of these scalars takes."""
        return {"image": jax.ShapeDtypeStruct((batch_size, *self.sides, self.channels), jnp.uint8)}

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]


class Vit(nn.Module):
    """The encoder.

    `inputs`: image (B, H, W, C) uint8.
    `encode`: inputs -> hidden_BTD.
    `encode_visible`: inputs, index_BK int32 -> hidden (B, K, D), one more with a class token, of these K patches alone (arXiv 2111.06377, section 3).
    `embed`: inputs -> pooled_BD: the class token (first), the mean of the patches, or what a learned query attends to.
    """

    config: VitConfig
    deterministic: bool = True

    def setup(self):
        c = self.config
        values = c.patch_size**2 * c.channels
        self.patch = Dense(c, (c.width,), (None, "embed"), values**-0.5, use_bias=c.patch_bias)
        if c.class_token:
            self.class_token = self.param("class_token", bias("embed"), (c.width,))
        if c.positions == "learned":
            self.position = Embedding(c, c.patches + c.class_token, None)
        if c.embedding_norm:
            self.embedding_norm = make_norm(c)
        self.dropout = Dropout(c.dropout, deterministic=self.deterministic)
        self.encoder = Transformer(c, self.deterministic)
        if c.pool == "attention":
            self.pooler = AttentionPool(c)

    @property
    def width(self) -> int:
        return self.config.width

    def inputs(self, batch_size: int, length: int):
        return self.config.images(batch_size)

    def encode(self, inputs):
        return self._encode(inputs["image"], None)

    def encode_visible(self, inputs, index_BK):
        return self._encode(inputs["image"], index_BK)

    def embed(self, inputs):
        c, hidden_BTD = self.config, self.encode(inputs)
        if c.pool == "attention":
            return self.pooler(hidden_BTD)
        return constrain(hidden_BTD[:, 0] if c.pool == "first" else hidden_BTD[:, int(c.class_token) :].mean(1), "batch", "embed")

    def _encode(self, image_BHWC, index_BK):
        c = self.config
        position_TD = self.position(jnp.arange(c.patches + c.class_token)) if c.positions == "learned" else sincos(c.grid, c.width, c.class_token)
        x_BND = self.patch(patches_of(pixels(image_BHWC, c), c.patch_size)) + position_TD[int(c.class_token) :].astype(c.dtype)
        if index_BK is not None:
            x_BND = jnp.take_along_axis(x_BND, index_BK[..., None], axis=1)
        if c.class_token:
            x_BND = with_first((self.class_token + position_TD[0]).astype(c.dtype), x_BND)
        if c.embedding_norm:
            x_BND = self.embedding_norm(x_BND)
        return self.encoder(constrain(self.dropout(x_BND), "batch", "sequence", "embed"))[0]

    def adapter(self, name: str, shape: tuple[int, ...]):
        """What makes the stored parameter `name` of another `shape` fit this model: a function of the array, or None where nothing can.

        Positions learned at another image size, of a square, are resized, so that fine-tuning at another resolution can start from them (section 3.2).
        """
        c = self.config
        grid = round(max(0, shape[0] - c.class_token) ** 0.5)
        if name != "position/embedding" or shape != (grid**2 + c.class_token, c.width) or not grid:
            return None
        return lambda table_TD: resize_positions(table_TD, (grid, grid), c.grid, c.class_token)


class AttentionPool(nn.Module):
    """Multi-head attention pooling (arXiv 2106.04560, section 3.2, with the MLP of its code): one learned query sees all tokens.

    hidden_BTD -> pooled_BD.
    """

    config: VitConfig

    @nn.compact
    def __call__(self, hidden_BTD):
        c = self.config
        query_D = self.param("query_token", kernel(c.width**-0.5, "embed"), (c.width,))
        query_B1D = jnp.broadcast_to(query_D, (len(hidden_BTD), 1, c.width))

        def project(name, x_BTD):
            return constrain(Dense(c, (c.heads, c.head_width), ("embed", "heads", "head_dim"), name=name)(x_BTD), "batch", None, "heads", "head_dim")

        out_B1HK = attention(project("query", query_B1D), project("key", hidden_BTD), project("value", hidden_BTD), implementation="xla")
        x_B1D = Dense(c, (c.width,), ("heads", "head_dim", "embed"), name="out")(out_B1HK)
        x_B1D = x_B1D + Mlp(c, name="mlp")(make_norm(c, "mlp_norm")(x_B1D))
        return constrain(x_B1D[:, 0], "batch", "embed")


def pixels(image_BHWC, config: VitConfig):
    """uint8 -> float32, by default in [-1, 1]."""
    mean, stddev = np.array(config.pixel_mean), np.array(config.pixel_stddev)
    return image_BHWC.astype(jnp.float32) * (1 / (255 * stddev)).astype(np.float32) - (mean / stddev).astype(np.float32)


def patches_of(image_BHWC, patch_size: int):
    """(B, N, P * P * C): the patches row by row, the values of each row by row, channels last."""
    B, H, W, C = image_BHWC.shape
    h, w = H // patch_size, W // patch_size
    return image_BHWC.reshape(B, h, patch_size, w, patch_size, C).swapaxes(2, 3).reshape(B, h * w, -1)


def with_first(token_D, x_BND):
    """x_BND with one more token, the same in every row, before it."""
    return jnp.concatenate([jnp.broadcast_to(token_D, (len(x_BND), 1, x_BND.shape[-1])), x_BND], axis=1)


def sincos(grid: tuple[int, int], width: int, class_token: bool):
    """Fixed positions of a grid of patches, float32 (T, D): sines and cosines of x in D / 2 dimensions, of y in the others (arXiv 2104.02057).

    A class token, first, has zeros.
    """
    y_N, x_N = (axis.reshape(-1) for axis in jnp.mgrid[: grid[0], : grid[1]].astype(jnp.float32))
    frequency = 10_000.0 ** (-jnp.arange(width // 4) / (width // 4))
    position_ND = jnp.concatenate([f(axis_N[:, None] * frequency) for axis_N in (x_N, y_N) for f in (jnp.sin, jnp.cos)], axis=1)
    return jnp.pad(position_ND, ((int(class_token), 0), (0, 0)))


def resize_positions(table_TD, old_grid: tuple[int, int], new_grid: tuple[int, int], class_token: bool):
    """A table of learned positions for a grid of another size, by bicubic interpolation in the plane; the row of a class token, first, stays."""
    first, rest = table_TD[: int(class_token)], table_TD[int(class_token) :]
    y_weights, x_weights = (cubic_weights(old, new) for old, new in zip(old_grid, new_grid))
    plane = jnp.einsum("Yy,Xx,yxD->YXD", y_weights, x_weights, rest.reshape(*old_grid, -1), precision="highest")
    return jnp.concatenate([first, plane.reshape(new_grid[0] * new_grid[1], -1)])


def cubic_weights(old: int, new: int) -> np.ndarray:
    """(new, old) float32: cubic convolution of a line (Keys, 1981, eq. 15) with a = -3/4, as PyTorch, in which such tables are commonly resized, has
    it; past the ends the last value goes on."""
    a, centre = -0.75, (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        place = np.floor(centre) + tap
        x = abs(centre - place)
        near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
        np.add.at(weights, (np.arange(new), np.clip(place, 0, old - 1).astype(int)), np.where(x <= 1, near, far))
    return weights.astype(np.float32)
