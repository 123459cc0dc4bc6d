"""The rule that masks what tells a person: addresses of mail and of computers, numbers of telephones and of payment cards."""

import dataclasses
import ipaddress
import re

import phonenumbers

from research.core.errors import UserError
from research.curation.documents import Document

KINDS = ("email", "ip", "card", "phone")  # in the order in which they are masked: parts of the first three can look like a telephone number

# RFC 5321: at most 64 characters before the @, and labels of at most 63. The last label has letters alone, or is the ASCII form of one of another script.
EMAIL = re.compile(r"(?<![\w.+%-])\w[\w.+%'-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+(?:xn--[\w-]{2,59}|[^\W\d_]{2,63})")

# Four numbers that are not part of a longer name; or groups of hexadecimal digits in 2000::/3, where all public addresses are (RFC 3587).
IP = re.compile(
    r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\w)"
    r"|(?<![\w:])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){0,6}(?:[0-9A-Fa-f]{1,4}|(?<=::))(?!\w|:[\w:])"
)

# How many digits a card has, and those it begins with: the issuers of ISO/IEC 7812 (Visa 4, Mastercard 51-55 and 2221-2720, Maestro 50, 56-58 and 6,
# American Express 34 and 37, Diners Club 300-305, 36, 38 and 39, JCB 3528-3589; Discover, RuPay and UnionPay are among those with 6).
MAESTRO, JCB = "5[0678]|6", "35(?:2[89]|[3-8])"
ISSUERS = {
    19: f"4|{MAESTRO}|{JCB}",
    18: f"{MAESTRO}|{JCB}",
    17: f"{MAESTRO}|{JCB}",
    16: f"4|{MAESTRO}|{JCB}|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)",
    15: "3[47]",
    14: "3(?:0[0-5]|[689])",
    13: "4",
}
# Groups have three digits and more; the whole is not part of a longer number.
CARDS = [
    re.compile(rf"(?<![\w+])(?<!\d[.-])(?={prefix})\d{{4}}(?:(?:[ -](?=\d{{3}}))?\d){{{digits - 4}}}(?!\w|[.-]\d)", re.ASCII)
    for digits, prefix in ISSUERS.items()
]

# Every third number of a book of ten digits (ISO 2108) would do as a telephone number of the United States.
ISBN = re.compile(r"\d+([ -])\d+\1\d+\1\d")
ISBN_BEFORE = re.compile(r"ISBN(?:-1[03])?:? ?$")


@dataclasses.dataclass(frozen=True)
class Pii:
    """Puts <EMAIL>, <PHONE>, <IP> and <CARD> in place of personal data of the given `kinds`, in whatever order.

    IP addresses, of version 4 and 6, are masked where they are public, as in FineWeb (arXiv 2406.17557): a number of a version that has four
    parts, as 1.2.3.4, is one too. Payment cards are known by their issuer, their length and their check digit (ISO/IEC 7812), telephone numbers by
    whether they are valid in the plan of their country, which is `region` for those without a code (libphonenumber). Raises UserError for an unknown
    kind or region.
    """

    kinds: tuple[str, ...]
    region: str

    needs = "text"

    def __post_init__(self):
        for kind in self.kinds:
            if kind not in KINDS:
                raise UserError(f"pii.kinds has {kind!r}: give some of {', '.join(KINDS)}.")
        if self.region not in phonenumbers.SUPPORTED_REGIONS:
            raise UserError(f"pii.region is {self.region!r}: give a country as in ISO 3166, with two capital letters, as US.")

    def __call__(self, document: Document) -> Document:
        text = self.hide(document["text"])
        return document if text == document["text"] else document | {"text": text}

    def hide(self, text: str) -> str:
        """The text without personal data; what a preparation shows of documents is hidden so too."""
        if "email" in self.kinds and "@" in text:
            text = EMAIL.sub("<EMAIL>", text)
        if re.search(r"\d", text):  # all but those of mail have one
            if "ip" in self.kinds:
                text = IP.sub(_mask_public, text)
            if "card" in self.kinds:
                text = _mask_cards(text)
            if "phone" in self.kinds:
                text = _mask_phones(text, self.region)
        return text


def _mask_public(found: re.Match) -> str:
    try:
        return "<IP>" if ipaddress.ip_address(found[0]).is_global else found[0]
    except ValueError:  # no address
        return found[0]


def _mask_cards(text: str) -> str:
    if re.search(r"\d(?:[ -]?\d){12}", text):
        for card in CARDS:
            text = card.sub(lambda found: "<CARD>" if _passes_luhn(found[0]) else found[0], text)
    return text


def _passes_luhn(number: str) -> bool:
    """Whether the last digit is the check digit of the others: each second one from the right counts double, and of a double its digits (ISO/IEC 7812)."""
    digits = [int(character) for character in reversed(number) if character.isdigit()]
    return sum(digits[::2] + [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]) % 10 == 0


def _mask_phones(text: str, region: str) -> str:
    kept, end = [], 0
    for found in phonenumbers.PhoneNumberMatcher(text, region, leniency=phonenumbers.Leniency.VALID, max_tries=len(text)):
        if ISBN.fullmatch(found.raw_string) or ISBN_BEFORE.search(text, max(0, found.start - 10), found.start):
            continue
        start = found.start + bool(re.match(r"[(\[][^)\]]*$", found.raw_string))  # a bracket that only closes after the number is none of it
        kept += [text[end:start], "<PHONE>"]
        end = found.end
    return "".join([*kept, text[end:]])
