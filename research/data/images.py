"""Images: TFDS records or files -> uint8 arrays of a model's size and channels, alone, with labels, as two views, with texts."""

import dataclasses
import io
import pathlib

import numpy as np
from PIL import Image

from research.core.errors import UserError
from research.core.types import Vocabulary
from research.data.augment import Augmentation, fit
from research.data.records import Records
from research.data.text import as_text
from research.data.text_inputs import text_inputs

MODES = {1: "L", 3: "RGB"}  # channels of a model -> Pillow's mode


class Images:
    """The images of one split of a data set, each as the model takes it; decoded when asked for, never all in memory.

    Args:
      records: of a TFDS data set.
      feature: of theirs that holds the image: an Image (PNG, JPEG, ...) or a Tensor (H, W, 1 or 3) uint8.
      size, channels: of the model. A coloured image becomes grey (ITU-R 601 luma) where channels is 1, a grey one three equal channels where 3.
      augmentation: of training; None: the largest square in the middle, resized.
    """

    def __init__(self, records: Records, feature: str, size: int, channels: int, augmentation: Augmentation | None):
        if channels not in MODES:
            raise UserError(f"model.channels is {channels}: images have 1 (grey) or 3 (colour).")
        self.records, self.augmentation = records, augmentation
        self._feature, self._size, self._channels = feature, size, channels
        augmented = dataclasses.asdict(augmentation) if augmentation else None
        self.manifest = {"images": records.name, "number_of_images": len(records), "augmentation": augmented}

    def __len__(self):
        return len(self.records)

    def where(self, i: int) -> str:
        return f"image {i} of {self.records.name}"

    def image(self, i: int, record: dict, rng: np.random.Generator) -> np.ndarray:
        """(S, S, C) uint8: that of the i-th record."""
        image = decode(record[self._feature], self._channels, self.where(i))
        return to_array(self.augmentation(image, self._size, rng) if self.augmentation else fit(image, self._size))


class UnlabelledImages:
    """`image` (S, S, C) uint8."""

    def __init__(self, images: Images):
        self._images, self.manifest = images, images.manifest

    def __len__(self):
        return len(self._images)

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"image": self._images.image(i, self._images.records[i], rng)}


class LabelledImages:
    """`image` (S, S, C) uint8 and `label` int32, which `feature` holds."""

    def __init__(self, images: Images, feature: str, labels: tuple[str, ...] | None):
        self._images, self._feature = images, feature
        self.manifest = images.manifest | {"labels": labels and list(labels)}

    def __len__(self):
        return len(self._images)

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray | np.int32]:
        record = self._images.records[i]
        label = np.int32(record[self._feature])
        if label < 0:
            raise UserError(f"{self._images.where(i)} has no label: choose a split that has labels.")
        return {"image": self._images.image(i, record, rng), "label": label}


class ImageViews:
    """`first/image` and `second/image` (S, S, C) uint8: two augmentations of one image, drawn apart (SimCLR, arXiv 2002.05709, section 2.1).

    They are the task itself, so an evaluation draws them too: the same for every run, as its generators are.
    """

    def __init__(self, images: Images):
        if not (images.augmentation and images.augmentation.changes):
            raise UserError("two views of an image would be the same: set data.crop_area, flip, color_jitter or randaugment_layers of the config.")
        self._images, self.manifest = images, images.manifest

    def __len__(self):
        return len(self._images)

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        record = self._images.records[i]
        return {"first/image": self._images.image(i, record, rng), "second/image": self._images.image(i, record, rng)}


class ImageText:
    """`first/image` (S, S, C) uint8; `second/tokens`, `second/token_types` (length,) int32 and `second/mask` (length,) bool of the text that
    `feature` holds (CLIP, arXiv 2103.00020, section 2.3); the other way round where the views of image and text are `second` and `first`."""

    def __init__(self, images: Images, feature: str, tokenizer, vocabulary: Vocabulary, length: int, image: str = "first", text: str = "second"):
        self._views = image, text
        self._images, self._feature, self._length = images, feature, length
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self.manifest = images.manifest

    def __len__(self):
        return len(self._images)

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        record = self._images.records[i]
        text = text_inputs([as_text(record[self._feature])], self._tokenizer, self._vocabulary, self._length)
        of_image, of_text = self._views
        return {f"{of_image}/image": self._images.image(i, record, rng)} | {f"{of_text}/{name}": x for name, x in text.items()}


def read_image(path: str | pathlib.Path, size: int, channels: int, convert: bool = True) -> np.ndarray:
    """(size, size, channels) uint8 of an image file, as evaluation sees the images of a data set.

    Raises UserError if it cannot be read or, unless it may be converted, is grey where the model sees colours or the other way round.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"there is no image {path}: give the path of a PNG or JPEG file.")
    data = path.read_bytes()
    image = decode(data, channels, str(path))
    if not convert:
        with Image.open(io.BytesIO(data)) as stored:
            found = 1 if stored.mode in ("1", "L", "LA", "La") else 3
        if found != channels:
            kinds = {1: "grey (1 channel)", 3: "of colour (3 channels)"}
            raise UserError(f"{path} is {kinds[found]}, this model's images are {kinds[channels]}: give another, or say --convert.")
    return to_array(fit(image, size))


def decode(data: bytes | np.ndarray, channels: int, where: str) -> Image.Image:
    """A Pillow image of mode L or RGB, by `channels`, of the bytes of a file or of an array (H, W, 1 or 3) uint8.

    What is transparent is laid on white. Raises UserError, naming `where`, for bytes that are cut off or no image, and arrays that are not of
    this kind.
    """
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[-1] not in MODES:
            raise UserError(f"{where} is {data.dtype} {data.shape}: make the data set anew with images of uint8, (height, width, 1 or 3 channels).")
        image = Image.fromarray(data[..., 0] if data.shape[-1] == 1 else data)
    else:
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
            raise UserError(f"{where} cannot be decoded ({e}): it is cut off or no image; put it right or leave it out.") from e
        if image.mode[0] in "IF":
            raise UserError(f"{where} has pixels of more than 8 bits (mode {image.mode}): convert it to 8 bits a channel.")
        if image.has_transparency_data:
            image = on_white(image)
    return image.convert(MODES[channels])


def on_white(image: Image.Image) -> Image.Image:
    """An RGB image: one with transparent parts laid on white."""
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def to_array(image: Image.Image) -> np.ndarray:
    """(H, W, C) uint8 of a Pillow image of mode L or RGB."""
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array
