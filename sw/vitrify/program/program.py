"""Program: everything that a core, simulated or real, needs to run one network."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch import isa, memmap, support
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ProgramError
from vitrify.arch.isa import Instruction, Opcode

from . import preprocess
from .spec import InputSpec, LayerInfo, OutputSpec, TaskSpec, output_size

#: Cycles without any activity that are always allowed (DRAM latency, start, end).
_QUIET = 50_000


@dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled network.

    ``image`` is what the core reads from DRAM: the instructions (64 bytes each) from byte 0 on,
    then weight streams and constants.  ``layers`` has one entry for every MATMUL, in program
    order.  A job takes ``batch`` images, whose regions follow each other; sizes and costs are those
    of a job.  Raises :class:`ProgramError` when the parts contradict each other.
    """

    model: str
    arch: ArchConfig
    image: npt.NDArray[np.uint8]
    instruction_count: int
    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    layers: tuple[LayerInfo, ...] = ()
    #: Inputs that choose among tasks, in the order of their bytes in the register TASK.
    tasks: tuple[TaskSpec, ...] = ()
    batch: int = 1
    #: Free facts for people and reports (JSON values): source file, accuracy, compiler settings.
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        image = np.ascontiguousarray(
            np.frombuffer(self.image, np.uint8)
            if isinstance(self.image, bytes | bytearray)
            else self.image
        )
        if image.dtype != np.uint8 or image.ndim != 1:
            raise ProgramError(f"the program image must be bytes, not {image.dtype}{image.shape}")
        object.__setattr__(self, "image", image)
        if not 0 < self.instruction_count * isa.INSTRUCTION_BYTES <= len(image):
            raise ProgramError(
                f"{self.instruction_count} instructions of {isa.INSTRUCTION_BYTES} bytes do not "
                f"fit an image of {len(image)} bytes"
            )
        if self.batch < 1 or self.batch * max(1, len(self.tasks)) > isa.TASKS:
            raise ProgramError(
                f"a job of {self.batch} images with {len(self.tasks)} task inputs cannot be"
            )
        self._check_input()
        if not self.outputs:
            raise ProgramError(f"program {self.model!r} has no output")
        for out in self.outputs:
            if out.bits not in (8, 16):
                raise ProgramError(f"output {out.name!r} cannot have values of {out.bits} bits")

    def _check_input(self) -> None:
        spec = self.input
        channels, height, width = spec.shape
        (ph, pw), (top, left, bottom, right) = spec.patch, spec.pads
        least = min(*spec.shape, ph, pw, *(spec.strides or spec.patch))
        whole = spec.strides is not None or not (height % ph or width % pw or any(spec.pads))
        inside = max(top, bottom) < ph <= height + top + bottom
        inside = inside and max(left, right) < pw <= width + left + right
        if least < 1 or min(spec.pads) < 0 or not (whole and inside):
            raise ProgramError(
                f"input {spec.name!r} of {spec.shape} is not made of {ph}x{pw} patches"
            )
        if spec.rows != spec.prefix + spec.patches[0] * spec.patches[1]:
            raise ProgramError(f"input {spec.name!r} cannot have {spec.rows} rows")
        for values in (spec.multiplier, spec.offset):
            if np.shape(values) != (channels,):
                raise ProgramError(f"input {spec.name!r} needs {channels} factors and offsets")
        at = 0
        for first, count in sorted(spec.blocks):
            at = at + count if first == at and count > 0 else -1
        if spec.blocks and at != spec.rows:
            raise ProgramError(f"the blocks of input {spec.name!r} do not cover its rows once")
        if spec.preprocess is not None:
            preprocess.parse(spec.preprocess)

    @property
    def preprocess(self) -> str | None:
        """How a picture becomes the image."""
        return self.input.preprocess

    def with_preprocess(self, text: str) -> Program:
        """The same with another way from pictures to the image."""
        spec = dataclasses.replace(self.input, preprocess=text)
        return dataclasses.replace(self, input=spec)

    # Sizes -------------------------------------------------------------------------------
    @property
    def input_bytes(self) -> int:
        """Bytes of a job's input region."""
        return self.batch * self.input.size(self.arch.depth)

    @property
    def output_bytes(self) -> int:
        """Bytes of a job's output region."""
        return self.batch * output_size(self.outputs, self.arch.depth)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a job, without padding."""
        return sum(layer.macs for layer in self.layers)

    @property
    def stream_bytes(self) -> int:
        """Weight bytes that cross the bus for a job, those of every expert included."""
        return sum(layer.stream_bytes for layer in self.layers)

    @property
    def dram_bytes(self) -> int:
        """Bytes that cross the bus for a job: instructions, streams, loads and stores.

        The streams of every expert count; :attr:`roofline_cycles` counts as few experts as can be.
        """
        return self.instruction_count * isa.INSTRUCTION_BYTES + sum(self.transfers())

    def transfers(self) -> Iterator[int]:
        """Bytes that each instruction moves over the bus, in program order."""
        return iter(self._transfers)

    @functools.cached_property
    def _transfers(self) -> tuple[int, ...]:
        return tuple(self._moved())

    def _moved(self) -> Iterator[int]:
        depth = self.arch.depth
        for op in self.instructions():
            match op.opcode:
                case Opcode.MATMUL:
                    yield memmap.stream_layout(self.arch, op).total * depth
                case Opcode.LOAD | Opcode.STORE:
                    yield op.rows * op.words * depth * (2 if op.wide else 1)
                case Opcode.LOAD_INDEX:
                    yield -(-op.count * 2 // depth) * depth
                case _:
                    yield 0

    @functools.cached_property
    def roofline_cycles(self) -> int:
        """Cycles below which no core of this size and bus can be: arithmetic or bandwidth."""
        idle, choices, shared = 0, 0, 0
        macs = {layer.instruction: layer.macs for layer in self.layers}
        weights = {layer.instruction: layer.stream_bytes for layer in self.layers}
        for number, op in enumerate(self.instructions()):
            if op.opcode is Opcode.MATMUL and number in macs:
                shared += shared_macs(self.arch, op, macs[number])
            if op.opcode is Opcode.ROUTE:
                choices = op.choices
            # All rows may ask for the same experts, which one block of the queue then holds or not.
            elif op.opcode is Opcode.MATMUL and op.expert_rows and (
                op.expert >= choices or op.expert_first
            ):
                idle += weights[number]
        return roofline(self.arch, self.macs - shared, self.dram_bytes - idle)

    def instructions(self) -> Iterator[Instruction]:
        """The decoded instructions, in order; a MATMUL has the fields of its PATTERN."""
        return iter(self._decoded)

    @functools.cached_property
    def _decoded(self) -> tuple[Instruction, ...]:
        size, result, pattern = isa.INSTRUCTION_BYTES, [], None
        for i in range(self.instruction_count):
            try:
                op = isa.unpack(self.image[i * size : (i + 1) * size].tobytes())
                op, pattern = isa.attach(op, pattern)
                support.check(self.arch, op)
                result.append(op)
            except ProgramError as error:
                raise ProgramError(f"instruction {i} of program {self.model!r}: {error}") from error
        return tuple(result)

    def require_arch(self, arch: ArchConfig) -> None:
        """Refuse to run on a core of another contract.

        Raises
        ------
        ProgramError
            If the hashes differ.
        """
        if arch.hash != self.arch.hash:
            raise ProgramError(
                f"program {self.model!r} was compiled for arch {self.arch.name!r} "
                f"({self.arch.hash:08x}), not for {arch.name!r} ({arch.hash:08x}); compile it "
                f"again with --arch {arch.name}"
            )

    def on(self, arch: ArchConfig) -> Program:
        """The same for a core of the same contract with other conditions (clock, memory)."""
        return dataclasses.replace(self, arch=arch)

    @functools.cached_property
    def quiet_cycles(self) -> int:
        """Cycles in which a healthy core may move nothing: twice its longest run of k tiles."""
        passes = [op.rows * op.k_tiles for op in self.instructions() if op.opcode is Opcode.MATMUL]
        return _QUIET + 2 * max(passes, default=0)

    # Files -------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write the container (see :mod:`vitrify.program.container`), all or nothing."""
        from . import container

        container.save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Program:
        """Read a container; :class:`ProgramError` says what is wrong with it.

        An application in parts is refused: :class:`vitrify.runtime.InferenceSession` takes both.
        """
        from . import container

        return cls._alone(container.load(Path(path)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Program:
        """As :meth:`load`, for the content of a file."""
        from . import container

        return cls._alone(container.parse(data, "in memory"))

    @classmethod
    def _alone(cls, found: object) -> Program:
        if not isinstance(found, cls):
            raise ProgramError("it is an application in parts, of which the core runs some only; "
                               "run it with InferenceSession")
        return found


def shared_macs(arch: ArchConfig, op: Instruction, macs: int) -> int:
    """Of a MATMUL's ``macs`` those on multipliers that do another one in the same cycle."""
    wide = op.c_tiles * arch.tile_width(op.nibbles)
    return macs - macs * memmap.passes(arch, op) * arch.width // wide


def roofline(arch: ArchConfig, macs: int, dram_bytes: int) -> int:
    """Cycles that ``macs`` and ``dram_bytes`` take at least, whichever binds."""
    return max(-(-macs // arch.macs), math.ceil(dram_bytes / arch.dram_bytes))
