"""Which operators of ONNX belong to quantised models: those are never optimised when executed.

ONNX Runtime's optimiser fuses them into integer kernels, whose answers depend on the processor.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Beginnings of the names of operators that quantise, dequantise or compute on integers.
_QUANTISED = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantize", "QLinear", "ConvInteger",
    "MatMulInteger", "MatMulNBits", "QGemm", "QAttention", "QMoE", "QEmbed", "QOrdered",
    "GatherBlockQuantized",
)  # fmt: skip


def is_quantised(op_types: Iterable[str]) -> bool:
    """Whether a model with these operators holds quantised ones."""
    return any(op_type.startswith(_QUANTISED) for op_type in op_types)
