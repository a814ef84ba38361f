"""What is wanted of the weights: how many bits, within which limits."""

from __future__ import annotations

from dataclasses import dataclass

from vitrify.arch import formats
from vitrify.arch.errors import InputError

#: Bits of a weight.
WIDE, NARROW = formats.INT8.bits, formats.INT4.bits
#: Points that ``auto`` may cost by default.
MAX_DROP = 0.5


@dataclass(frozen=True)
class Weights:
    """What is wanted of the weights.

    Parameters
    ----------
    bits : 8 or 4 in all layers that may have four; ``None``: chosen for each layer
    max_drop : then, points of accuracy that it may cost by the calibration images
    budget_bytes : then, bytes that all weights may have; without both it is ``MAX_DROP``
    """

    bits: int | None = WIDE
    max_drop: float | None = None
    budget_bytes: int | None = None

    def __post_init__(self) -> None:
        limits = [self.max_drop, self.budget_bytes]
        if self.bits is not None and limits != [None, None]:
            raise InputError("--max-drop and --budget-bytes are for --weights auto")
        if None not in limits:
            raise InputError("give one of --max-drop and --budget-bytes")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise InputError(f"--max-drop must be 0 to 100 points, not {self.max_drop}")


#: What a model gets if nothing is said.
EIGHT = Weights()
