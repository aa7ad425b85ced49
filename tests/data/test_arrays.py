"""Files of arrays that are damaged, or claim more than they hold: one message, and nothing is allocated for it."""

import io
import os
import struct
import zipfile

import numpy as np
import pytest

from emokd.data import npy
from emokd.data.arrays import read_npz
from emokd.errors import InputError


def stored(array=None) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(6.0).reshape(2, 3) if array is None else array)
    return buffer.getvalue()


def with_header(text: str) -> bytes:
    content = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(content)) + content + bytes(48)


def pack(path, content: bytes, method=zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", content)
    return str(path)


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_a_header_says_what_numpy_reads(version):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.zeros((3, 2), ">f4"), version=version)
    buffer.seek(0)
    assert npy.header(buffer, len(buffer.getvalue())) == ((3, 2), np.dtype(">f4"))
    np.testing.assert_array_equal(np.frombuffer(buffer.read(), ">f4"), np.zeros(6))


HEADERS = {
    "more than is there": "{'descr': '<f8', 'fortran_order': False, 'shape': (300000000000,), }",
    "less": "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }",
    "negative": "{'descr': '<f8', 'fortran_order': False, 'shape': (-6,), }",
    "brackets": "{'descr': '<f8', 'fortran_order': False, 'shape': (((((((2, }",
    "no dict": "3",
    "no type": "{'descr': '<q9', 'fortran_order': False, 'shape': (6,), }",
    "code": "{'descr': '<f8', 'fortran_order': False, 'shape': (exit(),), }",
    "nul": "\0" * 40,
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_wrong_header_is_one_message(tmp_path, name):
    path = pack(tmp_path / "a.npz", with_header(HEADERS[name]))
    with pytest.raises(InputError, match=r"a\.npz cannot be read as an \.npz file: .*Save it again"):
        read_npz(path, ["x"])


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00" + bytes(90), stored()[:100], stored()[:-8]]
)
def test_a_cut_member_is_one_message(tmp_path, content):
    with pytest.raises(InputError, match="cannot be read as an .npz file"):
        read_npz(pack(tmp_path / "a.npz", content), ["x"])


def test_python_objects_are_refused(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="array 'x' is of Python objects, which are never opened"):
        read_npz(pack(tmp_path / "a.npz", buffer.getvalue()), ["x"])


def test_gigabytes_of_zeros_in_a_small_file_are_not_inflated(tmp_path):
    """A header and 400 MB of zeros, which deflate makes a thousandth."""
    size = 400_000_000
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x.npy", "w") as member:
            member.write(header.getvalue())
            for _ in range(size // 10_000_000):
                member.write(bytes(10_000_000))
    with pytest.raises(InputError, match=r"array 'x' would take 400,000,\d+ bytes, 100 times or more"):
        read_npz(str(tmp_path / "a.npz"), ["x"])


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"is not an \.npz file"):
        read_npz(str(tmp_path / "a.npz"), ["x"])


def test_flipped_bytes_anywhere_are_read_or_refused(tmp_path):
    """200 seeded changes of the file: each gives the arrays or an InputError."""
    pack(tmp_path / "a.npz", stored(), zipfile.ZIP_STORED)
    whole = (tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            content[place] = rng.integers(0, 256)
        (tmp_path / "b.npz").write_bytes(content)
        try:
            assert read_npz(str(tmp_path / "b.npz"), ["x"])["x"].size == 6
        except InputError:
            refused += 1
    assert refused > 100
