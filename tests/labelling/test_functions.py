import pytest

from configs.data import movie_reviews_weak
from research.core.errors import UserError
from research.labelling import functions

SOURCE = """
def shout(text):
    return "loud" if "!" in text else None
lf_shout = shout
def lf_length(text):
    return "loud" if len(text) > 9 else "quiet"
lf_number = 3
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "mine.py").write_text(text)
        return str(tmp_path / "mine.py")

    return write


def test_functions_of_a_file_vote_by_the_number_of_the_class(written):
    found = functions.load(written(SOURCE))
    assert list(found) == ["lf_shout", "lf_length"]
    assert functions.votes(found, ["Ah!", "ah", "a long text"], ["loud", "quiet"]).tolist() == [[0, 1], [-1, 1], [-1, 0]]
    assert functions.votes(found, [], ["loud", "quiet"]).shape == (0, 2)


def test_a_list_says_which_functions_count(written):
    assert list(functions.load(written(SOURCE + "LABELLING_FUNCTIONS = [shout]"))) == ["shout"]
    with pytest.raises(UserError, match="two functions of one name"):
        functions.load(written(SOURCE + "LABELLING_FUNCTIONS = [shout, lf_shout]"))


def test_a_module_is_named_with_dots():
    assert functions.load("configs.data.movie_reviews_weak").keys() == functions.load(movie_reviews_weak.__file__).keys()


@pytest.mark.parametrize(
    "source, says", [("missing.py", "no file missing.py"), ("no.such.module", "no module no.such.module"), ("json", "json has no labelling function")]
)
def test_what_is_not_there_is_one_line(source, says):
    with pytest.raises(UserError, match=says):
        functions.load(source)


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize(
    "text, says",
    [
        ("def lf_a(text)\n    return None", r"cannot be loaded \(SyntaxError: .*line 1"),
        ("import no_such_package", r"cannot be loaded \(ModuleNotFoundError: No module named 'no_such_package'\)"),
        ("from json import no_such_name", r"cannot be loaded \(ImportError: cannot import name 'no_such_name'"),
    ],
)
def test_a_file_and_a_module_that_cannot_be_loaded_are_one_line(written, tmp_path, monkeypatch, as_file, text, says):
    path = written(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=f"^{path if as_file else 'mine'} {says}") as refused:
        functions.load(path if as_file else "mine")
    assert "\n" not in str(refused.value)


def test_an_error_while_a_file_is_loaded_keeps_its_traceback(written):
    with pytest.raises(ZeroDivisionError):
        functions.load(written("1 / 0"))


def test_a_vote_for_no_class_names_the_function(written):
    with pytest.raises(UserError, match="lf_length says 'quiet' of 'ah': it must return None or one of loud, soft"):
        functions.votes(functions.load(written(SOURCE)), ["ah"], ["loud", "soft"])


def test_an_error_in_a_function_keeps_its_traceback(written):
    with pytest.raises(ZeroDivisionError):
        functions.votes(functions.load(written("def lf_a(text): return 1 / 0")), ["a"], ["x", "y"])


@pytest.mark.parametrize(
    "text, votes",
    [
        ("A wonderful film.", {"plain_words": "positive"}),
        ("Tedious, and not very funny.", {"plain_words": "negative", "negated_praise": "negative"}),
        ("It is never dull.", {}),
        ("It is slow, but beautiful in the end.", {"after_contrast": "positive"}),
        ("Although it is beautiful, it is a boring film.", {"in_spite_of": "negative"}),
        ("One of the best films of the year.", {"best": "positive"}),
        ("Save your money: it feels like work.", {"waste": "negative", "looks_like": "negative"}),
        ("It runs too long and lacks a point.", {"too": "negative", "lack": "negative"}),
        ("This could have been a film?", {"could_have": "negative", "question": "negative"}),
        ("Just another sequel, beautifully shot.", {"just_another": "negative", "fine_adverb": "positive"}),
        ("Eine Frau, ein Hund: 映画.", {}),
        ("", {}),
    ],
)
def test_the_functions_for_movie_reviews_vote_as_they_say(text, votes):
    found = {name.removeprefix("lf_"): function(text) for name, function in functions.load("configs.data.movie_reviews_weak").items()}
    assert {name: vote for name, vote in found.items() if vote} == votes
