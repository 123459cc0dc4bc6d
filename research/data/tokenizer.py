"""Tokenizers: WordPiece or byte-level BPE trained with Hugging Face `tokenizers`, or loaded from a tokenizer.json or a vocabulary's own files."""

import json
import pathlib

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from research.core.errors import UserError
from research.core.types import Vocabulary

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
END, START = "<|endoftext|>", "<|startoftext|>"
BPE_SPECIAL = (END, START, "<s>", "<pad>", "</s>", "<unk>", "<mask>")
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
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
        raise UserError(f"a byte_bpe vocabulary has at least {len(alphabet) + 1} tokens, model.vocab_size is {vocab_size}: raise it.")
    tokenizer = _byte_bpe(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((documents[i] for i in range(len(documents))), trainer)
    return tokenizer


TRAINERS = {"wordpiece": train_wordpiece, "byte_bpe": train_byte_bpe}


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

    A token goes on with the word before it where it begins with ## or, in a byte-level vocabulary, does not begin with white space (Ġ and ▁
    stand for a blank, Ċ for a new line). Raises UserError for an `end_token` that is none of its tokens.
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
