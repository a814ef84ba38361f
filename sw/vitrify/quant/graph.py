"""The integer graph: what the quantiser decides and the compiler lowers.

Every op is one or more matrix products of the core with operand transform and epilogue; every
number in it is an integer that the core uses.  What the ops are stands in :mod:`vitrify.ops`; here
is what each has to answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .evaluation import Evaluation
from .tensors import Float, Int8, Int16, QTensor, Rows
from .wanted import WIDE


@dataclass(frozen=True)
class Layer:
    """Constant ``weight [..., out, in]`` between two tensors.

    ``gathers``: and statistics of the rows of the result.  ``bits`` of a weight
    in DRAM.
    """

    name: str
    x: str
    out: str
    weight: Int8
    gathers: bool = False
    bits: int = WIDE


@dataclass(frozen=True)
class Branch:
    """Layers that a job runs only if some row asks for them.

    ``number`` tells the branches of an op apart; ``usage`` is the share of the images in which
    anybody asks, as far as known.
    """

    number: int
    layers: tuple[Layer, ...]
    usage: float


@dataclass(frozen=True, kw_only=True)
class QOp(ABC):
    """An operation on integer tensors.

    ``out`` is its result, or the first of several (:meth:`results`).
    """

    name: str
    out: str

    @abstractmethod
    def sources(self) -> tuple[str, ...]:
        """Tensors that it reads, the one that it adds to included."""

    @abstractmethod
    def evaluate(self, run: Evaluation) -> None:
        """Read the sources of ``run`` and write every result, with the golden kernels."""

    def results(self) -> tuple[str, ...]:
        """Tensors that it writes, ``out`` first."""
        return (self.out,)

    def layers(self) -> Iterator[Layer]:
        """Everything in it that has constant weights; those of branches, too."""
        return iter(())

    def branches(self) -> Iterator[Branch]:
        """What may be skipped at run time."""
        return iter(())

    def divisible(self) -> Layer | None:
        """Its layer, if some columns of that may be made by one MATMUL and others by the next."""
        return None

    def streamed(self) -> tuple[str, ...]:
        """Sources that stream past :meth:`stationary` ones."""
        return ()

    def stationary(self) -> tuple[str, ...]:
        """Sources that are loaded into the array as tiles."""
        return ()

    def groups(self) -> Mapping[str, int]:
        """Number of equal parts (heads) in which the channels of a tensor are used one by one."""
        return {}

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Two int8 sources that are read together as the planes of a pair, low and high."""
        return ()

    def routed_by(self) -> tuple[str, ...]:
        """Logits that the router reads beside the op's products."""
        return ()

    def written(self, images: int, rows: int) -> npt.NDArray[np.int64]:
        """Numbers of the rows of ``out`` that it writes, of ``images`` with so many rows each."""
        return np.arange(images * rows)

    def rows_read(self, made: range) -> Mapping[str, range] | None:
        """Rows of its sources that some rows of ``out`` need; sources not named are read whole.

        ``None``: it makes all rows of all results from all rows.
        """
        del made
        return None

    def part(self, made: range, kept: Mapping[str, range]) -> QOp | None:
        """The op that makes some rows of ``out`` only, of tensors of which others are not there.

        Parameters
        ----------
        made : rows of ``out``, between those that it is told to read
        kept : rows that are there of each tensor; they are all that are read of it, or more

        Returns
        -------
        QOp or None
            ``None`` if it cannot.
        """
        del made, kept
        return None

    def covered(self) -> Rows | None:
        """Rows of the float tensor that its result stands for; ``None``: all."""
        return None


@dataclass(frozen=True)
class QInput:
    """The image: float ``[C, H, W]`` to int8 rows ``[rows, C*ph*pw]``.

    ``q = clip(round(x * multiplier[c] + offset[c]), -128, 127)``; the first ``prefix`` rows
    (class token …) are zero.  Columns are ordered (c, y, x) within the patch.  Where the
    preprocessing is known, multiplier and offset map uint8 pixels to ``u8 - 128`` exactly.
    Patches begin ``strides`` apart in the image with ``pads`` (top, left, bottom, right) around it,
    for which x is 0.
    """

    name: str
    out: str
    shape: tuple[int, int, int]
    patch: tuple[int, int]
    prefix: int
    multiplier: Float
    offset: Float
    #: ``None``: those of a patch.
    strides: tuple[int, int] | None = None
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True)
class QConstant:
    """Initial value of a tensor (class token, positions, patch bias; int8: angles)."""

    out: str
    value: Int16 | Int8


@dataclass(frozen=True)
class OutputForm:
    """How a user gets a result: element (i, j, …) is ``start + i * steps[0] + j * steps[1] + …``
    of an image's ``tensor * factor + shift``, flat, as a number of type ``dtype``; (i, j, …) is
    the place in ``grid``, which becomes ``shape`` and is the same if ``None``.
    """

    dtype: str = "float32"
    #: One value, or one a channel.
    factor: float | Float = 1.0
    shift: float | Float = 0.0
    #: Without the batch dimension; ``None`` for the tensor's own.
    shape: tuple[int, ...] | None = None
    start: int = 0
    grid: tuple[int, ...] | None = None
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class LayerScales:
    """What the integers of a layer mean, for other tools.

    Parameters
    ----------
    weight : ``[out]``, real value of a product of an integer weight and an operand's step
    operand, offset : ``[in]``, step of each channel of the operand, and real value of its zero
    bias : ``[out]``, real, of the layer as a map of real operands
    result : step and centre of what a table of 256 entries reads, if one follows
    narrowed : the operand has 16 bits, and 8 only as this layer reads it
    """

    weight: Float
    operand: Float
    offset: Float
    bias: Float
    result: tuple[float, Float] | None
    narrowed: bool


@dataclass
class QuantGraph:
    """The whole network, ops in execution order."""

    name: str
    input: QInput
    constants: list[QConstant] = field(default_factory=list)
    ops: list[QOp] = field(default_factory=list)
    tensors: dict[str, QTensor] = field(default_factory=dict)
    #: ONNX output name → tensor (int16 ``[1, classes]`` or ``[rows, channels]``).
    outputs: dict[str, str] = field(default_factory=dict)
    #: Arrays' element counts per image, before padding: exact multiply-accumulates per op name.
    macs: dict[str, int] = field(default_factory=dict)
    #: Op name → tensor of the canonical float graph that it approximates, for reports.
    values: dict[str, str] = field(default_factory=dict)
    #: Op name → node of the original model that it was made of, where that is known.
    sources: dict[str, str] = field(default_factory=dict)
    #: Inputs that choose among tasks: name → number of tasks.
    tasks: dict[str, int] = field(default_factory=dict)
    #: ONNX output name → its form, where that is not the tensor's.
    forms: dict[str, OutputForm] = field(default_factory=dict)
    #: What weights of four bits in more and more layers cost, where that was looked at: plain
    #: :class:`~vitrify.quant.precision.Point` with ``chosen``.
    precision: list[dict[str, Any]] = field(default_factory=list)
    #: What quantisers of the file became: ``tensor``, ``file``, ``core``, ``why`` (empty: kept).
    quantisers: list[dict[str, str]] = field(default_factory=list)
    #: By op name, of plain layers.
    scales: dict[str, LayerScales] = field(default_factory=dict)
    #: How close the graph as ONNX is, by output, if it was written (``compiler.as_onnx``).
    as_onnx: dict[str, float] = field(default_factory=dict)
