"""Where program, inputs and outputs lie in the core's memory, and what its registers hold."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitrify.arch import csr
from vitrify.arch.config import CONTRACT_VERSION, ArchConfig
from vitrify.arch.memmap import ALIGNMENT, aligned
from vitrify.arch.names import module_name, port_names
from vitrify.program import Program, UInt8


@dataclass(frozen=True)
class Region:
    """``count`` pieces of ``size`` bytes, ``step`` bytes from one to the next."""

    name: str
    address: int
    size: int
    step: int
    count: int

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.address + self.count * self.step

    def pieces(self, data: UInt8) -> UInt8:
        """``data``, ``[count, size]`` or one for all, with zeros behind: ``[count, step]``."""
        padded = np.zeros((self.count, self.step), np.uint8)
        padded[:, : self.size] = data
        return padded


@dataclass(frozen=True)
class Layout:
    """The memory of a run: from address 0 on, everything aligned, nothing used twice."""

    program: Program
    #: Registers TASK of the jobs.
    tasks: tuple[int, ...]

    @functools.cached_property
    def regions(self) -> tuple[Region, Region, Region]:
        """Program image, inputs, outputs."""
        program, jobs = self.program, len(self.tasks)
        image = len(program.image)
        one = Region("program", 0, image, aligned(image), 1)
        two = Region("input", one.end, program.input_bytes, aligned(program.input_bytes), jobs)
        return one, two, Region(
            "output", two.end, program.output_bytes, aligned(program.output_bytes), jobs
        )

    @property
    def end(self) -> int:
        """Bytes of memory."""
        return self.regions[-1].end

    def registers(self) -> dict[str, int]:
        """What to write before the first job, in this order; windows shut until their end."""
        program, _, output = self.regions
        return {
            **_halves("PROGRAM_BASE", program.address),
            **_halves("READ_LIMIT", self.end), **_halves("READ_BASE", program.address),
            **_halves("WRITE_LIMIT", self.end), **_halves("WRITE_BASE", output.address),
            "PROGRAM_COUNT": self.program.instruction_count,
            "CYCLE_LIMIT": 0,
            "IRQ_STATUS": csr.BY_NAME["IRQ_STATUS"].mask,
            "IRQ_ENABLE": csr.BY_NAME["IRQ_ENABLE"].mask,
        }

    def jobs(self) -> list[dict[str, int]]:
        """Registers of every job; JOB_PUSH comes last."""
        _, source, target = self.regions
        return [
            {
                **_halves("INPUT_BASE", source.address + i * source.step),
                **_halves("OUTPUT_BASE", target.address + i * target.step),
                "TASK": task,
                "JOB_PUSH": 1,
            }
            for i, task in enumerate(self.tasks)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        program, arch = self.program, self.program.arch
        return {
            "model": program.model,
            "core": core(arch),
            "memory": {
                "bytes": self.end,
                "alignment": ALIGNMENT,
                "regions": [
                    {"name": r.name, "address": r.address, "bytes": r.size, "step": r.step,
                     "count": r.count, "binary": f"{r.name}.bin", "readmemh": f"{r.name}.mem"}
                    for r in self.regions
                ],
            },
            "pictures_a_job": program.batch,
            "inputs": [program.input.name, *(task.name for task in program.tasks)],
            "outputs": [
                {"name": out.name, "offset": out.offset, "rows": out.rows,
                 "channels": out.channels, "bits": out.bits, "shape": list(out.shape),
                 "dtype": out.dtype}
                for out in program.outputs
            ],
            "write_first": self.registers(),
            "write_for_each_job": self.jobs(),
        }


def _halves(name: str, value: int) -> dict[str, int]:
    """``value`` in a pair of registers."""
    return {f"{name}_LO": value & 0xFFFF_FFFF, f"{name}_HI": value >> 32}


def core(arch: ArchConfig) -> dict[str, Any]:
    """The core that the program is for, with its registers."""
    return {
        "arch": arch.name,
        "arch_hash": f"{arch.hash:08x}",
        "contract_version": CONTRACT_VERSION,
        "module": module_name(arch),
        "memory_ports": port_names(arch),
        "port_bytes": arch.port_bytes,
        "registers": {
            r.name: {
                "offset": r.offset, "access": r.access.value,
                "fields": {f.name: {"shift": f.lsb, "bits": f.bits} for f in r.fields},
            }
            for r in csr.REGISTERS
        },
        "errors": {code.name: int(code) for code in csr.ErrorCode},
    }
