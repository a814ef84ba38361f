"""A builder that emits nothing: whether tensors have room does not depend on instructions."""

from __future__ import annotations

from typing import Any

from vitrify.arch.config import ArchConfig

from .builder import Builder, Matmul
from .placement import Placed
from .product import MatrixProduct

_SOME = Matmul("", "", 0, "", 0, 0, 0, 0, 0, 0)


class Rehearsal(Builder):
    """Counts MATMULs and LOADs, and knows nothing of them.

    What no field of an instruction takes is found when the network is lowered in earnest.
    """

    def __init__(self, arch: ArchConfig) -> None:
        super().__init__(arch)
        self._count = 0

    def load(self, target: Placed, *_: Any, **__: Any) -> None:
        """Nothing."""

    def preload(self, target: Placed, *_: Any) -> int:
        """Nothing; the number of the LOAD."""
        del target
        self._count += 1
        return self._count - 1

    def store(self, source: Placed, *_: Any) -> None:
        """Nothing."""

    def route(self, logits: Placed, **_: Any) -> None:
        """Nothing."""

    def just_made(self, x: Placed) -> bool:
        """Unknown."""
        del x
        return False

    def rename(self, old: str, new: str) -> None:
        """Nothing."""

    def matmul(self, product: MatrixProduct) -> None:
        """Counted."""
        del product
        self.matmuls.append(_SOME)
