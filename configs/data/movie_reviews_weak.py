"""Labelling functions for sentences of movie reviews: what one would say of the language of critics without having read a labelled example.

    python -m research.label --weak=configs/data/movie_reviews_weak.py --data=movie_reviews --split=train --out=runs/weak.csv

Each takes a text and returns the name of a class, or None: it does not know. There are 16; on half of the sentences one votes, on a tenth several.
That is too little to learn more from than how often a vote is right: the label model is not measurably more often right than the majority, and does
not beat one accuracy for all functions, learned from the same votes: on most of the sentences they cannot be told apart. What is learned is learned
on the training split, without its labels, so that each split can judge it: `python -m tests.labelling.weak_labels`, whose figures README.md has.

Labels had one say: that blame denied is praise ("never dull") was a function too, and is none since the training labels show it wrong two times in
three.
"""

import re

POSITIVE = "positive"
NEGATIVE = "negative"

PRAISE = (
    "good great excellent wonderful brilliant beautiful terrific fantastic superb delightful charming touching moving gripping engaging compelling "
    "powerful hilarious funny witty clever smart original fresh entertaining enjoyable fun fascinating intelligent inventive remarkable memorable "
    "stunning riveting honest thoughtful heartwarming refreshing satisfying impressive perfect masterpiece triumph joy pleasure treat gem "
    "vivid graceful tender lively rich warm insightful provocative haunting exhilarating thrilling absorbing subtle captivating"
).split()
BLAME = (
    "bad awful terrible horrible poor boring dull tedious stupid silly dumb lame predictable bland flat pointless mediocre mess disappointing "
    "disappointment unfunny clumsy contrived formulaic stale tired tiresome lifeless shallow pretentious ridiculous absurd annoying irritating "
    "forgettable uninspired uninteresting failure worst weak cheap sloppy slow ugly unpleasant implausible heavy-handed incoherent dreary banal "
    "lazy empty pathetic inept ludicrous cliched hackneyed muddled trite painful generic derivative amateurish"
).split()
FINE_ADVERBS = (
    "beautifully wonderfully brilliantly superbly skillfully gracefully finely deftly delightfully surprisingly genuinely wildly deeply truly".split()
)


def any_of(words) -> re.Pattern:
    return re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)


PRAISES, BLAMES = any_of(PRAISE), any_of(BLAME)
NOT = r"\b(?:not|never|no|nothing|neither|nor|without|hardly|barely|isn't|wasn't|doesn't|don't|didn't|can't|won't|aren't|n't)"
NEGATED_PRAISE = re.compile(rf"{NOT}\s+(?:[\w'-]+\s+){{0,3}}?(?:{'|'.join(PRAISE)})\b", re.IGNORECASE)
NEGATED_BLAME = re.compile(rf"{NOT}\s+(?:[\w'-]+\s+){{0,3}}?(?:{'|'.join(BLAME)})\b", re.IGNORECASE)
CONTRAST = re.compile(r"\b(?:but|however|yet|although|though|despite|in spite of|while|even if)\b", re.IGNORECASE)


def tone(text: str) -> str | None:
    """What most of its plain words say, those denied not counted."""
    text = NEGATED_PRAISE.sub(" ", NEGATED_BLAME.sub(" ", text))
    praise, blame = len(PRAISES.findall(text)), len(BLAMES.findall(text))
    return None if praise == blame else POSITIVE if praise > blame else NEGATIVE


def votes(label: str, *patterns: str):
    """A function that votes for `label` where one of the patterns is found, else for nothing."""
    found = re.compile("|".join(rf"\b(?:{pattern})" for pattern in patterns), re.IGNORECASE)
    return lambda text: label if found.search(text) else None


def lf_plain_words(text):
    """Of a text that takes nothing back."""
    return None if CONTRAST.search(text) else tone(text)


def lf_negated_praise(text):
    """ "not very funny"."""
    return NEGATIVE if NEGATED_PRAISE.search(text) else None


def lf_after_contrast(text):
    """What comes after the last "but" is meant."""
    before, contrast, after = re.sub(r"\b(?:however|yet)\b", "but", text, flags=re.IGNORECASE).rpartition(" but ")
    return tone(after) if contrast else None


def lf_in_spite_of(text):
    """ "Although it is slow, it is a fine film": what does not belong to the concession is meant."""
    found = re.match(r"\W*(?:although|though|despite|in spite of|while|even if)\b[^,]*,(.*)", text, re.IGNORECASE | re.DOTALL)
    return tone(found[1]) if found else None


lf_best = votes(
    POSITIVE,
    r"(?:the|its|his|her|year's) (?:very )?(?:best|finest|funniest|greatest|smartest|strongest)\b",
    r"one of the (?:best|finest|most)\b",
    "at its best",
)
lf_recommended = votes(
    POSITIVE,
    r"worth (?:see|watch|a look|your|the|catch|tak)",
    "must[- ]see",
    "(?:don't|do not) miss",
    "recommend",
    "see it",
    "go see",
    "well worth",
    "a must",
)
lf_fine_adverb = votes(POSITIVE, rf"(?:{'|'.join(FINE_ADVERBS)})\b", r"well[- ](?:acted|made|written|crafted|done|told|directed|paced)\b")
lf_feeling = votes(POSITIVE, r"(?:heart|soul|humanity|wit|charm|grace|warmth|compassion|humor|imagination|passion|delight)\b(?! attack)")
lf_both = votes(POSITIVE, r"both [\w-]+ and\b", "at once", r"as [\w-]+ as it is")
lf_waste = votes(
    NEGATIVE,
    "waste",
    r"save your (?:money|time)",
    "skip (?:it|this)",
    "avoid",
    r"walk(?:ed|ing)? out",
    "don't bother",
    r"(?:two|2) hours",
    "your money",
    "rent",
)
lf_too = votes(NEGATIVE, r"(?:too|overly|excessively) (?!bad\b)\w+", "over-?(?:long|wrought|done|blown|the-top|stuffed)", "too much", "so much for")
lf_lack = votes(
    NEGATIVE,
    r"lack(?:s|ed|ing)?\b",
    r"fail(?:s|ed|ing|ure)?\b",
    "devoid",
    r"miss(?:es|ing)\b",
    "little more than",
    "nothing more",
    "not enough",
    "no sense",
    "without any",
    "never quite",
    "runs? out of",
)
lf_could_have = votes(
    NEGATIVE,
    r"(?:could|should|would|might)(?:'ve| have)\b",
    "supposed to",
    r"(?:wants?|tries|trying|attempts?|strains?|intended) to be",
    "if only",
    "wish",
)
lf_looks_like = votes(
    NEGATIVE, r"(?:feels?|looks?|plays?|sounds?|comes off|more) (?:more )?(?:like|as if|as though)\b", "might as well", "the kind of movie that"
)
lf_just_another = votes(
    NEGATIVE, r"(?:just|yet) another\b", "merely", "nothing (?:but|new|original)", "at least", r"anything (?:but|new)", "so-called", "the same old"
)
lf_question = votes(NEGATIVE, r"\w+[\"')]*\s*\?")
