import pytest

from research.data import wordnet

NOUN = """  1 This software and database is being provided to you, the LICENSEE, by  
  2   
00001740 03 n 02 movie 0 motion_picture 0 002 ~ 00001930 n 0000 + 02137132 v 0101 | entertainment; "they went to see a movie every Saturday night"
00001741 03 n 02 glass 0 Drinking_glass 1 000 | a container
00001742 03 n 0b one 0 two 0 three 0 four 0 five 0 six 0 seven 0 eight 0 nine 0 ten 0 eleven 0 001 @ 00001740 n 0000 | eleven, which is b
00001743 03 n 01 alone 0 000 | of no other word
"""  # noqa: W291
ADJECTIVE = """  1 This software
00003000 00 s 02 handy 0 ready_to_hand(p) 0 000 | easy to reach
00003001 00 a 02 fine 0 good(a) 0 000 | as it should be
"""


@pytest.fixture
def synonyms(tmp_path):
    files = {".noun": NOUN, ".verb": "00002000 29 v 02 film 0 shoot a 000 | record\n", ".adj": ADJECTIVE, ".adv": ""}
    for ending, text in files.items():
        (tmp_path / f"data{ending}").write_text(text)
    return wordnet.Synonyms({ending: tmp_path / f"data{ending}" for ending in files})


@pytest.mark.parametrize(
    "word, found",
    [
        ("movie", ("motion picture",)),
        ("Movies", ("motion picture",)),
        ("drinking glass", ("glass",)),
        ("glasses", ("drinking glass",)),
        ("films", ("shoot",)),
        ("filming", ("shoot",)),
        ("finer", ("good",)),
        ("handy", ("ready to hand",)),
        ("ready to hand", ("handy",)),
        ("eleven", ("eight", "five", "four", "nine", "one", "seven", "six", "ten", "three", "two")),
        ("alone", ()),
        ("licensee", ()),
        ("café", ()),
        ("", ()),
    ],
)
def test_synonyms_of_words_and_their_regular_inflections(synonyms, word, found):
    assert synonyms(word) == found


@pytest.mark.slow
def test_the_package_is_wordnet():
    known = wordnet.load()
    assert {"film", "motion picture"} <= set(known("movies")) and "go" in known("travelled") + known("traveling") and known("happily")
