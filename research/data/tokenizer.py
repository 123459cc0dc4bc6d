"""Tokenizers: WordPiece, byte-level BPE or Unigram, trained by Hugging Face `tokenizers` or loaded from a tokenizer.json or a vocabulary's files."""

import json
import pathlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from research.core.errors import UserError
from research.core.types import Vocabulary

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
END, START = "<|endoftext|>", "<|startoftext|>"
BPE_SPECIAL = (END, START, "<s>", "<pad>", "</s>", "<unk>", "<mask>")
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))  # a Unigram vocabulary's tokens for them, as SentencePiece writes them
NEVER = -1e3  # the score of those: below that of any characters, so that a text which spells one out is not taken for it
COVERAGE = 0.9995  # of the characters of a text are ones that a Unigram vocabulary has: SentencePiece's default
MEANINGS = {  # in Vocabulary -> the tokens that have it: BERT's, RoBERTa's and Llama's, CLIP's
    "pad": ("[PAD]", "<pad>"),
    "cls": ("[CLS]", "<s>", START),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "end": (END, "[SEP]", "</s>"),
}


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


def train_byte_bpe(documents, vocab_size: int) -> tokenizers.Tokenizer:
    """GPT-2's tokenizer, byte-level BPE, learned from `documents` (each a list of texts): any text comes back from its tokens as it was.

    Of `vocab_size` tokens one ends a text, 256 are the bytes, and the rest are merged from those. The same each time: the bytes are known
    beforehand and in order, so that ties are too. Raises UserError if `vocab_size` has no room for the bytes.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(alphabet) + 1:
        raise UserError(f"a byte_bpe vocabulary has at least {len(alphabet) + 1} tokens, vocab_size is {vocab_size}: raise it.")
    tokenizer = _byte_bpe(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((documents[i] for i in range(len(documents))), trainer)
    return tokenizer


def train_unigram(documents, vocab_size: int) -> tokenizers.Tokenizer:
    """SentencePiece's tokenizer, a unigram language model (arXiv 1804.10959, section 3.2), learned from `documents` (each a list of texts).

    Of `vocab_size` tokens, at most, five are BERT's special ones, of which [SEP] ends a text; 256 are the bytes that rare characters are made of, so
    that nothing is unknown; then come the common characters and the pieces of words, likeliest first. A text comes back from its tokens as NFKC has
    it, but for one blank that it begins with, and ▁, which becomes a blank.

    The same each time: the trainer adds probabilities up in the order of a hash table, so that their last digits differ, and which of equal pieces is
    first. Only the set of pieces comes from it, which has not been seen to hang on those digits. Their probabilities are found again, all equal at
    first, by EM of which the E step cuts each text in its likeliest way: that counts whole numbers.

    Raises UserError if `vocab_size` has no room for the characters.
    """
    alphabet = _alphabet(documents)
    room = vocab_size - len(SPECIAL) - len(BYTES)
    if room <= len(alphabet):  # where there is room for no more than them the trainer gives more than it was asked for
        least = len(SPECIAL) + len(BYTES) + len(alphabet) + 1
        raise UserError(f"a unigram vocabulary of this text has at least {least} tokens, vocab_size is {vocab_size}: raise it.")
    learner = tokenizers.Tokenizer(models.Unigram())
    learner.normalizer = normalizers.NFKC()
    rare = tokenizers.Regex("[^" + "".join(f"\\x{{{ord(character):x}}}" for character in alphabet) + "]+")
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(rare, "removed"), _words()])
    required = [character.replace(" ", "▁") for character in alphabet]
    trainer = trainers.UnigramTrainer(vocab_size=room, initial_alphabet=required, show_progress=False)
    learner.train_from_iterator((documents[i] for i in range(len(documents))), trainer)
    pieces = sorted(learner.get_vocab())
    log_probs = np.full(len(pieces), -np.log(len(pieces)))
    for _ in range(2):  # more change next to nothing
        uses = np.maximum(_uses(_unigram(zip(pieces, log_probs)), documents)[-len(pieces) :], 0.5)
        log_probs = np.log(uses / uses.sum()).round(6)
    return _unigram(sorted(zip(pieces, log_probs), key=lambda piece: (-piece[1], piece[0])))


TRAINERS = {"wordpiece": train_wordpiece, "byte_bpe": train_byte_bpe, "unigram": train_unigram}
OF_WHOLE_TEXTS = ("byte_bpe", "unigram")  # learn of what stands between sentences too


def encoded(tokenizer: tokenizers.Tokenizer, documents, chunk: int = 64) -> Iterator[tuple[list[str], list[list[int]]]]:
    """Of each document in turn its texts and the ids of each, without those that mark its ends; several documents at a time, on all processors."""
    for start in range(0, len(documents), chunk):
        texts = [documents[i] for i in range(start, min(start + chunk, len(documents)))]
        found = iter(tokenizer.encode_batch_fast([text for parts in texts for text in parts], add_special_tokens=False))
        yield from ((parts, [next(found).ids for _ in parts]) for parts in texts)


def load_tokenizer(path: pathlib.Path) -> tokenizers.Tokenizer:
    """A tokenizer from a tokenizer.json; or from a vocab.txt, taken as BERT's WordPiece, uncased unless a tokenizer_config.json beside it says
    otherwise; or from a vocab.json with the merges.txt beside it, taken as the byte-level BPE of CLIP, if it has CLIP's token of a beginning, or
    else of GPT-2 and RoBERTa."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"there is no tokenizer at {path}: give the path of a tokenizer.json, a vocab.txt, or a vocab.json with its merges.txt.")
    try:
        if path.suffix == ".txt":
            beside = path.with_name("tokenizer_config.json")
            lowercase = json.loads(beside.read_text()).get("do_lower_case", True) if beside.is_file() else True
            return _wordpiece(models.WordPiece.from_file(str(path), unk_token="[UNK]"), lowercase)
        if path.name == "vocab.json":
            return _stored_bpe(str(path), str(path.with_name("merges.txt")))
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.no_padding()  # which, like the next, is for sources to do
        tokenizer.no_truncation()
        return tokenizer
    except Exception as e:  # the Rust library raises bare Exception
        raise UserError(f"{path} cannot be read as a tokenizer ({e}).") from e


