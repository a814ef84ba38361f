"""Weight streams: what the compiler packs, the golden machine reads back."""

from __future__ import annotations

import numpy as np
import pytest

from vitrify.arch import isa, memmap
from vitrify.arch.presets import PRESETS
from vitrify.codegen.pack import ImageBuilder, gain_words, table_words, weight_words
from vitrify.golden.machine import Machine
from vitrify.selftest.programs import random_weights


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("columns", "depth"), [(1, 1), (7, 20), (64, 64), (100, 75)])
@pytest.mark.parametrize("nibbles", [False, True])
def test_stream_round_trip(name: str, columns: int, depth: int, nibbles: bool) -> None:
    arch = PRESETS[name]
    rng = np.random.default_rng(columns * depth)
    weight = random_weights(arch, rng, columns, depth, nibbles)
    bias = rng.integers(-(2**27), 2**27, columns).astype(np.int32)
    multiplier = rng.integers(0, 2**16, columns).astype(np.uint16)
    gain = rng.integers(0, 256, depth).astype(np.uint8)
    table = rng.integers(-128, 128, 256).astype(np.int8)
    stream = np.concatenate([gain_words(arch, gain), table_words(table),
                             weight_words(arch, weight, bias, multiplier, nibbles=nibbles)])
    width = arch.tile_width(nibbles)
    k_tiles, c_tiles = -(-depth // arch.depth), -(-columns // width)
    op = isa.make(
        isa.Opcode.MATMUL, rows=1, k_tiles=k_tiles, k_last=depth - (k_tiles - 1) * arch.depth,
        c_tiles=c_tiles, c_last=columns - (c_tiles - 1) * width, load_gain=1, load_table=1,
        stream_offset=0, stream_words=len(stream) // arch.depth, nibbles=int(nibbles),
    )
    assert memmap.stream_layout(arch, op).total == op.stream_words
    machine = Machine(arch)
    machine._image = stream
    decoded = machine._stream(op)
    assert (decoded.weight == weight).all()
    assert (decoded.bias == bias).all()
    assert (decoded.multiplier == multiplier).all()
    assert decoded.gain is not None
    assert (decoded.gain[:depth] == gain).all()  # whole words
    assert (decoded.table == table).all()


def test_equal_blocks_are_stored_once() -> None:
    arch = PRESETS["nano"]
    image = ImageBuilder(arch)
    first = image.add(np.arange(10, dtype=np.uint8))
    assert image.add(np.arange(11, dtype=np.uint8)) == 16
    assert image.add(np.arange(10, dtype=np.uint8)) == first
    data, offset = image.build(bytes(isa.INSTRUCTION_BYTES))
    assert offset % arch.depth == 0
    assert data[offset : offset + 10].tolist() == list(range(10))
