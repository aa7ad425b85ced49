import pytest

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
    ],
)
def test_refused_with_the_line(tmp_path, data, message):
    path = tmp_path / "classes.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_classes(str(path))


def test_a_misspelt_file_is_no_class():
    with pytest.raises(InputError, match=r"--classes=nowhere/classes\.txt: there is no such file"):
        read_classes("nowhere/classes.txt")


def test_lists_in_a_configuration():
    assert as_classes("sad, calm", "here") == as_classes(["sad ", "calm"], "here") == ("sad", "calm")
    assert as_classes([0, 1], "here") == ("0", "1")
    for given, message in (("sad,,calm", "number 2 is empty"), ("sad, sad", "'sad' twice"), ("Sad,sad", "letter case")):
        with pytest.raises(InputError, match=f"here.*{message}"):
            as_classes(given, "here")
