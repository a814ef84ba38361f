"""Addresses that golden remembers from job to job, and those that it must not."""

from __future__ import annotations

import numpy as np

from vitrify.arch.access import Access
from vitrify.golden.places import Places

INDEX = np.arange(8)


def test_addresses_are_found_once_for_each_group_of_c_tiles():
    where = Access(3, 4, rows=5, width=2, step=7, group=2)
    places = Places(where)
    for c in (0, 1, 2, 3, 0):
        assert (places.words(INDEX, c) == where.words(c)).all()
    assert places.words(INDEX, 0) is places.words(INDEX, 1)
    assert places.row_ids(INDEX) is places.row_ids(INDEX)


def test_rows_of_a_list_are_those_of_the_memory_at_that_time():
    where = Access(0, 1, rows=3, width=1, list_base=2)
    places = Places(where)
    for index in (INDEX, INDEX[::-1].copy()):
        assert (places.words(index) == where.words(0, index)).all()
        assert (places.row_ids(index) == where.row_ids(index)).all()
