"""What a program expects, delivers and consists of: inputs, outputs and layers, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The image of one inference and how it becomes int8 rows in DRAM.

    ``q = clip(round(x * multiplier[c] + offset[c]), -128, 127)``, cut into patches; columns of a
    patch are ordered (c, y, x), patches row by row.  The first ``prefix`` of ``rows`` rows (class
    token …) are zero.  ``blocks`` lists ``(first row, rows)`` of the pieces that follow each other
    in the input region, each in the word-major order of :mod:`vitrify.arch.memmap`; it is empty
    when there is one piece.
    """

    #: Name of the ONNX input.
    name: str
    #: ``(C, H, W)``.
    shape: tuple[int, int, int]
    #: ``(height, width)`` of a patch in pixels.
    patch: tuple[int, int]
    prefix: int
    rows: int
    #: One value per image channel.
    multiplier: Float
    offset: Float
    #: How a picture becomes the float input (see :mod:`vitrify.program.preprocess`).
    preprocess: str | None = None
    blocks: tuple[tuple[int, int], ...] = ()

    @property
    def columns(self) -> int:
        """int8 values of a row."""
        return self.shape[0] * self.patch[0] * self.patch[1]

    def size(self, depth: int) -> int:
        """Bytes of the input region at ``depth`` bytes a word."""
        return self.rows * -(-self.columns // depth) * depth


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """A result in the output region: ``value = scale * (q - zero_point)``.

    The integers are ``[rows, channels]`` of ``bits`` (8 or 16) bits, word-major, each row padded
    to words of K bytes; 16-bit words come as low bytes, then high bytes.
    """

    #: Name of the ONNX output.
    name: str
    rows: int
    channels: int
    bits: int = 16
    #: One value, or one a channel.
    scale: float | Float
    zero_point: int = 0
    #: First byte in the output region.
    offset: int = 0
    #: Shape of one image's result, without the batch dimension.
    shape: tuple[int, ...]

    def words(self, depth: int) -> int:
        """Words of K = ``depth`` elements in a row."""
        return -(-self.channels // depth)

    def size(self, depth: int) -> int:
        """Bytes in the output region."""
        return self.rows * self.words(depth) * depth * self.bits // 8


def output_size(outputs: Iterable[OutputSpec], depth: int) -> int:
    """Bytes of one image's results."""
    return max(out.offset + out.size(depth) for out in outputs)


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """An input that chooses among tasks: one number ``0 … count - 1`` an image."""

    #: Name of the ONNX input.
    name: str
    count: int


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """The part of a tensor that an instruction writes into token memory."""

    name: str
    rows: int
    channels: int
    #: 8, or 16 (then ``address`` is a pair address).
    bits: int
    address: int
    #: Words from a row to the next.
    stride: int
    #: Where the part begins within the whole tensor.
    first_row: int = 0
    first_channel: int = 0


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """One MATMUL of the program."""

    #: Name of the layer or op it belongs to; several MATMULs (heads, row blocks) may share it.
    name: str
    #: Number of the instruction in the program.
    instruction: int
    #: Exact multiply-accumulates of the network, without padding.
    macs: int
    tensor: TensorInfo
    #: Bytes of its weight stream.
    stream_bytes: int = 0
