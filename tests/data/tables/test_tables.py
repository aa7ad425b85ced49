"""Tables and small text files as people save them, and what is refused with its place."""

import codecs
import os

import numpy as np
import pytest

from emokd.data.arrays import read_names, read_numbers
from emokd.data.tables.table import read_table
from emokd.data.tables.text import read_lines
from emokd.errors import InputError

TEXT = "id,label,x\na,colère,1.5\nb,joie,-2e-1\n"


def save(directory, data, name="t.csv"):
    path = directory / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


@pytest.mark.parametrize(
    "encoding",
    [
        "utf-8",
        "utf-8-sig",
        "utf-16",
        "utf-32",
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_one_table_in_every_encoding(tmp_path, encoding, end, delimiter):
    name, mark = encoding if isinstance(encoding, tuple) else (encoding, b"")
    text = TEXT.replace("\n", end).replace(",", delimiter)
    path = save(tmp_path, mark + text.encode(name))
    rows = read_table(path, required=("id",))
    assert [(row.line, row.text("label"), row.number("x")) for row in rows] == [(2, "colère", 1.5), (3, "joie", -0.2)]
    assert read_lines(path) == text.replace("\r\n", "\n").replace("\r", "\n").splitlines()


def test_the_note_on_the_separator_that_spreadsheets_write(tmp_path):
    rows = read_table(save(tmp_path, "sep=;\nid;x\na;1\n\nb;2\n"))
    assert [(row.line, row.text("id")) for row in rows] == [(3, "a"), (5, "b")]


@pytest.mark.parametrize(("before", "line"), [("\n", 1), ("  \r\n\r\n", 1), (",,\n", 1), ("sep=,\n\n", 2)])
def test_a_blank_line_before_the_header_is_named(tmp_path, before, line):
    with pytest.raises(
        InputError, match=rf"t\.csv, line {line} is blank, .* Remove what is before the line that names"
    ):
        read_table(save(tmp_path, before + TEXT))
    for empty in ("", before):
        with pytest.raises(InputError, match=r"t\.csv is empty\. It needs a header line"):
            read_table(save(tmp_path, empty))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TEXT.encode("latin-1"), r"t\.csv is not UTF-8 text \(line 2: .*Latin-1.*Save it as UTF-8"),
        (TEXT.encode("utf-16-le"), r"t\.csv is not UTF-8 text: .*UTF-16 without a byte order mark\. Save it as UTF-8"),
        (TEXT.encode("utf-16-be"), r"UTF-16 without a byte order mark"),
        (TEXT.encode("utf-16")[:-1], r"begins like UTF-16 text but is damaged or cut off"),
        (b"PK\x03\x04" + bytes(40), r"spreadsheet \(\.xlsx\).*Save it as UTF-8"),
        (b"\x1f\x8b\x08" + bytes(40), r"gzip archive"),
        (b"id,x\na\0b,1\n", r"line 2: .*control character '\\x00'"),
    ],
)
def test_what_is_no_text_is_refused_with_what_it_seems_to_be(tmp_path, data, message):
    path = save(tmp_path, data)
    for read in (read_table, read_lines):
        with pytest.raises(InputError, match=message):
            read(path)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"no\.csv does not exist"):
        read_table(str(tmp_path / "no.csv"))
    with pytest.raises(InputError, match=r"no\.csv does not exist"):
        read_lines(str(tmp_path / "no.csv"))
    with pytest.raises(InputError, match=r"cannot be read: Is a directory"):
        read_table(str(tmp_path))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("0_1", r"line 2: column 'x' holds '0_1', which is not a number"),
        ("１", r"'１', which is not a number\. Write it in the digits 0 to 9"),
        ("٣", r"which is not a number\. Write it in the digits"),
        ("−0.5", r"Write it in the digits 0 to 9, with '-'"),
        ('"0,5"', r"decimal comma as a point: 0\.5"),
        ("1e999", r"1e999, not a finite number"),
        ("0x1", r"not a number"),
        ("1 000", r"not a number"),
        ("inf", r"holds inf, not a finite number"),
    ],
)
def test_numbers_are_ascii_digits_with_a_point(tmp_path, cell, message):
    rows = read_table(save(tmp_path, f"id,x\na,{cell}\n"))
    with pytest.raises(InputError, match=message):
        rows[0].number("x")
    with pytest.raises(InputError, match=message):
        read_numbers(rows, ["x"])


def test_numbers_and_missing_cells(tmp_path):
    cells = ["1", "-1.", ".5", "+2E+3", "", "nan", "NA", "None", "null", "<NA>", "#N/A"]
    rows = read_table(save(tmp_path, "id,x\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells))))
    np.testing.assert_array_equal(read_numbers(rows, ["x"])[:, 0], np.float32([1, -1, 0.5, 2000, *[np.nan] * 7]))


def test_names_in_arrays_have_one_form():
    assert read_names("f", np.array(["Zoe\u0308 ", "b"])) == ["Zoë", "b"]
    assert read_names("f", np.array([3.0, 10.0])) == ["3", "10"]
    assert read_names("f", np.array(["Zoë".encode(), b"b"])) == ["Zoë", "b"]
    with pytest.raises(InputError, match="more than once: Zoë"):
        read_names("f", np.array(["Zoe\u0308", "Zoë"]))
    with pytest.raises(InputError, match="not UTF-8"):
        read_names("f", np.array([b"\xe4", b"b"]))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"a\.csv cannot be read: it is a pipe, not a file"):
        read_table(str(tmp_path / "a.csv"))
