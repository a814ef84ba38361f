"""Whole applications: programs of the core, and parts of the host around and between them.

What runs on the host is an ONNX graph (:mod:`vitrify.program.onnx_graph`).  Parts run in order;
tensors go from one to the others by name.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError, ProgramError
from vitrify.arch.text import short

from . import onnx_graph, preprocess
from .onnx_graph import Value
from .pack import given_form
from .program import Program
from .spec import ImageSpec, TaskSpec, TensorSpec

Float = npt.NDArray[np.float64]

#: Rank of images, whose channels come first; of all other tensors they come last.
_IMAGE_RANK = 4
#: Most images that a part of the host takes at once.
MOST_BATCH = 1024
#: Images of one run of the host where any number may be.
_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class HostPart:
    """An ONNX model that the host runs between programs.

    Members
    -------
    model : the file's bytes
    why : why it is not on the core: what the compiler said of its operators
    macs : multiply-accumulates of an image
    """

    model: bytes
    why: tuple[str, ...] = ()
    macs: int = 0

    @functools.cached_property
    def graph(self) -> onnx_graph.Graph:
        """What it computes."""
        return onnx_graph.read(self.model)

    @property
    def reads(self) -> tuple[str, ...]:
        """Tensors that it takes."""
        return tuple(value.name for value in self.graph.inputs)

    @property
    def batch(self) -> int | None:
        """Images of one run; ``None`` for any number."""
        return self.graph.inputs[0].shape[0]


@dataclass(frozen=True, kw_only=True)
class CorePart:
    """A program, and the tensors that :func:`as_image` makes its image of.

    Members
    -------
    axes : of each tensor, the axis of its channels
    gains, offsets : of each of several tensors, one number a channel; empty for a single one
    """

    program: Program
    reads: tuple[str, ...]
    axes: tuple[int, ...] = (1,)
    gains: tuple[Float, ...] = ()
    offsets: tuple[Float, ...] = ()

    def image(self, tensors: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """What the program takes."""
        arrays = [tensors[name] for name in self.reads]
        return as_image(arrays, self.axes, self.gains, self.offsets)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of an image."""
        # Those of rows that nothing reads, too, as for parts on the host.
        left_out = self.program.metadata.get("macs_left_out", 0)
        return (self.program.macs + left_out) // self.program.batch


Part = HostPart | CorePart


