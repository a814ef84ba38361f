"""What a run cost: cycles, arithmetic and bus traffic, whole and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vitrify.arch.config import ArchConfig
from vitrify.program import Program, roofline, shared_macs

from .activity import Activity
from .notebook import facts


@dataclass(kw_only=True)
class Cost:
    """Cost of a layer or a run.  ``cycles`` is ``None`` where no clock was simulated."""

    name: str
    arch: ArchConfig
    macs: int = 0
    #: Of these, on multipliers that do another one in the same cycle.
    shared_macs: int = 0
    cycles: int | None = None
    dram_read_bytes: int = 0
    dram_write_bytes: int = 0
    #: Of those read, weights that were loaded ahead for experts whom nobody asked for.
    wasted_bytes: int = 0

    @property
    def utilisation(self) -> float | None:
        """Share of the multiplications that the cycles offered."""
        used = self.macs - self.shared_macs
        return used / (self.cycles * self.arch.macs) if self.cycles else None

    @property
    def roofline_cycles(self) -> int:
        """Cycles below which this work cannot be done: arithmetic or bandwidth."""
        needed = self.dram_read_bytes + self.dram_write_bytes - self.wasted_bytes
        return roofline(self.arch, self.macs - self.shared_macs, needed)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "name": self.name,
            "cycles": self.cycles,
            "macs": self.macs,
            "array_macs": self.arch.macs,
            "utilisation": self.utilisation,
            "dram_read_bytes": self.dram_read_bytes,
            "dram_write_bytes": self.dram_write_bytes,
            "roofline_cycles": self.roofline_cycles,
        }


@dataclass(kw_only=True)
class Statistics(Cost):
    """Cost of a run over all its images (``name`` is the model's)."""

    backend: str
    images: int
    layers: list[Cost] = field(default_factory=list)
    #: The core's counters, by name (see :data:`vitrify.arch.csr.COUNTERS`).
    counters: dict[str, int] = field(default_factory=dict)
    #: What the engines did when, where the backend was asked for it.
    activity: Activity | None = field(default=None, repr=False)
    #: Wall-clock time of the backend, and of it what parts of the host took.
    seconds: float = 0.0
    host_seconds: float = 0.0

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        values = {"images": f"{self.images:,}", "MMACs": f"{self.macs / 1e6:,.1f}"}
        if self.cycles and self.utilisation is not None:
            values |= {
                "cycles an image": f"{self.cycles / self.images:,.0f}",
                "ms an image": f"{self.cycles / self.images / self.arch.clock_mhz / 1e3:.3f} at "
                f"{self.arch.clock_mhz:g} MHz",
                "MACs used": f"{self.utilisation:.1%} of {self.arch.macs:,} a cycle",
                "of the roofline": f"{self.roofline_cycles / self.cycles:.1%}",
            }
        values["read from DRAM"] = f"{self.dram_read_bytes / self.images / 1024:,.1f} KiB an image"
        return facts(f"{self.name} on {self.arch.name}, {self.backend}", values)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: the keys of a layer, and those of the run."""
        own = super().to_dict()
        own["model"] = own.pop("name")
        return {
            **own,
            "arch": self.arch.name,
            "backend": self.backend,
            "images": self.images,
            "cycles_per_image": self.cycles / self.images if self.cycles else None,
            "clock_mhz": self.arch.clock_mhz,
            "seconds": self.seconds,
            "host_seconds": self.host_seconds,
            "stalls": {
                name.removeprefix("STALL_").lower(): value
                for name, value in self.counters.items()
                if name.startswith("STALL_")
            },
            "counters": self.counters,
            "layers": [layer.to_dict() for layer in self.layers],
        }


def of_program(
    program: Program, backend: str, images: int, cycles: Sequence[int] | None = None,
    skipped: Sequence[int] | None = None,
) -> Statistics:
    """Statistics that follow from the program itself; bytes are exact on every backend.

    Parameters
    ----------
    program, backend, images : what ran, where, how often
    cycles : cycles of every entry of ``program.layers``, all images together
    skipped : how many jobs left each of them out (none without): their weights were not fetched,
        or fetched in vain
    """
    arch = program.arch
    layers: dict[str, Cost] = {}
    names = {layer.instruction: i for i, layer in enumerate(program.layers)}
    jobs = -(-images // program.batch)
    write = idle = wasted = 0
    for number, (op, size) in enumerate(
        zip(program.instructions(), program.transfers(), strict=True)
    ):
        if op.opcode.name == "STORE":
            write += size
        if number in names:
            entry = program.layers[names[number]]
            cost = layers.setdefault(entry.name, Cost(name=entry.name, arch=arch))
            macs = entry.macs * images // program.batch
            cost.macs += macs
            cost.shared_macs += shared_macs(arch, op, macs)
            left_out = 0 if skipped is None else skipped[names[number]]
            cost.dram_read_bytes += entry.stream_bytes * (jobs - left_out)
            idle += size * left_out
            wasted += (entry.stream_bytes - size) * left_out
            if cycles is not None:
                cost.cycles = (cost.cycles or 0) + cycles[names[number]]
    return Statistics(
        name=program.model,
        arch=arch,
        backend=backend,
        images=images,
        macs=program.macs * images // program.batch,
        shared_macs=sum(layer.shared_macs for layer in layers.values()),
        dram_read_bytes=(program.dram_bytes - write) * jobs - idle,
        dram_write_bytes=write * jobs,
        wasted_bytes=wasted,
        layers=list(layers.values()),
    )


def counted(statistics: Statistics, counters: Mapping[str, int]) -> Statistics:
    """``statistics`` with what the core itself has counted, in place of what follows from the
    program.
    """
    bus = statistics.arch.bus_bytes
    return replace(
        statistics, counters=dict(counters), cycles=counters["CYCLES"],
        dram_read_bytes=counters["DRAM_READ_BEATS"] * bus,
        dram_write_bytes=counters["DRAM_WRITE_BEATS"] * bus,
    )
