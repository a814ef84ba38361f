"""What an already quantised model says of its tensors, beside its canonical graph.

The canonical graph computes with floats; the quantisers among the activations of the file are kept
in ``model.meta`` under :data:`QUANTISERS`, as a list, each with the canonical tensor that it
quantised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

#: Key of ``model.meta``: a list of :class:`Quantiser`, absent where a model has none.
QUANTISERS = "quantisers"

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quantiser:
    """``real = scale * (code - zero)`` with ``low <= code <= high``.

    ``tensor`` is its name in the file, ``value`` that of the canonical tensor with the same
    numbers; empty where the canonical graph has none.  ``scale`` and ``zero`` broadcast.  Where
    ``aligned``, the numbers of both are in the same order.
    """

    tensor: str
    scale: Float
    zero: Float
    low: float
    high: float
    value: str = ""
    aligned: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest real number."""
        ends = [(end - self.zero) * self.scale for end in (self.low, self.high)]
        return float(np.min(ends[0])), float(np.max(ends[1]))

    def of(self, x: npt.NDArray[np.floating]) -> Float:
        """What becomes of numbers ``x`` of the tensor."""
        code = np.clip(np.rint(x / self.scale + self.zero), self.low, self.high)
        return (code - self.zero) * self.scale

    @property
    def byte(self) -> tuple[float, int] | None:
        """Scale and zero point of a tensor of signed bytes; ``None`` where none has its codes.

        The lowest code of eight bits, -128, saturates at -127, except in the results of tables.
        """
        shift = 0 if self.low < 0 else 128
        if self.scale.size > 1 or self.zero.size > 1 or self.high - shift > 127 or self.low < -128:
            return None
        return float(self.scale.reshape(())), int(self.zero.reshape(())) - shift

    def __str__(self) -> str:
        bits = round(np.log2(self.high - self.low + 1))
        kind = f"{'int' if self.low < 0 else 'uint'}{bits}"
        if self.scale.size > 1:
            return f"{kind}, {self.scale.size} scales"
        zero = np.unique(self.zero)
        return f"{kind}, scale {float(self.scale.reshape(())):.4g}, zero {zero[0]:g}"


def quantisers_of(model: ir.Model) -> list[Quantiser]:
    """Those of the file that a canonical graph was made of."""
    return model.meta.get(QUANTISERS, [])
