"""Access patterns: words of every loop, against the loops written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrify.arch import access, isa
from vitrify.arch.access import ZEROS, Access, Taps
from vitrify.arch.isa import Opcode, Stationary, Transform
from vitrify.arch.presets import preset

NANO = preset("nano")
small = st.integers(1, 5)
taps = st.builds(
    Taps, taps_y=small, taps_x=small, stride=small, height=small, width=small, out_width=small,
    origin_y=st.integers(-5, 5), origin_x=st.integers(-5, 5),
)


def matmul(pattern: dict[str, int] | None = None, **fields: int) -> isa.Instruction:
    before = None if pattern is None else isa.make(Opcode.PATTERN, **pattern)
    return isa.attach(isa.make(Opcode.MATMUL, **fields), before)[0]


@given(taps, st.integers(1, 12))
def test_pixels_of_taps(one: Taps, rows: int) -> None:
    found = one.pixels(rows)
    for row in range(rows):
        for tap_y in range(one.taps_y):
            for tap_x in range(one.taps_x):
                y = row // one.out_width * one.stride + tap_y + one.origin_y
                x = row % one.out_width * one.stride + tap_x + one.origin_x
                inside = 0 <= y < one.height and 0 <= x < one.width
                want = y * one.width + x if inside else ZEROS
                assert found[row, tap_y * one.taps_x + tap_x] == want


@given(taps, st.integers(1, 8), small, st.integers(0, 4), small, st.integers(0, 9))
def test_words(one: Taps, rows: int, width: int, step: int, group: int, c: int) -> None:
    rows_of = Access(100, 7, rows, width, taps=one, step=step, group=group)
    pixels, words = one.pixels(rows), rows_of.words(c)
    assert words.shape == (rows, one.taps_y * one.taps_x * width)
    for (row, k), word in np.ndenumerate(words):
        pixel = pixels[row, k // width]
        at = c // group * step + k % width
        assert word == (ZEROS if pixel == ZEROS else 100 + 7 * pixel + at)
    assert words.max() < rows_of.end(c + 1)


def test_lists_pick_rows_and_pixels() -> None:
    index = np.array([9, 5, 4, 7, 0])
    assert Access(10, 2, 3, 1, list_base=1).words(index=index).tolist() == [[20], [18], [24]]
    shifted = Taps(1, 1, 1, 1, 2, 3, 0, -1)
    assert Access(0, 1, 3, 1, list_base=2, taps=shifted).words(index=index).tolist() == [
        [ZEROS], [4], [7]]
    with pytest.raises(ValueError, match="list"):
        Access(0, 1, 1, 1, list_base=0).words()


def test_operands_of_a_matmul() -> None:
    op = matmul(rows=3, k_tiles=2, k_last=3, src_addr=50, src_stride=4,
                transform=Transform.SCALE, c_tiles=2, c_last=1, dst_addr=9, dst_stride=5)
    streamed = access.streamed(op)
    assert streamed.wide
    assert streamed.words().tolist() == [[50, 51], [54, 55], [58, 59]]
    assert access.shape(NANO, op) == (11, 5)
    assert access.result(NANO, op).words().tolist() == [[9], [14], [19]]
    assert access.old_values(NANO, op) is None
    assert access.stationary(NANO, op) is None
    assert access.valid_bytes(NANO, op).sum() == 11
    for source, rows in ((Stationary.ROWS, 5), (Stationary.COLUMNS, 11)):
        tiles = access.stationary(NANO, matmul(**{**op_fields(op), "stationary": source}))
        assert tiles is not None
        assert tiles.rows == rows


def op_fields(op: isa.Instruction) -> dict[str, int]:
    return {name: op.values[name] for name in ("k_tiles", "k_last", "c_tiles", "c_last")}


def test_old_values_from_elsewhere() -> None:
    fields = {"rows": 2, "c_last": 4, "dst_addr": 3, "dst_stride": 2, "add_addr": 80}
    here = access.old_values(NANO, matmul(output=isa.Output.ADD8, **fields))
    assert here is not None
    assert here.words().tolist() == [[3], [5]]
    there = access.old_values(NANO, matmul(
        {"add_source": 1, "add_stride": 7}, output=isa.Output.ADD16, **fields))
    assert there is not None
    assert there.wide
    assert there.words().tolist() == [[80], [87]]


def test_a_pattern_belongs_to_the_next_matmul() -> None:
    pattern, load = isa.make(Opcode.PATTERN, k_step=3), isa.make(Opcode.LOAD)
    waits = isa.attach(pattern, None)[1]
    assert isa.attach(load, waits) == (load, pattern)
    first, none = isa.attach(isa.make(Opcode.MATMUL), waits)
    assert (first.k_step, none) == (3, None)
    assert matmul().k_step == 0
    assert "k_step=3" in str(first)
    assert isa.unpack(isa.pack(first)) == isa.make(Opcode.MATMUL)


def test_repetitions_step_from_tensor_to_tensor() -> None:
    steps = {"src_step": 10, "st_step": 7, "dst_step": 5, "add_step": 0, "stat_src_step": 3,
             "stat_dst_step": 2}
    op = matmul({"repeats": 2, **steps}, src_addr=1, st_addr=2, dst_addr=3, add_addr=4, stat_src=5,
                stat_dst=6)
    names = ("src_addr", "st_addr", "dst_addr", "add_addr", "stat_src", "stat_dst")
    assert [[one.values[name] for name in names] for one in access.repetitions(op)] == [
        [1, 2, 3, 4, 5, 6], [11, 9, 8, 4, 8, 8], [21, 16, 13, 4, 11, 10]]
    assert access.repetitions(matmul()) == [matmul()]
