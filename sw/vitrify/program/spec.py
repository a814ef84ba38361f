"""What a program expects, delivers and consists of: inputs, outputs and layers, as plain data."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import ProgramError
from vitrify.arch.formats import INPUT_TYPES, RESULT_TYPES

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input of an application that is no image: a batch of tensors ``[N, *shape]``."""

    #: Name of the ONNX input.
    name: str
    shape: tuple[int, ...]
    #: NumPy type: floats, integers or ``bool``.
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in INPUT_TYPES:
            raise ProgramError(f"input {self.name!r} cannot be of the type {self.dtype!r}")

    @property
    def given_shape(self) -> tuple[int, ...]:
        """Its shape, as :attr:`ImageSpec.given_shape`."""
        return self.shape


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """The image of one inference."""

    #: Name of the ONNX input.
    name: str
    #: ``(C, H, W)``.
    shape: tuple[int, int, int]
    #: How a picture becomes the float input (see :mod:`vitrify.program.preprocess`).
    preprocess: str | None = None
    #: Whether the model takes ``[N, H, W, C]``.
    channels_last: bool = False

    @property
    def given_shape(self) -> tuple[int, int, int]:
        """Shape of an image as the model takes it."""
        channels, height, width = self.shape
        return (height, width, channels) if self.channels_last else self.shape


@dataclass(frozen=True, kw_only=True)
class InputSpec(ImageSpec):
    """The image of one inference and how it becomes int8 rows in DRAM.

    ``q = clip(round(x * multiplier[c] + offset[c]), -128, 127)``, cut into patches; columns of a
    patch are ordered (c, y, x), patches row by row. They begin ``strides`` apart in the image with
    ``pads`` (top, left, bottom, right) around it, for which x is 0. The first ``prefix`` of
    ``rows`` rows (class token …) are zero. ``blocks`` lists ``(first row, rows)`` of the pieces
    that follow each other in the input region, each in the word-major order of
    :mod:`vitrify.arch.memmap`; it is empty when there is one piece.
    """

    #: ``(height, width)`` of a patch in pixels.
    patch: tuple[int, int]
    prefix: int
    rows: int
    #: One value per image channel.
    multiplier: Float
    offset: Float
    blocks: tuple[tuple[int, int], ...] = ()
    #: ``None``: those of a patch.
    strides: tuple[int, int] | None = None
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def patches(self) -> tuple[int, int]:
        """Patches below each other, and beside each other."""
        top, left, bottom, right = self.pads
        high, wide = self.strides or self.patch
        _, height, width = self.shape
        return (
            (height + top + bottom - self.patch[0]) // high + 1,
            (width + left + right - self.patch[1]) // wide + 1,
        )

    @property
    def columns(self) -> int:
        """int8 values of a row."""
        return self.shape[0] * self.patch[0] * self.patch[1]

    def size(self, depth: int) -> int:
        """Bytes of the input region at ``depth`` bytes a word."""
        return self.rows * -(-self.columns // depth) * depth


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """A result in the output region: ``value = scale * (q - zero_point) * factor + shift``.

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
    #: One value, or one a channel.
    factor: float | Float = 1.0
    shift: float | Float = 0.0
    #: First byte in the output region.
    offset: int = 0
    #: Shape of one image's result, without the batch dimension.
    shape: tuple[int, ...]
    #: Element (i, j, …) of a result is the flat element ``start + i * steps[0] + j * steps[1] + …``
    #: of ``[rows, channels]``; all of them in order when ``steps`` is ``None``.  (i, j, …) is its
    #: place in ``grid``: ``shape``, or the same number of values with axes split where they have
    #: several steps (pixels of patches).
    start: int = 0
    grid: tuple[int, ...] | None = None
    steps: tuple[int, ...] | None = None
    #: NumPy type of the result, one of :data:`~vitrify.arch.formats.RESULT_TYPES`; integers are
    #: rounded and saturate.
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in RESULT_TYPES:
            raise ProgramError(f"output {self.name!r} cannot be of the type {self.dtype!r}")
        if self.steps is None:
            fits = math.prod(self.shape) == self.rows * self.channels and not self.start
            fits = fits and self.grid is None
        else:
            ends = [(n - 1) * step for n, step in zip(self.places, self.steps, strict=False)]
            low = self.start + sum(min(end, 0) for end in ends)
            high = self.start + sum(max(end, 0) for end in ends)
            fits = 0 <= low <= high < self.rows * self.channels
            fits = fits and len(self.places) == len(self.steps)
            fits = fits and math.prod(self.places) == math.prod(self.shape)
            fits = fits and math.prod(self.shape) <= self.rows * self.channels
        if not fits:
            raise ProgramError(
                f"output {self.name!r} of {self.rows} x {self.channels} values of {self.bits} bits "
                f"cannot have the shape {self.shape}"
            )

    @property
    def places(self) -> tuple[int, ...]:
        """The sizes that ``steps`` go along."""
        return self.shape if self.grid is None else self.grid

    @functools.cached_property
    def index(self) -> npt.NDArray[np.int64] | None:
        """The flat element of each of ``shape``, or ``None`` for all in order."""
        if self.steps is None:
            return None
        grid = np.indices(self.places, np.int64).reshape(len(self.places), math.prod(self.places))
        return self.start + np.array(self.steps, np.int64) @ grid

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
