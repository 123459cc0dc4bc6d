"""Text data sets: TFDS records -> documents of sentences -> a memory-mapped store of tokens."""

import hashlib
import json
import pathlib
import shutil

import numpy as np
import tensorflow_datasets as tfds
from sentencex import segment
from tqdm import tqdm

from research.data.fetch import cache_dir, cache_lock
from research.data.records import Records


class Documents:
    """The documents of one split of a TFDS data set: random access, each a list of sentences, or of one whole text where `language` is None.

    `builder` is a TFDS builder with an `array_record` file format; it is prepared on first use. Where an example is a pair of texts its
    document can have the text of both features.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, field: str, language: str | None = "en", second_field: str | None = None):
        fields = {"text_field": field} | ({} if second_field is None else {"second_text_field": second_field})
        self._records = Records(builder, split, {name: (feature, "text") for name, feature in fields.items()})
        self._fields, self._language = tuple(fields.values()), language
        self.name, self.key = self._records.name, self._records.key(*self._fields, language)  # key: of what it reads

    def __len__(self):
        return len(self._records)

    def __getitem__(self, i: int) -> list[str]:
        record = self._records[i]
        texts = [as_text(record[field]) for field in self._fields]
        return texts if self._language is None else [sentence for text in texts for sentence in sentences(text, self._language)]


def as_text(value) -> str:
    """A text as TFDS reads it, or a sequence of words, as one string."""
    return value.decode() if isinstance(value, bytes) else " ".join(word.decode() for word in value)


def sentences(text: str, language: str = "en") -> list[str]:
    """The sentences of a text, paragraph by paragraph."""
    found = (sentence.strip() for line in text.splitlines() if line.strip() for sentence in segment(language, line))
    return [sentence for sentence in found if sentence]


class TokenStore:
    """All tokens of a split, memory-mapped: document d has sentences [documents[d], documents[d + 1]), and sentence s has
    tokens [sentences[s], sentences[s + 1]). Of whole documents each is one sentence.

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
