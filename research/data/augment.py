"""Augmentation of images on the host: pure functions of a Pillow image (mode L or RGB) and the generator of its example."""

import dataclasses

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GREY = 128  # of what RandAugment and AugMix move into the picture


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to an image in training, in this order; fields as in `config.data`, within the bounds that research/core/config.py checks.

    All off: the image as evaluation sees it.
    """

    crop_area: float = 1.0
    flip: bool = False
    randaugment_layers: int = 0
    randaugment_magnitude: float = 10
    augmix_width: int = 3
    augmix_severity: float = 0.0
    color_jitter: float = 0.0
    erasing: float = 0.0

    def __call__(self, image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
        """An image of any size -> `size` x `size` of the same mode."""
        image = random_resized_crop(image, rng, size, self.crop_area) if self.crop_area < 1 else fit(image, size)
        if self.flip:
            image = random_flip(image, rng)
        if self.randaugment_layers:
            image = randaugment(image, rng, self.randaugment_layers, self.randaugment_magnitude)
        if self.augmix_severity:
            image = augmix(image, rng, self.augmix_width, self.augmix_severity)
        if self.color_jitter:
            image = color_jitter(image, rng, self.color_jitter)
        if self.erasing:
            image = random_erasing(image, rng, self.erasing)
        return image

    @property
    def changes(self) -> bool:
        rates = self.randaugment_layers, self.augmix_severity, self.color_jitter, self.erasing
        return self.crop_area < 1 or self.flip or any(rate > 0 for rate in rates)


def fit(image: Image.Image, size: int) -> Image.Image:
    """The largest square in the middle, resized to `size` pixels of a side: what evaluation sees."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def random_resized_crop(image: Image.Image, rng, size: int, least_area: float) -> Image.Image:
    """A random part of the image, resized to `size` pixels of a side (arXiv 1409.4842, section 6; SimCLR, arXiv 2002.05709, appendix A).

    Its area is uniform in [least_area, 1] of the whole, the logarithm of width / height uniform between those of 3/4 and 4/3. Where ten draws
    give nothing that fits, `fit` is taken.
    """
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(least_area, 1)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
    return fit(image, size)