def vocabulary(tokenizer: tokenizers.Tokenizer, end_token: str | None = None) -> Vocabulary:
    """What the objectives need of the tokenizer, of which `end_token` ends a text, if that is not one of MEANINGS.

    A token goes on with the word before it where it begins with ## or, in a byte-level vocabulary and a Unigram one, does not begin with white space
    (Ġ and ▁ stand for a blank, Ċ for a new line). Raises UserError for an `end_token` that is none of its tokens.
    """
    ids = {name: [tokenizer.token_to_id(token) for token in named] for name, named in MEANINGS.items()}
    special = {name: next((i for i in of_name if i is not None), None) for name, of_name in ids.items()}
    if end_token is not None and (special.update(end=tokenizer.token_to_id(end_token)) or special["end"] is None):
        raise UserError(f"config.data.end_token is {end_token!r}, which is no token of the tokenizer.")
    size = 1 + max(tokenizer.get_vocab().values())
    tokens = [tokenizer.id_to_token(i) or "" for i in range(size)]  # ids that a file leaves out have no token
    if isinstance(tokenizer.model, models.BPE) and tokenizer.model.end_of_word_suffix:
        continues = (False,) * size  # which a token does not tell: CLIP marks where words end
    elif isinstance(tokenizer.model, models.BPE):
        continues = tuple(token != END and not token.startswith(("Ġ", "Ċ", "▁")) for token in tokens)
    elif isinstance(tokenizer.model, models.Unigram):
        added = tokenizer.get_added_tokens_decoder()
        continues = tuple(i not in added and not token.startswith("▁") and not token[:1].isspace() for i, token in enumerate(tokens))
    else:
        continues = tuple(token.startswith("##") for token in tokens)
    roberta = special["cls"] is not None and tokenizer.id_to_token(special["cls"]) == "<s>" and special["mask"] is not None
    return Vocabulary(size, continues, **special, separators=2 if roberta else 1)


def _byte_bpe(model: models.BPE) -> tokenizers.Tokenizer:
    """GPT-2's tokenizer around a vocabulary: words with the blank before them, as bytes; nothing is normalised, nothing unknown."""
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    known = [token for token in BPE_SPECIAL if model.token_to_id(token) is not None]
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, lstrip=token == "<mask>") for token in known])
    return tokenizer


def _stored_bpe(vocab: str, merges: str) -> tokenizers.Tokenizer:
    """GPT-2's tokenizer, which is RoBERTa's but for the tokens of its own, or CLIP's: lower case, single digits, and words that mark where they end."""
    words, pairs = models.BPE.read_file(vocab, merges)
    if START not in words:
        return _byte_bpe(models.BPE(words, pairs))
    tokenizer = _byte_bpe(models.BPE(words, pairs, end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()])
    parts = pre_tokenizers.Split(tokenizers.Regex(CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([parts, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def _alphabet(documents) -> list[str]:
    """The most frequent characters that are COVERAGE of all, a blank, and what the names of bytes are written with; in order."""
    normalizer, counts = normalizers.NFKC(), Counter[str]()
    for i in range(len(documents)):
        for text in documents[i]:
            counts.update(normalizer.normalize_str(text))
    del counts["\0"]  # which the trainer has between words
    order = sorted(counts, key=lambda character: (-counts[character], character))
    covered = np.cumsum([counts[character] for character in order])
    return sorted({" ", *"".join(BYTES), *order[: 1 + np.searchsorted(covered, COVERAGE * counts.total())]})


def _uses(tokenizer: tokenizers.Tokenizer, documents) -> np.ndarray:
    """How often each token is used in the documents: (vocabulary,) int64."""
    uses = np.zeros(tokenizer.get_vocab_size(), np.int64)
    for _, tokens in encoded(tokenizer, documents):
        for ids in tokens:
            np.add.at(uses, ids, 1)
    return uses


def _words() -> pre_tokenizers.PreTokenizer:
    """Words with ▁ for the blank before them, which the first has too; white space other than blanks by itself."""
    others = pre_tokenizers.Split(tokenizers.Regex(r"[^\S ]+"), "isolated")
    return pre_tokenizers.Sequence([others, pre_tokenizers.Metaspace(prepend_scheme="first")])


def _unigram(pieces) -> tokenizers.Tokenizer:
    """SentencePiece's tokenizer around (piece, log probability) each."""
    scores = [*((token, 0.0) for token in SPECIAL), *((byte, NEVER) for byte in BYTES), *((piece, float(score)) for piece, score in pieces)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(scores, SPECIAL.index("[UNK]"), byte_fallback=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = _words()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, lstrip=token == "[MASK]") for token in SPECIAL])
    return tokenizer


def _wordpiece(model: models.WordPiece, lowercase: bool = True) -> tokenizers.Tokenizer:
    """BERT's tokenizer around a vocabulary, with the pairs [CLS] a [SEP] b [SEP]."""
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    known = {token: i for token in SPECIAL if (i := model.token_to_id(token)) is not None}
    tokenizer.add_special_tokens(list(known))
    if "[SEP]" in known and "[CLS]" in known:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", known["[SEP]"]), ("[CLS]", known["[CLS]"]))
    return tokenizer
