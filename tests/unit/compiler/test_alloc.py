"""Token-memory allocation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vitrify.arch.errors import CapacityError
from vitrify.arch.memmap import pair_banks
from vitrify.arch.presets import preset
from vitrify.codegen.alloc import Allocator

NANO = preset("nano")


def test_blocks_never_overlap() -> None:
    rng = np.random.default_rng(7)
    memory, alive = Allocator(NANO), {}
    for i in range(400):
        if alive and rng.random() < 0.45:
            name = rng.choice(list(alive))
            memory.release(str(name))
            del alive[name]
            continue
        try:
            block = memory.place(f"t{i}", int(rng.integers(1, 200)), wide=bool(rng.random() < 0.4))
        except CapacityError:
            continue
        taken = set(block.where.tolist())
        assert len(taken) == block.words * (2 if block.wide else 1)
        assert all(taken.isdisjoint(other) for other in alive.values())
        assert max(taken) < NANO.token_words
        alive[f"t{i}"] = taken
    assert memory.peak_words > NANO.token_words // 2


def test_wide_blocks_follow_the_pair_layout() -> None:
    memory = Allocator(NANO)
    block = memory.place("residual", NANO.bank_words + 10, wide=True)
    expected = {w for p in range(block.address, block.address + block.words)
                for w in pair_banks(NANO, p)}
    assert set(block.where.tolist()) == expected


def test_simultaneous_reads_get_different_banks_when_there_is_room() -> None:
    memory = Allocator(NANO)
    keys = memory.place("keys", 40)
    queries = memory.place("queries", 40, apart=["keys"])
    banks = [set((b.where // NANO.bank_words).tolist()) for b in (keys, queries)]
    assert banks[0].isdisjoint(banks[1])


def test_sharing_a_bank_beats_giving_up() -> None:
    small = dataclasses.replace(NANO, banks=2)
    memory = Allocator(small)
    memory.place("keys", 300)
    assert memory.place("queries", 100, apart=["keys"]).words == 100


def test_no_room_says_how_much() -> None:
    memory = Allocator(NANO)
    memory.place("a", 1500)
    with pytest.raises(CapacityError, match=r"'b' needs 800 bytes .* 288 of the 12288 bytes"):
        memory.place("b", 100)


def test_planes_of_a_pair_stay_in_one_bank_each() -> None:
    """A plane has consecutive words: it cannot go on behind the bank of the other."""
    memory, size = Allocator(NANO), NANO.bank_words
    memory.place("before", size - 10, wide=True)
    assert memory.place("over the edge", 8, wide=True).address == size - 10
    block = memory.place("pair", 20, wide=True, in_bank=True)
    low, high = pair_banks(NANO, block.address)
    assert set(block.where) == {*range(low, low + 20), *range(high, high + 20)}
    with pytest.raises(CapacityError, match="'large'"):
        Allocator(NANO).place("large", size + 1, wide=True, in_bank=True)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("in_bank", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_the_first_or_last_place_that_is_free(wide: bool, in_bank: bool, last: bool) -> None:
    """Of all places that one by one are found to be, across borders of banks or not."""
    small = dataclasses.replace(NANO, banks=4, bank_words=16)
    size = small.bank_words
    for seed in range(100):
        rng, memory = np.random.default_rng(seed), Allocator(small)
        for i in range(8):
            memory.place(f"t{i}", int(rng.integers(1, 8)), last=bool(rng.random() < 0.5))
        for i in rng.choice(8, 4, replace=False):
            memory.release(f"t{i}")
        taken = {w for one in memory._blocks.values() for w in one.where.tolist()}
        words = int(rng.integers(1, 20))
        covers = {
            at: {w for p in range(at, at + words) for w in (pair_banks(small, p) if wide else (p,))}
            for at in range(small.token_words // (1 + wide) - words + 1)
            if not in_bank or at // size == (at + words - 1) // size
        }
        free = [at for at, where in covers.items() if taken.isdisjoint(where)]
        if not free:
            with pytest.raises(CapacityError):
                memory.place("new", words, wide=wide, in_bank=in_bank, last=last)
            continue
        block = memory.place("new", words, wide=wide, in_bank=in_bank, last=last)
        assert block.address == free[-1 if last else 0]
        assert memory.most_words() >= len(taken | set(block.where.tolist()))