def random_flip(image: Image.Image, rng) -> Image.Image:
    """The image or, half the time, its mirror image."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def color_jitter(image: Image.Image, rng, strength: float) -> Image.Image:
    """SimCLR's distortion of colour (arXiv 2002.05709, appendix A), without its blur.

    Four times in five: brightness, contrast and saturation are multiplied by factors within 1 ± 0.8 `strength`, and hue is turned by up to
    0.2 `strength` of a circle, in random order. Then one time in five colour is taken away. A grey image has only brightness and contrast.
    """
    colored = image.mode == "RGB"
    if rng.random() < 0.8:
        for i in rng.permutation(4 if colored else 2):
            if i == 3:
                image = turn_hue(image, rng.uniform(-0.2, 0.2) * strength)
            else:
                enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[i]
                image = enhance(image).enhance(rng.uniform(max(0, 1 - 0.8 * strength), 1 + 0.8 * strength))
    if colored and rng.random() < 0.2:
        image = image.convert("L").convert("RGB")
    return image


def turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """An RGB image with every hue moved by `turn` of the circle."""
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([round(h + 256 * turn) % 256 for h in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def randaugment(image: Image.Image, rng, layers: int, magnitude: float) -> Image.Image:
    """RandAugment (arXiv 1909.13719, section 3): `layers` operations drawn from fourteen, each with the strength `magnitude` of 30."""
    operations = tuple(OPERATIONS.values())
    for i in rng.integers(len(operations), size=layers):
        image = operations[i](image, magnitude / 30, _sign(rng))
    return image


def augmix(image: Image.Image, rng, width: int, severity: float) -> Image.Image:
    """AugMix (arXiv 1912.02781, algorithm 1, with alpha 1): the image, mixed with a mixture of `width` chains of operations on it.

    A chain is one to three operations of AUGMIX, one after another, of which each has a strength uniform between 0 and `severity` of 10. The
    weights of the chains are drawn from Dirichlet(1, ..., 1), that of the image itself from Beta(1, 1). Of the paper's loss, which compares
    three such versions of an image, there is nothing here.
    """
    original = np.asarray(image, np.float32)
    mixture = np.zeros_like(original)
    for weight in rng.dirichlet(np.ones(width)):
        chain = image
        for i in rng.integers(len(AUGMIX), size=rng.integers(1, 4)):
            chain = OPERATIONS[AUGMIX[i]](chain, rng.uniform(0, severity) / 10, _sign(rng))
        mixture += weight * np.asarray(chain, np.float32)
    share = rng.beta(1, 1)
    return Image.fromarray(np.rint(share * original + (1 - share) * mixture).astype(np.uint8))


def random_erasing(image: Image.Image, rng, probability: float) -> Image.Image:
    """With `probability` a rectangle of the image becomes random pixels (arXiv 1708.04896, algorithm 1).

    Its area is uniform in [0.02, 0.4] of the whole, height / width in [0.3, 1 / 0.3], as in the paper's experiments, and its corner is anywhere:
    one that does not fit is drawn again.
    """
    if rng.random() >= probability:
        return image
    pixels = np.array(image)
    height, width = pixels.shape[:2]
    while True:
        area, aspect = height * width * rng.uniform(0.02, 0.4), rng.uniform(0.3, 1 / 0.3)
        h, w = max(1, round(np.sqrt(area * aspect))), max(1, round(np.sqrt(area / aspect)))
        top, left = rng.integers(height), rng.integers(width)
        if top + h <= height and left + w <= width:
            pixels[top : top + h, left : left + w] = rng.integers(256, size=(h, w, *pixels.shape[2:]))
            return Image.fromarray(pixels)


def _sign(rng) -> int:
    return 1 if rng.random() < 0.5 else -1


def _affine(image, a=1.0, b=0.0, c=0.0, d=0.0, e=1.0, f=0.0):
    """Takes the pixel (x, y) from (a x + b y + c, d x + e y + f)."""
    fill = GREY if image.mode == "L" else (GREY,) * 3
    return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR, fillcolor=fill)


def _rotate(image, strength, sign):
    fill = GREY if image.mode == "L" else (GREY,) * 3
    return image.rotate(sign * 30 * strength, Image.Resampling.BILINEAR, fillcolor=fill)


# The fourteen of RandAugment, section 3: (image, strength in [0, 1], sign) -> image. At their strongest: sheared by 0.3, moved by 0.45 of a side,
# rotated by 30 degrees, factors of 0.1 or 1.9, 4 bits left, everything inverted.
OPERATIONS = {
    "identity": lambda image, strength, sign: image,
    "autocontrast": lambda image, strength, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, sign: ImageOps.equalize(image),
    "rotate": _rotate,
    "solarize": lambda image, strength, sign: ImageOps.solarize(image, round(256 * (1 - strength))),
    "color": lambda image, strength, sign: ImageEnhance.Color(image).enhance(1 + 0.9 * sign * strength),
    "posterize": lambda image, strength, sign: ImageOps.posterize(image, 8 - round(4 * strength)),
    "contrast": lambda image, strength, sign: ImageEnhance.Contrast(image).enhance(1 + 0.9 * sign * strength),
    "brightness": lambda image, strength, sign: ImageEnhance.Brightness(image).enhance(1 + 0.9 * sign * strength),
    "sharpness": lambda image, strength, sign: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * sign * strength),
    "shear_x": lambda image, strength, sign: _affine(image, b=0.3 * sign * strength),
    "shear_y": lambda image, strength, sign: _affine(image, d=0.3 * sign * strength),
    "translate_x": lambda image, strength, sign: _affine(image, c=0.45 * sign * strength * image.width),
    "translate_y": lambda image, strength, sign: _affine(image, f=0.45 * sign * strength * image.height),
}
# Those of AutoAugment that are no corruption of ImageNet-C (AugMix, section 3): no colour, contrast, brightness, sharpness.
AUGMIX = ("autocontrast", "equalize", "posterize", "rotate", "solarize", "shear_x", "shear_y", "translate_x", "translate_y")
