"""The plan: the ops of the integer graph in execution order, still with float parameters.

What the ops are stands in :mod:`vitrify.ops`; here is what each has to answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from vitrify.arch.errors import UnsupportedOpError
from vitrify.ir import source_of

from .calibrate import Request
from .normaliser import Normaliser
from .tensors import Rows

Array = np.ndarray


@dataclass(frozen=True)
class ReadNorm:
    """A normalisation on read: ``normaliser(x) * gamma + beta``."""

    node: str
    gamma: Array
    beta: Array
    normaliser: Normaliser


@dataclass(frozen=True)
class Operand:
    """What a matrix product streams: ``rows`` of a tensor, normalised or not.

    ``value`` names the float tensor with the same contents (before norm and row choice); pixels
    have none.  ``made`` names one, and rows of it, with what is read.  With ``times``, another int8
    tensor, it is the product of both, element by element.
    """

    tensor: str
    value: str
    #: Residual stream (int16): its version, the number of additions so far.  int8: ``None``.
    version: int | None = None
    rows: Rows | None = None
    norm: ReadNorm | None = None
    times: str | None = None
    made: tuple[str, Rows | None] | None = None

    @property
    def read(self) -> tuple[str, int]:
        """``(tensor, version)`` that is read; int8 tensors have version 0."""
        return self.tensor, self.version or 0

    @property
    def reads(self) -> list[tuple[str, int]]:
        """What is read, a second factor included."""
        return [self.read, *([(self.times, 0)] if self.times else [])]

    def requests(self) -> list[Request]:
        """The operand as it is, and normalised if it is read so."""
        if not self.value:
            return []
        plain = Request(self.value, self.rows)
        if self.norm is None:
            return [plain]
        return [plain, Request(self.value, self.rows, self.norm.normaliser)]


@dataclass(frozen=True)
class Product:
    """An operand that is streamed past constant ``weight [..., out, in]``."""

    x: Operand
    weight: Array


@dataclass(frozen=True)
class ByteNeeds:
    """What a reader cannot absorb in the format of an int8 tensor.

    ``one_step``: all channels have the same step.  ``zero``: the byte zero stands for the real
    zero; without it the mean of each channel may be taken off.  ``symmetric``: there is no zero
    point, and one channel for each of the float tensor; only what has constant weights for every
    channel can do without.  ``whole``: the largest values are not clipped, which a softmax weighs
    most.
    """

    one_step: bool = False
    zero: bool = False
    symmetric: bool = False
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class PlanOp(ABC):
    """An op of the plan.

    ``value`` names the float tensor with the contents of ``out``; empty where the float graph has
    no such tensor.  ``version`` of a stream is the number of additions to it, this one included.
    """

    name: str
    out: str
    value: str
    version: int = 0

    @abstractmethod
    def reads(self) -> list[tuple[str, int]]:
        """``(tensor, version)`` of everything it reads; int8 tensors have version 0."""

    @abstractmethod
    def channels(self, plan: Plan) -> int:
        """Of the result."""

    @abstractmethod
    def requests(self, plan: Plan) -> list[Request]:
        """What its integers are chosen by: float tensors to watch in the calibration."""

    def products(self) -> list[Product]:
        """What it streams past constant weights."""
        return []

    def needs(self, tensor: str) -> ByteNeeds:
        """What it cannot absorb of an int8 tensor that it reads."""
        del tensor
        return ByteNeeds(symmetric=True)

    def passes_on(self, tensor: str) -> bool:
        """Whether the result has the format of this int8 tensor that it reads."""
        del tensor
        return False

    def overwrites(self) -> tuple[str, int] | None:
        """``(tensor, version)`` that is gone when it has run."""
        return None

    def result(self) -> Request:
        """The float tensor with the contents of the result."""
        return Request(self.value)

    def reading(self, old: tuple[str, int], x: Operand) -> PlanOp:
        """The same op with ``x`` in the place of the ``old`` version of a stream."""
        raise unsupported(
            self.value, f"it reads {old[0]!r} after something was added to it, and not {x.value!r}"
        )


@dataclass(frozen=True)
class ImageRows:
    """How the image becomes rows: patches ``(height, width)`` behind ``prefix`` rows of zeros.

    A patch begins ``strides`` pixels behind the one before, the first one ``pads`` (top, left,
    bottom, right) outside the image, where there are zeros of the model's input.
    """

    patch: tuple[int, int]
    prefix: int
    #: ``None``: those of a patch.
    strides: tuple[int, int] | None = None
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass
class Plan:
    """Ops in execution order; ``outputs`` maps ONNX names to tensors.

    ``tasks`` holds the number of tasks by the input that chooses; ``roots`` the stream that a
    tensor continues and shares its step with; ``groups``, of tensors whose channels are used in
    equal parts (heads), how many those are.
    """

    name: str
    image: str
    rows: ImageRows | None = None
    ops: list[PlanOp] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)

    def products(self) -> list[Product]:
        """Everything that is streamed past constant weights, in the order of the ops."""
        return [product for op in self.ops for product in op.products()]

    def readers(self, tensor: str) -> list[PlanOp]:
        """Ops that read any version of a tensor."""
        return [op for op in self.ops if any(name == tensor for name, _ in op.reads())]

    def channels(self, tensor: str) -> int:
        """Channels of a tensor that some op writes."""
        return next(op for op in self.ops if op.out == tensor).channels(self)


def unsupported(node: ir.Node | str, why: str) -> UnsupportedOpError:
    """The error for a node the core cannot run."""
    if isinstance(node, str):
        return UnsupportedOpError(f"Node {node!r} cannot run on the core: {why}.", node)
    # the user knows the node that it was made of
    source = source_of(node)
    made = f", made of {source!r}" if source and source != node.name else ""
    return UnsupportedOpError(
        f"Node {node.name!r} ({node.op_type}{made}) cannot run on the core: {why}.",
        source or node.name or "",
    )


# Order -------------------------------------------------------------------------------------
def ordered(ops: list[PlanOp], copy: Callable[[Operand], Operand]) -> list[PlanOp]:
    """An order in which no addition overwrites a version that someone still has to read.

    Where there is none, those that read late read a copy.

    Parameters
    ----------
    ops : gets the ops that ``copy`` appends
    """
    done: list[PlanOp] = []
    waiting = list(ops)
    known = len(ops)
    written = {(op.out, op.version) for op in ops}
    for op in ops:
        if not written.issuperset(op.reads()):
            raise unsupported(
                op.value, "it reads a sum that the core cannot keep beside that with the experts"
            )
    there: set[tuple[str, int]] = set()

    def ready(op: PlanOp) -> bool:
        old = op.overwrites()
        needs = {*op.reads(), *([old] if old else [])}
        return needs <= there

    def free(op: PlanOp) -> bool:
        old = op.overwrites()
        return old is None or not any(old in other.reads() for other in waiting if other is not op)

    while waiting:
        op = next((op for op in waiting if ready(op) and free(op)), None)
        if op is not None:
            done.append(op)
            waiting.remove(op)
            there.add((op.out, op.version))
            continue
        old = next(op for op in waiting if ready(op)).overwrites()
        assert old is not None
        fresh: Operand | None = None
        for i, late in enumerate(waiting):
            if old not in late.reads() or late.overwrites() == old:
                continue
            x = next((p.x for p in late.products() if p.x.read == old), None)
            if x is None:
                raise unsupported(
                    late.value, f"it adds to the residual stream {old[0]!r} as it was before"
                )
            fresh = fresh or copy(replace(x, rows=None, norm=None, made=None))
            waiting[i] = late.reading(old, fresh)
        waiting[:0] = ops[known:]
        known = len(ops)
    return done
