import gzip

import numpy as np
import pytest

from research.core.errors import UserError
from research.data import fashion_mnist
from research.data.fashion_mnist import FashionMnist, read_idx


def idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))
    return path


def test_the_test_set_is_for_validation(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (30, 28, 28)), np.arange(30) % 10, rng.integers(0, 256, (7, 28, 28)), np.arange(7)]
    files = [idx(tmp_path / f"{i}.gz", array) for i, array in enumerate(arrays)]
    monkeypatch.setattr(fashion_mnist, "package_members", lambda *_: files)
    builder = FashionMnist(data_dir=str(tmp_path / "tfds"), file_format="array_record")
    builder.download_and_prepare(file_format="array_record")
    for split, images, labels in (("train", *arrays[:2]), ("validation", *arrays[2:])):
        pairs = {image.astype(np.uint8).tobytes(): label for image, label in zip(images, labels)}
        found = list(builder.as_data_source(split))
        assert len(found) == len(pairs) and all(pairs[example["image"].tobytes()] == example["label"] for example in found)
        assert found[0]["image"].shape == (28, 28, 1)


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    path = idx(tmp_path / "a.gz", np.arange(24).reshape(2, 3, 4))
    assert (read_idx(path) == np.arange(24).reshape(2, 3, 4)).all()
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(UserError, match="a.gz is no IDX file"):
        read_idx(path)
