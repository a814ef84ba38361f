"""A core refuses what it is without, and everybody what contradicts itself."""

from __future__ import annotations

import dataclasses

import pytest

from vitrify.arch import isa, support
from vitrify.arch.config import MECHANISMS
from vitrify.arch.errors import ProgramError
from vitrify.arch.isa import Opcode, Output, RowScale, Stationary, Stats, Transform
from vitrify.arch.modes import Combine
from vitrify.arch.presets import preset

NANO = preset("nano")
BARE = dataclasses.replace(NANO, name="bare", experts=0, **dict.fromkeys(MECHANISMS, False))
USES = {
    "stored_weights": {"stationary": Stationary.STORED},
    "addends": {"output": Output.ADD8},
    "products": {"transform": Transform.PRODUCT},
    "row_sums": {"stats": Stats.RMS},
    "nibbles": {"nibbles": 1},
    "experts": {"expert_rows": 1},
}


def matmul(**fields: int) -> isa.Instruction:
    own = {name: value for name, value in fields.items() if name not in isa.NO_PATTERN}
    more = {name: value for name, value in fields.items() if name in isa.NO_PATTERN}
    return isa.attach(isa.make(Opcode.MATMUL, **own), isa.make(Opcode.PATTERN, **more))[0]


@pytest.mark.parametrize("name", USES)
def test_a_bare_core_refuses(name: str) -> None:
    op = matmul(**USES[name])
    support.check(NANO, op)
    with pytest.raises(ProgramError, match=f"arch 'bare' is without '{name}'"):
        support.check(BARE, op)


@pytest.mark.parametrize("fields", [
    {"stats": Stats.SUM}, {"row_scale": RowScale.STATISTIC}, {"row_scale": RowScale.OPERAND},
])
def test_sums_of_rows(fields: dict[str, int]) -> None:
    support.check(NANO, matmul(**fields))
    with pytest.raises(ProgramError, match="is without 'row_sums'"):
        support.check(BARE, matmul(**fields))


def test_a_bare_core_has_softmax_and_layernorm() -> None:
    support.check(BARE, matmul(transform=Transform.EXP2, row_scale=RowScale.OPERAND))
    support.check(BARE, matmul(transform=Transform.NORM, stats=Stats.NORM, output=Output.ADD16))


def test_a_bare_core_refuses_a_pattern() -> None:
    with pytest.raises(ProgramError, match="without 'patterns', which a PATTERN would need"):
        support.check(BARE, isa.make(Opcode.PATTERN))


@pytest.mark.parametrize(("fields", "message"), [
    ({"gate": 1, "row_scale": 1}, "either gate or row_scale"),
    ({"gate": 1, "add_source": 1}, "either gate or add_source"),
    ({"transform": Transform.EXP2, "row_scale": RowScale.STATISTIC}, "stat_src either"),
    ({"combine": Combine.MAX, "output": Output.ADD8, "activation": 1}, "either a maximum"),
    ({"tapped": 1, "taps_x": 3, "k_tiles": 2}, "1 x 3 taps of 1 k tiles cannot have 2"),
    ({"k_step": 1, "load_stream": 1}, "follows a load word by word only"),
    ({"repeats": 1}, "repeated only if its tiles are ROWS or COLUMNS"),
    ({"repeats": 1, "stationary": Stationary.ROWS, "load_stream": 1}, "only if it is not repeated"),
    ({"repeats": 1, "stationary": Stationary.ROWS, "expert_rows": 1}, "cannot be repeated"),
    ({"nibbles": 1, "stationary": Stationary.STORED}, "4 bits only in its stream"),
    ({"nibbles": 1, "stationary": Stationary.ROWS}, "4 bits only in its stream"),
    ({"load_gain": 1, "gain_words": 1000}, "more gains than the 512 words"),
])
def test_what_contradicts_itself(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        support.check(NANO, matmul(**fields))


def test_two_tiles_in_a_pass_stream_the_same_words() -> None:
    both = dataclasses.replace(NANO, name="both", nibble_tiles=2)
    op = matmul(nibbles=1, k_step=1)
    support.check(NANO, op)
    with pytest.raises(ProgramError, match="takes two c tiles at once, which stream the same"):
        support.check(both, op)
    assert {"nibbles": (), "k_step": ()} in support.forbidden(both)
    support.check(both, matmul(k_step=1))


def test_wide_tiles_are_of_nibbles_alone() -> None:
    thirds = dataclasses.replace(
        NANO, name="thirds", depth=4, width=8, packing=True, nibble_thirds=True)
    wide = matmul(nibbles=1, c_last=12)
    support.check(thirds, wide)
    for fields, message in (
        ({"c_last": 12}, "a MATMUL has more than 8 columns in a tile only with weights of 4 bits"),
        ({"nibbles": 1, "k_step": 1}, "4 bits or c tiles that stream words of their own"),
        ({"nibbles": 1, "transform": Transform.EXP2}, "weights of 4 bits by signed bytes"),
        ({"nibbles": 1, "c_last": 13}, "MATMUL.c_last must be 1 to 12 on arch 'thirds', not 13"),
    ):
        with pytest.raises(ProgramError, match=message):
            support.check(thirds, matmul(**fields))
    with pytest.raises(ProgramError, match="c_last must be 1 to 4"):
        support.check(NANO, wide)
    assert {"nibbles": (0,), "c_last": (9, 10, 11, 12)} in support.forbidden(thirds)
    both = dataclasses.replace(thirds, nibbles=False, nibble_thirds=False)
    support.check(both, matmul(k_step=1, transform=Transform.EXP2))


def test_what_the_hardware_has_to_look_for() -> None:
    """Only what fields within the limits of the core can meet."""
    assert [sorted(condition) for condition in support.forbidden(BARE)] == [
        ["row_scale", "transform"]]
    full = [sorted(condition) for condition in support.forbidden(NANO)]
    assert ["gate", "row_scale"] in full
    assert ["add_source", "gate"] in full
    assert full.count(["row_scale", "transform"]) == 1
