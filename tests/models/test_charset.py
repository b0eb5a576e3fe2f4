"""The charset keeps every character, whatever it means to a regular expression."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from str_app.models.charset import PRINTABLE_94, Charset, CharsetError


@given(st.text(alphabet=PRINTABLE_94, max_size=40))
def test_round_trip(text):
    charset = Charset()
    assert charset.decode(charset.encode(text)) == text


@given(st.lists(st.characters(exclude_categories=("C", "Z", "M")), min_size=1, max_size=30, unique=True))
def test_any_characters_in_any_order(chars):
    charset = Charset(chars)
    text = "".join(reversed(chars))
    assert charset.decode(charset.encode(text)) == text
    assert charset.missing(text) == set()


@pytest.mark.parametrize("characters", ["^-a]", "a-z", r"\d.*", "[]", "+-^$|?(){}"])
def test_metacharacters_mean_themselves(characters):
    charset = Charset(characters)
    assert charset.missing("q" + characters) == {"q"} - set(characters)


def test_no_end_token_keeps_the_last_character():
    charset = Charset("abc")
    assert charset.decode([1, 2, 3]) == "abc"
    assert charset.decode([1, 2, 0, 3]) == "ab"
    assert charset.decode([0]) == ""


def test_94_characters_and_the_end():
    assert len(Charset()) == 94
    assert Charset().num_classes == 95


@pytest.mark.parametrize(
    ("characters", "words"),
    [
        ("", "empty"),
        ("aba", "'a', occurs twice: remove one of them$"),
        ("aoa\u0308", "'a', occurs twice: remove one of them, or save the charset in NFC"),
        ("a\n", "control"),
        (["ab"], "one character"),
        ([""], "one character"),
    ],
)
def test_unusable_charsets_name_the_entry(characters, words):
    with pytest.raises(CharsetError, match=words):
        Charset(characters)


@pytest.mark.parametrize("form", ["\u00fc", "u\u0308"])
def test_a_text_is_spelled_as_the_charset_has_its_accents(form):
    charset = Charset("ab" + form)
    for text in ("b\u00fc", "bu\u0308"):
        assert charset.spelled(text) == "b" + form
    assert charset.spelled("x\u00fc") == "x\u00fc"


def test_unknown_character_is_named():
    with pytest.raises(CharsetError, match="'é' of 'café'"):
        Charset().encode("café")


def test_the_other_case_of_each_class():
    charset = Charset("aA1bßİı")
    assert charset.other_case == (0, 2, 1, 3, 4, 5, 6, 7)
    assert Charset("ıIi").other_case == (0, 1, 3, 2)  # I is not the capital of the first, or it would have two
    both = Charset(PRINTABLE_94).other_case
    assert all(both[both[index]] == index for index in range(95))
    assert sum(swapped != index for index, swapped in enumerate(both)) == 52
