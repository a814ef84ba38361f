"""Values that are not computed until a reader says in which form it wants them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from .experts import Mixture
from .plan import Array, Operand, Rows


@dataclass(frozen=True)
class Patch:
    """Patch embedding that waits for its positions."""

    node: ir.Node


@dataclass(frozen=True)
class Affine:
    """``weight @ x + bias``, not computed yet."""

    x: Operand
    weight: Array
    bias: Array
    name: str
    value: str
    identity: bool = False
    #: The input that chooses among weights ``[S, out, in]``.
    task: str | None = None


@dataclass(frozen=True)
class Unary:
    """Activation of a linear map, not computed yet."""

    x: Affine
    kind: str
    value: str


@dataclass(frozen=True)
class Sum:
    """Linear maps and what experts make, to be added to a stream one after another."""

    parts: tuple[Affine | Mixture, ...]
    value: str


Value = Patch | Operand | Affine | Unary | Mixture | Sum


def is_stream(x: Value) -> bool:
    """Whether ``x`` is an int16 tensor that can be added to."""
    return isinstance(x, Patch) or (
        isinstance(x, Operand) and x.version is not None and x.norm is None
    )


def pick(x: Operand, rows: Rows) -> Operand:
    """Some rows of ``x``."""
    start = x.rows[0] if x.rows else 0
    return replace(x, rows=(start + rows[0], rows[1]))
