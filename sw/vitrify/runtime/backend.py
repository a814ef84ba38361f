"""Where programs run: the interface that golden, RTL and float backends share."""

from __future__ import annotations

import abc
import dataclasses
import functools
import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import BackendError, InputError
from vitrify.arch.extras import needs
from vitrify.program import (
    Application,
    Program,
    as_tasks,
    pack_input,
    registers,
    unpack_output,
)

from .statistics import Statistics

UInt8 = npt.NDArray[np.uint8]
#: What a model takes besides its first input, by name: task numbers, one or ``[N]``, or tensors.
Others = Mapping[str, npt.ArrayLike]


class Progress(Protocol):
    """Told how far a run is; may raise to stop it."""

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps (layers of all images) are finished."""
        ...


def no_progress(done: int, total: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class NodeArg:
    """Name, element type and shape of an input or output, as ONNX Runtime gives them."""

    name: str
    type: str
    shape: list[int | str]


class Backend(abc.ABC):
    """Runs one model.

    The first of ``inputs`` is the image, and the others are integers that choose tasks; or all are
    tensors, of an application with other inputs.
    """

    name: str
    inputs: Sequence[NodeArg]
    outputs: Sequence[NodeArg]
    #: Adds up what the latest run cost, for those who ask: it takes longer than to pack an image.
    cost: Callable[[], Statistics] | None = None
    #: Whether the image is ``[N, H, W, C]``.
    channels_last: bool = False
    #: Whether it takes an image, and tasks if any, and no other tensors.
    is_of_images: bool = True

    @property
    def statistics(self) -> Statistics | None:
        """Cost of the latest run, where the backend knows it."""
        return None if self.cost is None else self.cost()

    @abc.abstractmethod
    def run(
        self, names: Sequence[str], feed: npt.NDArray[Any], others: Others
    ) -> list[npt.NDArray[Any]]:
        """Results ``names`` for a batch ``[N, …]`` of the first input, and what goes with it."""

    def close(self) -> None:  # noqa: B027  (most backends hold nothing)
        """Give back processes, libraries and memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


#: ONNX Runtime's names of types, where they are not NumPy's.
TYPES = {"float32": "float", "float64": "double"}


class ProgramBackend(Backend):
    """A backend that executes program images: bytes in, bytes out."""

    def __init__(self, program: Program) -> None:
        self.program = program
        spec = program.input
        self.channels_last = spec.channels_last
        self.inputs = (
            NodeArg(spec.name, "tensor(float)", ["N", *spec.given_shape]),
            *(NodeArg(task.name, "tensor(int64)", ["N"]) for task in program.tasks),
        )
        self.outputs = tuple(
            NodeArg(out.name, f"tensor({TYPES.get(out.dtype, out.dtype)})", ["N", *out.shape])
            for out in program.outputs
        )

    @abc.abstractmethod
    def execute(
        self, regions: UInt8, tasks: Sequence[int], images: int
    ) -> tuple[UInt8, Callable[[], Statistics]]:
        """Input regions ``[jobs, input_bytes]`` to output regions ``[jobs, output_bytes]``.

        With them comes what adds up the cost.  ``tasks`` has the register TASK of every job; the
        last of them may be filled up with empty images behind the ``images`` of the run.
        """

    def run(
        self, names: Sequence[str], feed: npt.NDArray[Any], others: Others
    ) -> list[npt.NDArray[Any]]:
        """Pack, execute, unpack."""
        program = self.program
        regions, words, images = as_jobs(program, feed, others)
        start = time.perf_counter()
        results, cost = self.execute(regions, words, images)
        seconds = time.perf_counter() - start
        self.cost = functools.cache(lambda: dataclasses.replace(cost(), seconds=seconds))
        results = results.reshape(len(words) * program.batch, -1)[:images]
        specs = {out.name: out for out in program.outputs}
        return [unpack_output(program.arch, specs[name], results) for name in names]


def as_jobs(
    program: Program, feed: npt.ArrayLike, tasks: Others
) -> tuple[UInt8, list[int], int]:
    """Jobs of a batch: input regions ``[jobs, input_bytes]``, registers TASK, number of images.

    Empty images of task 0 fill up the last job.
    """
    packed = pack_input(program.arch, program.input, feed)
    images = len(packed)
    words = registers(as_tasks(program.tasks, tasks, images), program.batch)
    if images < len(words) * program.batch:
        regions = np.zeros((len(words) * program.batch, packed.shape[1]), np.uint8)
        regions[:images] = packed
        packed = regions
    return packed.reshape(len(words), -1), words, images


#: What makes a backend from a program or a model file, its preprocessing and its options.
Factory = Callable[[Program | Application | Path, str | None, Mapping[str, Any]], Backend]

#: Names and modules; each module has ``create``, imported when asked for, so that a machine
#: without a simulator or ONNX Runtime still runs the others.
BACKENDS = {
    "golden": "vitrify.runtime.backends.golden",
    "rtl": "vitrify.runtime.backends.rtl",
    "float": "vitrify.runtime.backends.float",
    "board": "vitrify.runtime.backends.board",
}


def create(
    name: str, model: Program | Application | Path, preprocess: str | None,
    options: Mapping[str, Any], providers: Sequence[str] = (),
) -> Backend:
    """The backend called ``name`` for ``model``; ``board:DEVICE`` names a device, too.

    For an application in parts, every program gets one; ``providers`` are those of ONNX Runtime.

    Raises
    ------
    InputError
        For an unknown backend, a model it cannot run, or a missing optional package.
    """
    kind, colon, device = name.partition(":")
    if kind not in BACKENDS or (colon and kind != "board"):
        raise InputError(f"no backend is called {name!r}; the backends are {', '.join(BACKENDS)}")
    settings = {**options, "device": device} if colon else options
    try:
        factory: Factory = importlib.import_module(BACKENDS[kind]).create
        if isinstance(model, Application) and kind != "float":
            from .host import CPU
            from .parts import PartsBackend

            return PartsBackend(
                model, lambda program: factory(program, preprocess, settings), providers or CPU
            )
        if providers and kind == "float":
            settings = {**settings, "providers": providers}
        return factory(model, preprocess, settings)
    except ModuleNotFoundError as error:
        missing = needs(error)
        if missing is None:
            raise
        raise BackendError(f"backend {kind!r} {missing}") from error


def check_options(name: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse options that a backend does not have."""
    for option in options:
        if option not in known:
            raise InputError(
                f"backend {name!r} has no option {option!r}; it has {', '.join(known) or 'none'}"
            )


def need_program(name: str, model: Program | Application | Path) -> Program:
    """``model`` as a program, or a sentence that says how to get one."""
    if isinstance(model, Program):
        return model
    assert isinstance(model, Path), "of an application, each program gets a backend"
    raise InputError(
        f"backend {name!r} runs programs, and {str(model)!r} is a model; make one with "
        f"`vitrify compile {model.name} --arch … --calib …`, or use the backend 'float'"
    )
