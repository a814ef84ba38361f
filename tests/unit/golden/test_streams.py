"""Weight streams: an image has equal ones once, and MATMULs that share one may differ."""

from __future__ import annotations

import numpy as np
import pytest

from vitrify.arch import formats, isa
from vitrify.arch.errors import ProgramError
from vitrify.arch.isa import Opcode, Stationary
from vitrify.arch.presets import preset
from vitrify.golden.machine import Machine

NANO = preset("nano")
ROWS, DST = 3, 2 * NANO.bank_words


def run(*different: dict[str, int]) -> list[np.ndarray]:
    """What MATMULs write that multiply activations, and load the same table."""
    table = np.arange(formats.TABLE_ENTRIES, dtype=np.uint8)
    size = isa.INSTRUCTION_BYTES * (len(different) + 1)
    ops = [
        isa.make(Opcode.MATMUL, **{
            "rows": ROWS, "src_stride": 1, "stationary": Stationary.ROWS, "st_stride": 1,
            "dst_addr": DST, "dst_stride": 1, "load_table": 1, "stream_offset": size,
            "stream_words": NANO.table_words, "k_last": NANO.depth, "c_last": NANO.width, **own,
        }) for own in different
    ]
    code = b"".join(isa.pack(op) for op in [*ops, isa.make(Opcode.END)])
    machine, found = Machine(NANO), []
    machine.tokens.bytes[: NANO.width] = np.random.default_rng(1).integers(
        0, 5, (NANO.width, NANO.depth))
    machine.run(np.concatenate([np.frombuffer(code, np.uint8), table]), len(different) + 1,
                np.zeros(0, np.uint8), 0, lambda _n, _op, written: found.append(written))
    return found


def test_each_has_its_own_multiplier() -> None:
    one, half = run({"multiplier": 1 << 12}, {"multiplier": 1 << 11})
    assert one.any()
    np.testing.assert_array_equal(half, one + 1 >> 1)


def test_each_length_is_checked() -> None:
    with pytest.raises(ProgramError, match=rf"has 1 words where {NANO.table_words} are needed"):
        run({}, {"stream_words": 1})
