"""NumPy files: what they hold, or one sentence before anything large is allocated."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from vitrify.arch.errors import InputError
from vitrify.runtime.arrays import read_array

ARRAY = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode("latin1").ljust(118) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + content


def test_what_numpy_writes(tmp_path):
    for array in (
        ARRAY, np.asfortranarray(ARRAY), ARRAY.astype(">f8"), ARRAY.astype(np.float16),
        np.float32(3), np.zeros((0, 3), np.uint8),
    ):
        np.save(tmp_path / "a.npy", array)
        found = read_array(tmp_path / "a.npy", "x")
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)
        found[...] = 0  # belongs to the caller
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "a.npz", x=ARRAY, y=ARRAY + 1)
        assert np.array_equal(read_array(tmp_path / "a.npz", "y"), ARRAY + 1)


def damaged(tmp_path):
    whole = io.BytesIO()
    np.savez_compressed(whole, x=np.random.default_rng(0).random(1000))
    data = bytearray(whole.getvalue())
    yield b"", "no NumPy file"
    yield b"PK", "no NumPy file"
    yield bytes(data[:-30]), "no NumPy file"
    yield bytes(data[:200] + b"\xff" * 40 + data[240:]), "no NumPy file"
    encrypted = data.copy()
    encrypted[6] |= 1
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    yield bytes(encrypted), "is encrypted; give it without a password"
    odd = data.copy()
    odd[odd.index(b"PK\1\2") + 10] = 97  # a method that nobody knows
    yield bytes(odd), "no NumPy file"
    yield npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"), \
        "shape .*, 4,000,000,000,000 bytes; at most 1,073,741,824 are read at once"
    yield npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }", b"12"), "no NumPy file"
    yield npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-9,), }"), "shape .*-9"
    yield npy("{'descr': '|O', 'fortran_order': False, 'shape': (), }", b"cos\nsystem\n"), "objects"
    yield npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }"), "records"
    yield npy("__import__('os').system('true')"), "no NumPy file"
    yield npy("(" * 100), "no NumPy file"
    yield b"\x93NUMPY\x09\0" + bytes(90), "no NumPy file"
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "x.npy",
            npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2000000000,), }", bytes(10**7)),
        )
    yield bomb.getvalue(), "2,000,000,000 bytes; at most"
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for i in range(100):
            archive.writestr("n" * 1000 + f"{i}.npy", b"")
    yield many.getvalue(), "has no array 'x'; its arrays are: n{64}, .*, …$"


def test_damage_and_bombs(tmp_path):
    path = tmp_path / "a.npz"
    for number, (data, message) in enumerate(damaged(tmp_path)):
        path.write_bytes(data)
        tracemalloc.start()
        with pytest.raises(InputError, match=message) as error:
            read_array(path, "x")
        assert tracemalloc.get_traced_memory()[1] < 1 << 25, number
        tracemalloc.stop()
        assert len(str(error.value)) < 1000, number


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(InputError, match="is no NumPy file"):
        read_array(tmp_path, "x")
