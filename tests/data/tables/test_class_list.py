import pytest

from emokd.data.options import several
from emokd.data.tables.class_list import as_classes, read_classes
from emokd.errors import InputError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_in_any_encoding(tmp_path, encoding, end):
    path = tmp_path / "classes.txt"
    path.write_bytes(end.join(["angry", "cole\u0300re, or so ", "joie", "", ""]).encode(encoding))
    assert read_classes(str(path)) == ["angry", "colère, or so", "joie"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\n\nb\n", r"classes\.txt: class name line 2 is empty"),
        (b"a\nb\na\n", r"classes\.txt names 'a' twice \(line 1, line 3\)"),
        (b"a\nHappy\nhappy \n", r"'Happy' \(line 2\) and 'happy' \(line 3\) differ in letter case"),
        ("col\u00e8re\ncole\u0300re\n".encode(), r"names 'colère' twice"),
        (b"\n\n", r"classes\.txt is empty"),
        ("colère\n".encode("latin-1"), r"classes\.txt is not UTF-8 text .*Save it as UTF-8"),
        ("angry\nsad\n".encode("utf-16-le"), r"UTF-16 without a byte order mark"),
        (b"a\0b\n", r"line 1: there is the control character"),
        (b"0 angry\n1 happy\n", r"number beside the name, such as line 1: '0 angry'"),
        (b"0\tangry\n1\thappy\n", r"number beside the name"),
        (b"1. angry\n2. happy\n", r"number beside the name, such as line 1: '1\. angry'"),
        (b"1) angry\n2) happy\n", r"number beside the name"),
        (b"(1) angry\n(2) happy\n", r"number beside the name"),
        (b"angry,0\nhappy,1\n", r"number beside the name, such as line 1: 'angry,0'"),
        (b"happy: 2\nangry: 1\n", r"number beside the name"),
        (b"- angry\n- happy\n", r"begins with the sign of a list, such as line 1: '- angry'"),
        (b"angry\tA\nhappy\tH\n", r"name line 1 is 'angry\\tA', with '\\t' in it"),
        (b"angry,happy\n", r"all names in one line. Give one class name per line"),
        (b"# in order\nangry\nhappy\n", r"line 1 seems to be a comment"),
        (b"[\n'angry',\n'happy'\n]\n", r"name line 1 is '\['"),
        ("angry\u2028happy\n".encode(), r"'\\u2028' in it"),
    ],
)
def test_refused_with_the_line(tmp_path, data, message):
    path = tmp_path / "classes.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_classes(str(path))


@pytest.mark.parametrize(
    "names",
    [
        ["pain 0", "pain 1", "pain 2"],
        ["level 1", "level 2"],
        ["0", "1", "2"],
        ["BL1", "PA1", "PA2"],
        ["happy 1", "happy 2", "sad 1"],
        ["1.5 m", "2.5 m"],
        ["-1", "0", "+1"],
        ["low 10", "high 90"],
    ],
)
def test_names_with_numbers_in_them(tmp_path, names):
    (tmp_path / "classes.txt").write_text("\n".join(names))
    assert read_classes(str(tmp_path / "classes.txt")) == names


def test_a_misspelt_file_is_no_class():
    with pytest.raises(InputError, match=r"--classes=nowhere/classes\.txt: there is no such file"):
        read_classes("nowhere/classes.txt")


def test_lists_in_a_configuration():
    assert as_classes("sad, calm", "here") == as_classes(["sad ", "calm"], "here") == ("sad", "calm")
    assert as_classes([0, 1], "here") == ("0", "1")
    for given, message in (("sad,,calm", "number 2 is empty"), ("sad, sad", "'sad' twice"), ("Sad,sad", "letter case")):
        with pytest.raises(InputError, match=f"here.*{message}"):
            as_classes(given, "here")


def test_names_in_quotes(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text('"fear, or so"\n"angry"\n')
    assert read_classes(str(path)) == ["fear, or so", "angry"] == read_classes('"fear, or so", angry')
    assert as_classes(["(none)", "[other]", ":(", "don't know"], "here") == ("(none)", "[other]", ":(", "don't know")


@pytest.mark.parametrize("given", ["['sad', 'calm']", '["sad", "calm"]', "('sad', 'calm')", "[sad, calm]"])
def test_a_list_in_another_notation_is_no_list_of_names(given):
    with pytest.raises(InputError, match=r"here.*Give .*a,b,c"):
        as_classes(given, "here")


def test_a_list_longer_than_a_file_name_may_be():
    names = [f"class-{i}" for i in range(100)]
    assert read_classes(",".join(names)) == names


def test_a_number_in_place_of_a_list():
    with pytest.raises(InputError, match=r"config\.data\.options\.classes is 8, which is no list of classes"):
        as_classes(8, "config.data.options.classes")
    with pytest.raises(
        InputError, match=r"config\.data\.options\.inputs is 5, which is no list\. Name one or more of a, b"
    ):
        several("inputs", 5, ("a", "b"))


def test_names_that_end_in_numbers_are_names_which_is_said(tmp_path, caplog):
    path = tmp_path / "classes.txt"
    path.write_text("no pain 0\nmild 1\nsevere 2\n")
    assert read_classes(str(path)) == ["no pain 0", "mild 1", "severe 2"]
    assert "every name ends in another number, such as 'no pain 0'" in caplog.text
    caplog.clear()
    path.write_text("pain 0\npain 1\n")
    assert read_classes(str(path)) == ["pain 0", "pain 1"] and not caplog.text
