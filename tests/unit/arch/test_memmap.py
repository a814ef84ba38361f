"""Layouts in memory: STORED tiles of nibbles."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pytest

from vitrify.arch.memmap import stored_thirds
from vitrify.arch.presets import preset
from vitrify.codegen.pack import tile_words


@pytest.mark.parametrize("width", [8, 16, 64, 256])
def test_a_pair_has_columns_that_are_written_apart(width: int) -> None:
    """An even column of the lower half with two odd ones, or two neighbours of the upper half."""
    order = stored_thirds(width)
    assert sorted(order) == list(range(3 * width // 4))
    pairs = list(zip(order[::2], order[1::2], strict=True))
    both, rest = pairs[: width // 4], pairs[width // 4 :]
    assert all(low < width // 4 and high >= width // 2 for low, high in both)
    # Even column 2 * word.
    assert all(width // 4 <= low < width // 2 and high == low + 1 and low % 2 == 0
               for low, high in rest)


def test_columns_of_a_stored_tile() -> None:
    """Byte d of word w holds depth d of columns 2w and 2w + 1 of the stream."""
    arch = dataclasses.replace(
        preset("nano"), depth=4, width=8, lanes=4, packing=True, nibble_thirds=True)
    weight = np.random.default_rng(1).integers(-8, 8, (24, 8)).astype(np.int8)
    words = tile_words(arch, weight, nibbles=True, stored=True).reshape(2, 2, 6, 4).view(np.int8)
    for c, k, (place, word) in product(range(2), range(2), enumerate(stored_thirds(8))):
        columns = weight[12 * c + 2 * word : 12 * c + 2 * word + 2, 4 * k : 4 * k + 4]
        found = words[c, k, place]
        np.testing.assert_array_equal(np.stack([found << 4 >> 4, found >> 4]), columns)
