"""Tables of layers: those that differ only in the number of a block or a head are one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

Layer = TypeVar("Layer")

#: A number by itself: ``0`` in ``blocks.0.mlp.fc1`` and in ``scores[0]``, not the one in ``fc1``.
_NUMBER = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])")


def add_layers(parser: argparse.ArgumentParser) -> None:
    """``--layers``: one line for each."""
    parser.add_argument(
        "--layers", action="store_true",
        help="a line for every layer (default: one for all that differ in the number of their "
        "block or head, with sums)",
    )


def alike(named: Iterable[tuple[str, Layer]]) -> Mapping[str, list[Layer]]:
    """Layers together whose names differ in numbers only; in the order of their firsts.

    The name of several has ``*`` for numbers and says how many they are.
    """
    found: dict[str, list[tuple[str, Layer]]] = {}
    for name, layer in named:
        found.setdefault(_NUMBER.sub("*", name), []).append((name, layer))
    return {
        f"{pattern} × {len(group)}" if len(group) > 1 else group[0][0]:
        [layer for _, layer in group] for pattern, group in found.items()
    }
