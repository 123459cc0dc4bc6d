import itertools
import pickle
import time

import pytest

from configs.data import base
from research.core.errors import UserError
from research.curation.pii import Pii

EMAILS = [
    "bob@example.com",
    "Mary.O'Neil+news@mail.uni-köln.de",
    "x_1%y@a.b.co.uk",
    "юзер@пример.рф",
    "info@xn--e1afmkfd.xn--p1ai",
    "A-B@EXAMPLE.ORG",
]
IPS = ["8.8.8.8", "142.250.74.110", "2001:4860:4860::8888", "2A00:1450:4001:0829:0000:0000:0000:200e", "2606:4700::"]
CARDS = [  # the test numbers of payment processors
    "4111111111111111",
    "4111 1111 1111 1111",
    "5555-5555-5555-4444",
    "2223003122003222",
    "378282246310005",
    "3782 822463 10005",
    "30569309025904",
    "3056 930902 5904",
    "6011 1111 1111 1117",
    "3530111333300000",
    "4222222222222",
    "6304 0000 0000 0000 000",
]
PHONES = ["202-555-0123", "(415) 555-2671", "415.555.2671", "2025550123", "1-800-356-9377", "+44 20 7946 0958", "+49 30 901820", "+33 1 44 34 56 78"]
PLANTED = {"<EMAIL>": EMAILS, "<IP>": IPS, "<CARD>": CARDS, "<PHONE>": PHONES}
CLEAN = """Version 2.14.3 of the book (ISBN 978-0-306-40615-7, formerly 0-306-40615-2 and 9783161484100) came out on 2019-05-12, or 12/05/2019 at 10:30:45.
It cost $1,234.56 in 1999 and £99.99 to £1,299.00 in 2001-2005, for 1,234,567,890 readers; pi is 3.14159265358979, and 0.4111111111111111 is not.
On the router at 192.168.1.100 or fe80::1 or 10.0.0.1, package v1.2.3.4 and section 1.2.3.4.5 of foo-4.1.2.3.tar.gz call std::vector and ::add; see
@bob, bob@localhost, a@b, https://example.org/@bob and 5 @ $3. Order 4111111111111112, serial 1234 5678 9012 3456, 1.4111111111111111,
id 41111111111111110000, hash 4111111111111111ab, at 1546300800000 ms, pages 100-200, 300-400, years 1914 1918 1939 1945, 300.300.300.300,
x4111111111111111, 4111 11 11 11 11 11 11; ISBN 90-04-10051-2, ISBN-10: 9004100512, and 90 04 10051 2 again. At 2027-01-02 22:46:20."""


def make(**fields):
    return Pii(**{**base.get_config().pii, **fields})


def masked(text, **fields):
    return make(**fields)({"key": "0", "text": text})["text"]


@pytest.mark.parametrize("mask, planted", [(mask, planted) for mask, examples in PLANTED.items() for planted in examples])
def test_personal_data_is_found_wherever_it_stands(mask, planted):
    for around in ("{}", "Write to {}.", "({}), or", "as:\n{}\nand", "“{}”!", "[{}]", "in 2019 {} or 2020", "Nº {}; {}, {}"):
        assert masked(around.replace("{}", planted)) == around.replace("{}", mask)


def test_all_kinds_are_found_in_one_text():
    before = {"key": "0", "text": " or ".join([*EMAILS, *IPS, *CARDS, *PHONES])}
    after = make()(before)
    assert after == {"key": "0", "text": " or ".join(mask for mask, examples in PLANTED.items() for _ in examples)}
    assert before["text"].startswith(EMAILS[0]) and make()(after) is after


@pytest.mark.parametrize("line", CLEAN.split("\n"))
def test_what_only_looks_like_it_stays(line):
    clean = {"key": "0", "text": line}
    assert make()(clean) is clean


def test_four_numbers_are_an_address_whatever_stands_before():
    assert masked("version 1.2.3.4") == "version <IP>"


def test_what_stands_before_the_sign_of_mail_has_64_characters_at_most():
    assert masked("x" * 64 + "@example.com") == "<EMAIL>" and masked("x" * 65 + "@example.com") == "x" * 65 + "@example.com"


@pytest.mark.parametrize("text", ["", "No digit and no sign of mail, however long this may be."])
def test_a_text_without_digits_is_the_same_document(text):
    clean = {"key": "0", "text": text}
    assert make()(clean) is clean


def test_the_order_of_kinds_does_not_matter():
    text = " and ".join([*EMAILS, *IPS, *CARDS, *PHONES, "2025550123@example.com"])
    kinds = base.get_config().pii.kinds
    assert {masked(text, kinds=order) for order in itertools.permutations(kinds)} == {masked(text)}


@pytest.mark.parametrize("mask, kind", [("<EMAIL>", "email"), ("<IP>", "ip"), ("<CARD>", "card"), ("<PHONE>", "phone")])
def test_only_the_kinds_asked_for_are_masked(mask, kind):
    text = " or ".join(examples[0] for examples in PLANTED.values())
    assert masked(text, kinds=(kind,)) == text.replace(PLANTED[mask][0], mask)


def test_numbers_without_a_country_are_those_of_the_region():
    text = "Call 030 901820 or 0131 496 0123."
    assert masked(text) == text
    assert masked(text, region="DE") == "Call <PHONE> or 0131 496 0123." and masked(text, region="GB") == "Call 030 901820 or <PHONE>."


def test_one_digit_tells_a_card():
    assert [digit for digit in range(10) if masked(f"411111111111111{digit}") == "<CARD>"] == [1]


def test_a_long_text_takes_no_longer_than_its_length():
    began = time.perf_counter()
    for text in ("a." * 50_000, "a'" * 50_000 + "@", "a@" + "b-" * 50_000, "a@" + "b." * 50_000, "1" * 100_000, "2001:" * 20_000, "1." * 50_000):
        assert masked(text, kinds=("email", "ip", "card")) == text
    assert time.perf_counter() - began < 5


def test_the_rule_travels_to_workers():
    assert pickle.loads(pickle.dumps(make())) == make()


def test_an_unknown_kind_or_region_is_refused():
    with pytest.raises(UserError, match="pii.kinds has 'mail': give some of email, ip, card, phone"):
        make(kinds=("email", "mail"))
    with pytest.raises(UserError, match="pii.region is 'us': give a country as in ISO 3166"):
        make(region="us")
