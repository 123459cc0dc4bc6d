"""Tokenizers: WordPiece trained with Hugging Face `tokenizers`, or loaded from a tokenizer.json or vocab.txt."""

import pathlib

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from research.core.errors import UserError
from research.core.types import Vocabulary

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_wordpiece(documents, vocab_size: int) -> tokenizers.Tokenizer:
    """An uncased WordPiece vocabulary of `vocab_size` learned from `documents` (each a list of sentences): the same each time.

    The trainer breaks ties by ids that depend on the order of a hash table. A first pass therefore finds the alphabet, and the
    second is given it in order.
    """

    def train(tokens, size):
        tokenizer = _wordpiece(models.WordPiece(unk_token="[UNK]"))
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=tokens, continuing_subword_prefix="##", show_progress=False)
        tokenizer.train_from_iterator((documents[i] for i in range(len(documents))), trainer)
        return tokenizer.get_vocab()

    alphabet = sorted(train(list(SPECIAL), 1).keys() - set(SPECIAL))
    return _wordpiece(models.WordPiece(train([*SPECIAL, *alphabet], vocab_size), unk_token="[UNK]"))


def load_tokenizer(path: pathlib.Path) -> tokenizers.Tokenizer:
    """A tokenizer from a tokenizer.json, or from a vocab.txt, which is taken as BERT's uncased WordPiece."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"there is no tokenizer at {path}: give the path of a tokenizer.json or a vocab.txt.")
    try:
        if path.suffix == ".txt":
            return _wordpiece(models.WordPiece.from_file(str(path), unk_token="[UNK]"))
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as e:  # the Rust library raises bare Exception
        raise UserError(f"{path} cannot be read as a tokenizer ({e}).") from e


def vocabulary(tokenizer: tokenizers.Tokenizer) -> Vocabulary:
    """What the objectives need of the tokenizer. Raises UserError if a special token of BERT is missing."""
    ids = [tokenizer.token_to_id(token) for token in SPECIAL]
    if None in ids:
        raise UserError(f"the tokenizer has no {', '.join(t for t, i in zip(SPECIAL, ids) if i is None)} token, which this objective needs.")
    pad, _, cls, sep, mask = ids
    size = tokenizer.get_vocab_size()
    continues = tuple(tokenizer.id_to_token(i).startswith("##") for i in range(size))
    return Vocabulary(size=size, pad=pad, cls=cls, sep=sep, mask=mask, continues=continues)


def _wordpiece(model: models.WordPiece) -> tokenizers.Tokenizer:
    """BERT's uncased tokenizer around a vocabulary, with the pairs [CLS] a [SEP] b [SEP]."""
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    known = {token: model.token_to_id(token) for token in SPECIAL if model.token_to_id(token) is not None}
    tokenizer.add_special_tokens(list(known))
    if "[SEP]" in known and "[CLS]" in known:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", known["[SEP]"]), ("[CLS]", known["[CLS]"]))
    return tokenizer