@dataclass(frozen=True, kw_only=True)
class Application:
    """A model in parts.

    Raises :class:`ProgramError` when the parts contradict each other.
    """

    model: str
    #: What it takes, before any part.
    inputs: tuple[ImageSpec | TensorSpec, ...]
    #: Names of the results, in the model's order.
    outputs: tuple[str, ...]
    parts: tuple[Part, ...]
    #: Free facts for people and reports (JSON values).
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.programs:
            raise ProgramError(f"application {self.model!r} has nothing for the core")
        if any(program.arch.hash != self.arch.hash for program in self.programs):
            raise ProgramError(f"the programs of {self.model!r} are for different cores")
        if any(program.tasks for program in self.programs):
            raise ProgramError(f"a program of {self.model!r} chooses among tasks")
        if self.preprocess is not None:
            preprocess.parse(self.preprocess)
        known: dict[str, tuple[int | None, ...]] = {}
        for spec in self.inputs:
            if spec.name in known:
                raise ProgramError(f"two inputs of {self.model!r} are called {short(spec.name)}")
            known[spec.name] = (None, *spec.shape)
        given = set(known)
        for part in self.parts:
            for name in part.reads:
                if name not in known:
                    raise ProgramError(f"a part of {self.model!r} reads {short(name)}, which no "
                                       f"part before it makes")
            if isinstance(part, CorePart):
                self._check_image(part, [known[name] for name in part.reads])
            elif not part.reads or not all(value.shape for value in part.graph.inputs):
                raise ProgramError(f"a part of {self.model!r} reads something without a batch")
            elif not 1 <= (part.batch or 1) <= MOST_BATCH:
                raise ProgramError(f"a part of {self.model!r} takes {part.batch} images at once; "
                                   f"1 to {MOST_BATCH} can be")
            for value in values_of(part):
                if value.name in known:
                    raise ProgramError(f"two parts of {self.model!r} make {short(value.name)}")
                known[value.name] = value.shape
        for name in self.outputs:
            if name not in known or name in given:
                raise ProgramError(f"no part of {self.model!r} makes its output {short(name)}")

    def _check_image(self, part: CorePart, shapes: Sequence[tuple[int | None, ...]]) -> None:
        wanted = part.program.input.shape
        found = None
        if len(part.axes) == len(shapes):
            found = image_shape(shapes, part.axes)
        sizes = [(shape[axis],) for shape, axis in zip(shapes, part.axes, strict=False)]
        given = [[np.shape(value) for value in values] for values in (part.gains, part.offsets)]
        if found == wanted and given not in ([[], []], [sizes, sizes]):
            raise ProgramError(f"a program of {self.model!r} has gains or offsets for other "
                               f"numbers of channels than it reads")
        if found != wanted:
            raise ProgramError(f"a program of {self.model!r} takes an image of {wanted}, and what "
                               f"it reads makes one of {found}")

    @property
    def input(self) -> ImageSpec:
        """The image, of an application that takes one.

        Raises
        ------
        InputError
            If it takes none.
        """
        image = next((spec for spec in self.inputs if isinstance(spec, ImageSpec)), None)
        if image is None:
            listed = ", ".join(f"{spec.name!r} {given_form(spec)}" for spec in self.inputs)
            raise InputError(f"{self.model!r} takes no image; its inputs are {listed}")
        return image

    @property
    def preprocess(self) -> str | None:
        """How a picture becomes its image, if it takes one."""
        images = [spec for spec in self.inputs if isinstance(spec, ImageSpec)]
        return images[0].preprocess if images else None

    def with_preprocess(self, text: str) -> Application:
        """The same with another way from pictures to its images."""
        assert self.input, "or it says that there is none"
        return replace(self, inputs=tuple(
            replace(spec, preprocess=text) if isinstance(spec, ImageSpec) else spec
            for spec in self.inputs
        ))  # fmt: skip

    @property
    def programs(self) -> tuple[Program, ...]:
        """What runs on the core, in order."""
        return tuple(part.program for part in self.parts if isinstance(part, CorePart))

    @property
    def arch(self) -> ArchConfig:
        """The core of all programs."""
        return self.programs[0].arch

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """Inputs that choose among tasks: there are none."""
        return ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of an image, those of the host included."""
        return sum(part.macs for part in self.parts)

    @property
    def core_share(self) -> float:
        """Share of the multiply-accumulates that the core does."""
        on_core = sum(part.macs for part in self.parts if isinstance(part, CorePart))
        return on_core / max(1, self.macs)

    def results(self) -> list[Value]:
        """The outputs: name, type, shape with the batch."""
        made = {value.name: value for part in self.parts for value in values_of(part)}
        return [made[name] for name in self.outputs]

    def require_arch(self, arch: ArchConfig) -> None:
        """Refuse to run on a core of another contract, as a program does."""
        self.programs[0].require_arch(arch)

    def on(self, arch: ArchConfig) -> Application:
        """The same for a core of the same contract with other conditions (clock, memory)."""
        parts = tuple(
            replace(part, program=part.program.on(arch))
            if isinstance(part, CorePart) else part
            for part in self.parts
        )
        return replace(self, parts=parts)

    def save(self, path: str | Path) -> None:
        """Write the container (see :mod:`vitrify.program.container`), all or nothing."""
        from . import container

        container.save(self, Path(path))


def values_of(part: Part) -> Iterator[Value]:
    """What a part makes: name, type and shape with the batch."""
    if isinstance(part, HostPart):
        for value in part.graph.outputs:
            # part after part of a batch of any size
            free = value.shape and value.shape[0] == part.batch
            yield replace(value, shape=(None, *value.shape[1:])) if free else value
        return
    for spec in part.program.outputs:
        yield Value(spec.name, spec.dtype, (None, *spec.shape))


def image_shape(
    shapes: Sequence[tuple[int | None, ...]], axes: Sequence[int]
) -> tuple[int, int, int] | None:
    """``(C, H, W)`` of :func:`as_image` of tensors of these shapes; ``None`` if there is none."""
    known: list[list[int]] = []
    for shape, axis in zip(shapes, axes, strict=True):
        sizes = [size for size in shape[1:] if size is not None]
        if not 0 < axis < len(shape) or len(sizes) + 1 < len(shape):
            return None
        known.append([sizes[axis - 1], *sizes[: axis - 1], *sizes[axis:]])
    if len(known) == 1 and len(known[0]) + 1 == _IMAGE_RANK and axes[0] == 1:
        return known[0][0], known[0][1], known[0][2]
    return max(width for width, *_ in known), sum(math.prod(rows) for _, *rows in known), 1


def as_image(
    arrays: Sequence[npt.NDArray[Any]], axes: Sequence[int], gains: Sequence[Float] = (),
    offsets: Sequence[Float] = (),
) -> npt.NDArray[Any]:
    """One image ``[N, C, H, W]`` of tensors ``[N, …]``.

    Parameters
    ----------
    axes : of each tensor, the axis of its channels.  All others become rows, which follow each
        other as ``[N, C, rows, 1]``, with zeros for the channels that some others have more; a
        single ``[N, C, H, W]`` stays as it is.
    gains, offsets : of each tensor and channel: the image has ``x * gain + offset``, so that
        tensors of different ranges have the same there
    """
    if len(arrays) == 1 and arrays[0].ndim == _IMAGE_RANK and axes[0] == 1:
        return arrays[0]
    moved = [np.moveaxis(array, axis, 1) for array, axis in zip(arrays, axes, strict=True)]
    width = max(x.shape[1] for x in moved)
    lines = [x.reshape(*x.shape[:2], -1) for x in moved]
    if gains:
        lines = [
            (x * gain[:, None] + offset[:, None]).astype(np.float32)
            for x, gain, offset in zip(lines, gains, offsets, strict=True)
        ]
    padded = [np.pad(x, [(0, 0), (0, width - x.shape[1]), (0, 0)]) for x in lines]
    return np.concatenate(padded, axis=2)[..., None]


def in_batches(
    run: Callable[[dict[str, npt.NDArray[Any]]], Sequence[npt.NDArray[Any]]],
    arrays: Mapping[str, npt.NDArray[Any]], batch: int | None,
) -> list[npt.NDArray[Any]]:
    """The results of ``run`` for all images of ``arrays``, which lie along their first axes.

    Parameters
    ----------
    batch : images that it takes at once; ``None``: any number.  The last run is filled up with the
        first of its images, and what it says of those is cut off.
    """
    images, step = min(map(len, arrays.values())), batch or _AT_ONCE
    results: list[list[npt.NDArray[Any]]] = []
    for start in range(0, images, step):
        count = min(step, images - start)
        piece = start + np.arange(batch or count) % count
        made = run({name: array[piece] for name, array in arrays.items()})
        filled = count < len(piece)
        results.append([
            array[:count] if filled and array.shape[:1] == (batch,) else array for array in made
        ])  # fmt: skip
    if len(results) == 1:
        return results[0]
    return [
        np.concatenate([np.atleast_1d(x) for x in arrays]) for arrays in zip(*results, strict=True)
    ]
