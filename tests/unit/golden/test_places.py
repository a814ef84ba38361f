"""Addresses that golden remembers from job to job, and those that it must not."""

from __future__ import annotations

import numpy as np
import pytest

from vitrify.arch.access import Access, Taps
from vitrify.arch.errors import ProgramError
from vitrify.arch.presets import preset
from vitrify.golden.memory import TokenMemory
from vitrify.golden.places import Places

INDEX = np.arange(8)
TOKENS = TokenMemory(preset("nano"))


def test_addresses_are_found_once_for_each_group_of_c_tiles():
    where = Access(3, 4, rows=5, width=2, step=7, group=2)
    places = Places(where, TOKENS)
    for c in (0, 1, 2, 3, 0):
        found = places.words(INDEX, c)
        assert found.read is None
        np.testing.assert_array_equal(found.planes, [where.words(c)])
    assert places.words(INDEX, 0) is places.words(INDEX, 1)
    assert places.row_ids(INDEX) is places.row_ids(INDEX)


def test_rows_of_a_list_are_those_of_the_memory_at_that_time():
    where = Access(0, 1, rows=3, width=1, list_base=2)
    places = Places(where, TOKENS)
    for index in (INDEX, INDEX[::-1].copy()):
        np.testing.assert_array_equal(places.words(index).planes, [where.words(0, index)])
        assert (places.row_ids(index) == where.row_ids(index)).all()


def test_pairs_have_two_planes_and_taps_outside_of_the_map_are_not_read():
    taps = Taps(3, 1, 1, height=2, width=1, out_width=1, origin_y=-1, origin_x=0)
    where = Access(5, 2, rows=2, width=1, wide=True, taps=taps)
    found = Places(where, TOKENS).words(INDEX)
    assert found.read.tolist() == [[False, True, True], [True, True, False]]
    for plane, words in zip(found.planes, TOKENS.pair(np.maximum(where.words(), 0)), strict=True):
        assert (plane[found.read] == words[found.read]).all()


def test_words_outside_of_the_memory_are_refused():
    where = Access(preset("nano").token_words, 1, rows=1, width=1)
    with pytest.raises(ProgramError, match="outside"):
        Places(where, TOKENS).words(INDEX)
