"""Text data sets: TFDS records -> documents of sentences -> a memory-mapped store of tokens."""

import hashlib
import json
import pathlib
import shutil

import numpy as np
import tensorflow_datasets as tfds
from sentencex import segment
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tqdm import tqdm

from research.core.errors import UserError, is_disk_full
from research.data.fetch import cache_dir, cache_lock


class Documents:
    """The documents of one split of a TFDS data set: random access, each a list of sentences.

    `builder` is a TFDS builder with an `array_record` file format; it is prepared on first use.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, field: str, language: str = "en"):
        prepare(builder)
        if field not in builder.info.features:
            raise UserError(f"data.text_field is {field!r}, but {builder.info.full_name} has: {', '.join(builder.info.features)}.")
        try:
            self._records = builder.as_data_source(split=split)
        except NotImplementedError as e:
            again = f"tfds build {builder.info.full_name.rsplit('/', 1)[0]} --file_format=array_record"
            raise UserError(f"{builder.info.full_name} is prepared as files without random access: make it again with `{again}`.") from e
        except (ValueError, KeyError) as e:
            raise UserError(f"{builder.info.full_name} has no split {split!r} ({e}); it has: {', '.join(builder.info.splits)}.") from e
        self._field, self._language = field, language
        self.name = f"{builder.info.full_name}:{split}"
        self.key = hashlib.sha256(f"{self.name}\n{field}\n{language}\n{builder.data_dir}".encode()).hexdigest()[:16]  # of what it reads

    def __len__(self):
        return len(self._records)

    def __getitem__(self, i: int) -> list[str]:
        return sentences(self._records[i][self._field].decode(), self._language)


def prepare(builder):
    """Makes the data set on disk, where it is not there yet. Raises UserError if it cannot be had."""
    try:
        with cache_lock(f"tfds-{builder.name}"):
            builder.download_and_prepare(file_format="array_record")
        if not builder.info.splits:  # another process prepared it after this builder had looked
            builder.info.read_from_directory(builder.data_dir)
    except (OSError, ImportError, tfds.download.DownloadError, NonMatchingChecksumError) as e:
        if is_disk_full(e):
            raise
        reason = f"{type(e).__name__}: {str(e)[:200]}"
        raise UserError(f"the data set {builder.name} could not be prepared ({reason}).") from e


def sentences(text: str, language: str = "en") -> list[str]:
    """The sentences of a text, paragraph by paragraph."""
    found = (sentence.strip() for line in text.splitlines() if line.strip() for sentence in segment(language, line))
    return [sentence for sentence in found if sentence]


class TokenStore:
    """All tokens of a split, memory-mapped: document d has sentences [documents[d], documents[d + 1]), and sentence s has
    tokens [sentences[s], sentences[s + 1]).

    Made once for each (data set, split, tokenizer) and kept in the cache: after that, example i is a slice.
    """

    def __init__(self, folder: pathlib.Path):
        self.tokens = np.load(folder / "tokens.npy", mmap_mode="r")  # (tokens,) uint16, or uint32 for a large vocabulary
        self.sentences = np.load(folder / "sentences.npy", mmap_mode="r")  # (sentences + 1,) int64
        self.documents = np.load(folder / "documents.npy", mmap_mode="r")  # (documents + 1,) int64
        self.manifest = json.loads((folder / "manifest.json").read_text())


def token_store(documents: Documents, tokenizer) -> TokenStore:
    """The store of `documents` under `tokenizer`, made on first use with a progress bar."""
    serialised = tokenizer.to_str()
    key = hashlib.sha256(f"{documents.key}\n{serialised}".encode()).hexdigest()[:16]
    folder = cache_dir() / "tokens" / f"{documents.name.replace('/', '-').replace(':', '-')}-{key}"
    with cache_lock(folder.name):
        if not (folder / "manifest.json").exists():
            draft = folder.with_name(f"{folder.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
            draft.mkdir(parents=True)
            manifest = {"documents": documents.name, "tokenizer_sha256": hashlib.sha256(serialised.encode()).hexdigest()}
            _write_store(draft, documents, tokenizer, manifest)
            draft.rename(folder)
    return TokenStore(folder)


def _write_store(folder, documents, tokenizer, manifest, chunk: int = 64):
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32
    sentence_lengths, document_lengths = [], []  # arrays: a corpus may have billions of sentences
    raw = folder / "tokens.raw"
    with open(raw, "wb") as file, tqdm(total=len(documents), desc=f"tokenizing {documents.name}", unit=" documents") as bar:
        for start in range(0, len(documents), chunk):
            texts = [documents[i] for i in range(start, min(start + chunk, len(documents)))]
            encoded = iter(tokenizer.encode_batch([sentence for text in texts for sentence in text], add_special_tokens=False))
            # A sentence of invisible characters has no tokens, and is none.
            kept = [[ids for _ in text if (ids := next(encoded).ids)] for text in texts]
            file.writelines(np.asarray(ids, dtype).tobytes() for text in kept for ids in text)
            sentence_lengths.append(np.array([len(ids) for text in kept for ids in text], np.int64))
            document_lengths.append(np.array([len(text) for text in kept], np.int64))
            bar.update(len(texts))
    sentence_ends, document_ends = (np.cumsum(np.concatenate([[0], *lengths])).astype(np.int64) for lengths in (sentence_lengths, document_lengths))
    total = int(sentence_ends[-1])
    tokens = np.lib.format.open_memmap(folder / "tokens.npy", "w+", dtype, (total,))
    if total:
        tokens[:] = np.memmap(raw, dtype, "r")
    raw.unlink()
    np.save(folder / "sentences.npy", sentence_ends)
    np.save(folder / "documents.npy", document_ends)
    sizes = {"number_of_documents": len(documents), "number_of_sentences": int(document_ends[-1]), "number_of_tokens": total}
    (folder / "manifest.json").write_text(json.dumps(manifest | sizes))
