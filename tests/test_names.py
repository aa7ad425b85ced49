import unicodedata

import pytest

from emokd.names import essence, look_alikes, normal, normal_path, number_essence, undecodable


@pytest.mark.parametrize("word", ["colère", "Übung", "Zoë", "가", "Å"])
def test_both_forms_of_a_word_are_one_name(word):
    composed, decomposed = unicodedata.normalize("NFC", word), unicodedata.normalize("NFD", word)
    assert composed != decomposed
    assert normal(composed) == normal(decomposed) == composed
    assert normal_path(f"a/{decomposed}.png") == f"a/{composed}.png"


def test_spaces_and_unseen_marks_around_a_name_do_not_count():
    assert normal("\ufeff glad\u00a0\n") == normal("\u200bglad") == "glad"
    assert normal("very  glad") == "very  glad"


@pytest.mark.parametrize("path", ["a/b.png", "./a/b.png", "a//b.png", ".\\a\\b.png", "a/./b.png", "c/../a/b.png"])
def test_paths(path):
    assert normal_path(path) == "a/b.png"


def test_look_alikes():
    assert essence("Very Glad") == essence("very\u00a0glad") == essence("ＶＥＲＹ\u200bglad") == "veryglad"
    assert look_alikes(["Happy", "happy", "sad", "happy"]) == [("Happy", "happy")]
    assert look_alikes(["-1", "1", "0"]) == []
    assert look_alikes(["s1", "s01", "S 1", "s10", "s2"], by=number_essence) == [("S 1", "s01", "s1")]
    assert number_essence("7.0") == number_essence("007") == "7"
    assert number_essence("1.50") == "1.50"
    assert number_essence("100") == "100"


def test_what_is_seen_as_one_letter_is_one():
    assert look_alikes(["KIZGIN", "kızgın", "İyi", "iyi"]) == [("KIZGIN", "kızgın"), ("iyi", "İyi")]
    assert look_alikes(["☹", "☹\ufe0f", "a\u034fb", "ab"]) == [("ab", "a\u034fb"), ("☹", "☹\ufe0f")]
    assert undecodable(["é", "caf\udce9", "a"]) == ["caf\udce9"]
