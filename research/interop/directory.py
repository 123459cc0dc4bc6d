"""A Hugging Face directory: config.json, model.safetensors or its shards, and the files of a tokenizer. Nothing pickled is ever read."""

import functools
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping

import numpy as np
import safetensors
from safetensors.numpy import save_file

from research.core.errors import UserError

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")


def is_directory(path) -> bool:
    """Whether `path` holds a Hugging Face checkpoint, rather than a run of ours."""
    path = pathlib.Path(path) / "config.json"
    try:
        return path.is_file() and "model_type" in json.loads(path.read_text())
    except (OSError, ValueError):
        return False


class Directory:
    """What a directory holds: `config`, and its tensors by name, read one at a time; names without `prefix`, that of models with a head.

    `tied` are names that repeat another tensor: {name: the other's}. They are left out, once they have been found to be the same.
    Raises UserError where files are missing or damaged, or tied tensors differ.
    """

    def __init__(self, path, prefix: str = "", tied: dict[str, str] | None = None):
        self.path = pathlib.Path(path)
        self.where = str(self.path)
        self.config = read_config(self.path)
        self._prefix = prefix
        self._files = {self._known_as(name): (file, name) for file in self._weight_files() for name in self._open(file).keys()}
        for name, other in (tied or {}).items():
            if name in self._files and other in self._files and not np.array_equal(self.read(name), self.read(other)):
                raise UserError(f"{self.where}: {name} differs from {other}, with which it is said to be tied.")
            self._files.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def shape(self, name: str) -> tuple[int, ...]:
        file, stored = self._files[name]
        return tuple(self._open(file).get_slice(stored).get_shape())

    def read(self, name: str) -> np.ndarray:
        """A tensor, float32 where it is of floats."""
        file, stored = self._files[name]
        x = self._open(file).get_tensor(stored)
        return x if np.issubdtype(x.dtype, np.integer) or x.dtype == bool else x.astype(np.float32)

    def _known_as(self, name: str) -> str:
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):  # of the layer norms of old checkpoints
            name = name.removesuffix(old) + new if name.endswith(old) else name
        return name.removeprefix(self._prefix)

    @functools.cache  # noqa: B019
    def _open(self, file: str):
        try:
            return safetensors.safe_open(self.path / file, framework="numpy")
        except (OSError, safetensors.SafetensorError) as e:
            raise UserError(f"{self.path / file} cannot be read ({e}): it is cut off or no safetensors file.") from e

    def _weight_files(self) -> list[str]:
        index = self.path / "model.safetensors.index.json"
        if index.is_file():
            return sorted(set(read_json(index).get("weight_map", {}).values()))
        if (self.path / "model.safetensors").is_file():
            return ["model.safetensors"]
        pickled = next((path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in self.path.glob(pattern)), None)
        advice = (
            f"{pickled} is a pickle, which may run any code and is not read: save it as safetensors first" if pickled else "give the folder of one"
        )
        raise UserError(f"{self.path} has no model.safetensors, nor an index of its shards: {advice}.")


def read_json(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise UserError(f"{path} cannot be read ({e}).") from e


def read_config(path: pathlib.Path) -> dict:
    """config.json, with the statistics of pixels that a preprocessor_config.json beside it has."""
    images = path / "preprocessor_config.json"
    statistics = read_json(images) if images.is_file() else {}
    return read_json(path / "config.json") | {name: statistics[name] for name in ("image_mean", "image_std") if name in statistics}


def tokenizer_file(path) -> pathlib.Path | None:
    """The file in a directory that its tokenizer is read from; None where there is none. Raises UserError for one that does not say all of it."""
    path = pathlib.Path(path)
    file = next((file for name in TOKENIZER_FILES if (file := path / name).is_file()), None)
    if file is not None and file.name == "vocab.json" and read_config(path).get("model_type") not in ("gpt2", "roberta", "clip"):
        raise UserError(f"{path} has a vocab.json and no tokenizer.json, which says how texts are parted: transformers' save_pretrained writes one.")
    return file


def write(path: pathlib.Path, files: Mapping[str, dict | list], tensors: dict[str, np.ndarray], tokenizer: pathlib.Path | None):
    """Makes a directory that `transformers` loads, of `files`, each as JSON. Raises UserError if there is something already."""
    check_new(path)
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps(content, indent=2) + "\n")
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    if tokenizer is not None:
        shutil.copyfile(tokenizer, path / "tokenizer.json")


def check_new(path: pathlib.Path):
    """Raises UserError where `path` is a file, or a folder that is not empty."""
    if path.is_file() or path.is_dir() and any(path.iterdir()):
        raise UserError(f"--to={path} exists and is not empty: choose another.")
