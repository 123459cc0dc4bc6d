"""Every field of a recipe that makes a data set of raw text or images, with its default: the published rules for crawled English.

Recipes start from here and change few lines. The rules are applied in the order in which `rules` names them; the fields of each are in the group of its name.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    c = ConfigDict()
    c.name = "mine"  # of the data set: what a training config names as data.name
    c.version = "1.0.0"  # of the data set
    c.seed = 0  # of MinHash

    c.input = ConfigDict()
    c.input.format = "jsonl"  # a row of FORMATS in research/prepare.py (text, lines, jsonl, csv, parquet, warc, wikitext, images, tfds), or "package.module:Class"
    c.input.files = placeholder(str)  # a pattern, as "crawl/*.warc.gz"; of images their folder; absent: what `fetch` fetches
    c.input.fetch = placeholder(str)  # what fetches the files: a row of FETCHERS in research/prepare.py (debian, wikipedia_dump), or "package.module:function"
    c.input.text_field = "text"  # jsonl, csv, parquet, tfds: the field that holds the text
    c.input.image_field = placeholder(str)  # parquet, tfds: the field that holds the image; absent: none, or of tfds the only one of a data set without text
    c.input.key_field = placeholder(str)  # jsonl, csv, parquet, tfds: the field that tells documents apart; absent: file and place in it
    c.input.name = placeholder(str)  # tfds: the data set; its folder is input.dir
    c.input.dir = placeholder(str)  # tfds: as data.dir of a training config
    c.input.split = "train"  # tfds: any split
    c.input.encoding = "utf-8"  # text, lines, jsonl, csv: what else than that is refused
    c.input.part_size = 4_000_000  # bytes of a file of text that one worker takes at a time

    c.rules = (  # rows of RULES in research/prepare.py, or "package.module:function" of the whole recipe, in order
        "fields",
        "unicode",
        "language",
        "gopher_quality",
        "gopher_repetition",
        "c4",
        "pii",
        "exact_duplicates",
        "near_duplicates",
    )

    c.fields = ConfigDict()
    c.fields.required = ("text",)  # documents that lack one of these, or have nothing in it, are dropped
    c.fields.numbers = ()  # fields that are to be numbers: "4.5" is mended, "n/a" dropped
    c.fields.defaults = ()  # (("field", value), ...) of what is missing and may be
    c.fields.max_characters = placeholder(int)  # of a text; absent: any

    c.unicode = ConfigDict()
    c.unicode.normalization = "NFC"  # after ftfy has repaired what was decoded wrongly; NFKC folds compatible characters too

    c.html = ConfigDict()  # the main text of a page, by trafilatura
    c.html.precision = True  # rather lose text than keep boilerplate
    c.html.tables = False  # keep the text of tables

    c.language = ConfigDict()
    c.language.keep = ("en",)  # ISO 639-1
    c.language.least = 0.65  # probability of the language, by py3langid (FineWeb's threshold, arXiv 2406.17557; C4 has 0.99)

    c.gopher_quality = ConfigDict()  # arXiv 2112.11446, appendix A.1.1
    c.gopher_quality.min_words = 50
    c.gopher_quality.max_words = 100_000
    c.gopher_quality.min_mean_word_length = 3.0  # characters
    c.gopher_quality.max_mean_word_length = 10.0
    c.gopher_quality.max_symbol_ratio = 0.1  # "#" or ellipses, to a word
    c.gopher_quality.max_bullet_lines = 0.9  # share of lines that begin with a bullet
    c.gopher_quality.max_ellipsis_lines = 0.3  # share of lines that end with an ellipsis
    c.gopher_quality.min_alphabetic_words = 0.8  # share of words with a letter
    c.gopher_quality.min_stop_words = 2  # different ones of stop_words
    c.gopher_quality.stop_words = ("the", "be", "to", "of", "and", "that", "have", "with")

    c.gopher_repetition = ConfigDict()  # the same, table A1: the most that may be
    c.gopher_repetition.duplicate_lines = 0.3  # share of lines that came before in the document
    c.gopher_repetition.duplicate_paragraphs = 0.3
    c.gopher_repetition.duplicate_line_characters = 0.2  # share of characters in such lines
    c.gopher_repetition.duplicate_paragraph_characters = 0.2
    c.gopher_repetition.top_ngrams = ((2, 0.20), (3, 0.18), (4, 0.16))  # (n, share of characters in the most frequent one)
    c.gopher_repetition.duplicate_ngrams = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))  # (n, share of characters in any that came before)

    c.c4 = ConfigDict()  # arXiv 1910.10683, section 2.2; lines first, then the page of what is left
    c.c4.terminal_punctuation = True  # lines must end in . ! ? or a quotation mark
    c.c4.min_line_words = 5
    c.c4.min_sentences = 3  # of a page
    c.c4.javascript_lines = False  # whether lines with that word stay
    c.c4.policy_lines = False  # whether "terms of use", "cookie policy" and the like stay
    c.c4.citations = False  # whether [1], [citation needed] and the like stay
    c.c4.lorem_ipsum = False  # whether pages with that stay
    c.c4.curly_brackets = False  # whether pages with { stay

    c.word_list = ConfigDict()  # toxicity and the like; in no recipe by default
    c.word_list.file = placeholder(str)  # words and phrases, one a line
    c.word_list.max_share = 0.0  # of a document's words that may be on the list

    c.pii = ConfigDict()  # personal data becomes <EMAIL>, <PHONE>, <IP>, <CARD>
    c.pii.kinds = ("email", "phone", "ip", "card")
    c.pii.region = "US"  # of telephone numbers without a country code, ISO 3166

    c.near_duplicates = ConfigDict()  # MinHash with LSH (arXiv 2107.06499, appendix A); FineWeb's parameters (arXiv 2406.17557, section 3.4)
    c.near_duplicates.ngram = 5  # words of a shingle
    c.near_duplicates.threshold = 0.75  # Jaccard similarity from which on the later document is dropped; candidates are compared exactly
    c.near_duplicates.bands = 14  # two documents of similarity s are candidates with probability 1 - (1 - s^rows)^bands
    c.near_duplicates.rows = 8

    c.repeated_passages = ConfigDict()  # arXiv 2107.06499, section 4.1
    c.repeated_passages.words = 50  # a run of so many that an earlier document has is cut out of the later one
    c.repeated_passages.whole_sentences = False  # cut of that only sentences that are all in it

    c.near_images = ConfigDict()  # perceptual hash, of 64 bits
    c.near_images.distance = 6  # bits that may differ

    c.contamination = ConfigDict()  # arXiv 2005.14165, appendix C
    c.contamination.sets = ()  # of evaluation: "name:split:field" of a data set, or a file of texts, one a line; see contaminated.jsonl
    c.contamination.ngram = 13  # words; a document that shares so many in a row is dropped
    c.contamination.min_words = 8  # of an example that is shorter than ngram: it counts whole

    c.tokens = ConfigDict()  # a tokenizer of the data set's own, which training uses, all splits cut into its tokens, and what these are like
    c.tokens.type = placeholder(str)  # wordpiece, byte_bpe, unigram, or "package.module:function", trained on the split train; absent: none
    c.tokens.vocab_size = 32_000  # tokens that it has, at most: what the text cannot do with is refused
    c.tokens.language = placeholder(str)  # by whose rules sentences end, for data.source=sentence_pairs; absent: texts stay whole, for packed_text
    c.tokens.length = placeholder(int)  # of the rows of packed_text that are counted; absent: none

    c.output = ConfigDict()
    c.output.dir = placeholder(str)  # where TFDS keeps data sets, as data.dir of a training config; absent: `tfds` in the cache
    c.output.fields = ("text",)  # of a document that the data set has, beside its key
    c.output.label_field = placeholder(str)  # the one of them that is the name of a class, or its number; absent: none
    c.output.classes = ()  # the names that it has
    c.output.validation = 0.05  # share of the documents held out
    c.output.test = 0.0  # likewise
    c.output.split_by = "key"  # the field of which all documents with the same value are in one split
    return c
