"""What a run on the core would cost, and what it would wait for: whole and by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from vitrify.arch import access, memmap
from vitrify.arch.boards import built_for
from vitrify.arch.config import ArchConfig
from vitrify.arch.estimate import estimate as resources_of
from vitrify.arch.estimate import fits
from vitrify.arch.isa import Instruction
from vitrify.arch.power import Power, power
from vitrify.program import Program, shared_macs
from vitrify.runtime.activity import Activity
from vitrify.runtime.routing import Routing, uniform
from vitrify.runtime.statistics import Statistics, of_program

from .core import MatmulTimes, Progress, timeline
from .recorder import Recorder

#: Where cycles go that multiply nothing.
LIMITS = {
    "padding": "rows, columns or depths that do not fill the array's tiles",
    "diagonals": "zeros beside the diagonals of depthwise layers: K products a cycle",
    "copies": "values moved to another place, order or format, which multiplies nothing",
    "weights": "the DRAM had not delivered the weights",
    "tiles": "passes of fewer rows than a stationary tile takes to load",
    "dependency": "an earlier layer had not finished what this one reads",
    "epilogue": "results left the accumulators more slowly than they came",
    "banks": "two units wanted the same bank of the token memory",
    "start": "no instruction was at hand",
}
#: Below this share of a layer's cycles no loss counts: the array is what limits it.
_NEGLIGIBLE = 0.05
_OF_ROWS = {"dependency": "dependency", "drain": "epilogue", "bank": "banks", "empty": "start"}
_OF_TILES = {"weights": "weights", "dependency": "dependency", "epilogue": "epilogue",
             "bank": "banks", "tile": "tiles"}


@dataclass(frozen=True)
class LayerEstimate:
    """One layer: its cost, and the cycles that each of :data:`LIMITS` took from the array.

    ``cycles`` last from the end of the layer before to this layer's last write, as the simulated
    core counts them; ``lost`` is seen from the array, which begins and ends a little earlier.
    """

    name: str
    cycles: int
    macs: int
    dram_read_bytes: int
    roofline_cycles: int
    utilisation: float
    lost: Mapping[str, int]

    @property
    def bottleneck(self) -> str:
        """What limits the layer most: ``array``, or one of :data:`LIMITS`."""
        return bottleneck(self.lost, self.cycles)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "name": self.name, "cycles": self.cycles, "macs": self.macs,
            "utilisation": self.utilisation, "dram_read_bytes": self.dram_read_bytes,
            "roofline_cycles": self.roofline_cycles, "bottleneck": self.bottleneck,
            "lost_cycles": dict(self.lost),
        }


@dataclass(frozen=True)
class Estimate:
    """A program on its core, one image.

    ``stalls`` are those of the core's own counters; ``resources`` is that of
    :func:`vitrify.arch.estimate.estimate`.
    """

    program: Program
    cost: Statistics
    layers: tuple[LayerEstimate, ...]
    stalls: Mapping[str, int]
    resources: Mapping[str, Any]
    #: Of a program with experts.
    routing: Routing | None = None
    #: Of an estimate with a trace.
    activity: Activity | None = None

    @property
    def arch(self) -> ArchConfig:
        """The core."""
        return self.program.arch

    @property
    def cycles(self) -> int:
        """From the start of the job to its interrupt."""
        assert self.cost.cycles is not None
        return self.cost.cycles

    @property
    def milliseconds(self) -> float:
        """Latency of a job at the architecture's clock."""
        return self.cycles / self.arch.clock_mhz / 1e3

    @property
    def conditions(self) -> str:
        """What stands behind the figures."""
        found = built_for(self.arch)
        where = (
            f"a core on {found.name} as `vitrify build` makes it; clock {found.clock_from}"
            if found else "no board of vitrify.arch.boards"
        )
        return f"estimated, not measured; {where}"

    @property
    def lost(self) -> dict[str, int]:
        """Cycles that each of :data:`LIMITS` took from the array."""
        return {name: sum(layer.lost[name] for layer in self.layers) for name in LIMITS}

    @property
    def fits(self) -> bool | None:
        """Whether the part has enough of everything; ``None`` without a part."""
        return fits(self.arch)

    @property
    def images_per_second(self) -> float:
        """Jobs one after the other, at the architecture's clock."""
        return self.program.batch * 1e3 / self.milliseconds

    @property
    def power(self) -> Power | None:
        """By published designs of the part's family; ``None`` where there are none."""
        return power(self.arch)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.cost._repr_html_()

    def _power(self) -> dict[str, float] | None:
        if (found := self.power) is None:
            return None
        return {
            "watts": found.watts, "least_watts": found.least, "most_watts": found.most,
            "published_designs": found.designs,
            "millijoules_an_image": 1e3 * found.watts / self.images_per_second,
            "images_per_second_per_watt": self.images_per_second / found.watts,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON form; keys as in the statistics of a run where they mean the same."""
        cost = self.cost.to_dict()
        kept = ("model", "arch", "cycles", "macs", "array_macs", "utilisation", "clock_mhz",
                "roofline_cycles", "dram_read_bytes", "dram_write_bytes")
        used = self.program.metadata.get("token_memory_bytes")
        return {
            **{name: cost[name] for name in kept},
            "milliseconds": self.milliseconds,
            "conditions": self.conditions,
            "memory": {
                "ports": self.arch.ports, "port_bytes": self.arch.port_bytes,
                "bytes_per_cycle": self.arch.dram_bytes, **asdict(self.arch.dram),
            },
            "images_per_second": self.images_per_second,
            "power": self._power(),
            "bottleneck": bottleneck(self.lost, self.cycles),
            "lost_cycles": self.lost,
            "stalls": dict(self.stalls),
            "token_memory_bytes": used,
            "token_memory_capacity": self.arch.token_bytes,
            "part": self.arch.part.name,
            "fits": self.fits,
            "resources": dict(self.resources),
            "routing": self.routing.to_dict() if self.routing else None,
            "layers": [layer.to_dict() for layer in self.layers],
        }


def bottleneck(lost: Mapping[str, int], cycles: int) -> str:
    """The largest loss, or ``array`` if all are small."""
    worst = max(lost, key=lost.__getitem__)
    return worst if lost[worst] > _NEGLIGIBLE * cycles else "array"


def estimate(
    program: Program, progress: Progress | None = None, routing: Routing | None = None, *,
    trace: bool = False,
) -> Estimate:
    """Predict the cycles of one job without simulating the core.

    Parameters
    ----------
    progress : told MATMULs done and in all
    routing : which experts get how many rows (default: all the same); see
        :mod:`vitrify.runtime.routing`
    trace : keep what the engines do when, as ``activity`` of the result
    """
    routing, recorder = routing or uniform(program), Recorder() if trace else None
    times = timeline(program, progress, routing, recorder)
    ends = [0]
    for matmul in times.matmuls:
        ends.append(ends[-1] if matmul is None else matmul.results.last_write)
    cycles = [end - before for before, end in pairwise(ends)]
    skipped = [int(matmul is None) for matmul in times.matmuls]
    cost = of_program(program, "estimate", program.batch, cycles, skipped)
    cost.cycles = times.cycles
    lost: dict[str, dict[str, int]] = {}
    stalls: dict[str, int] = {}
    decoded = list(program.instructions())
    for layer, matmul in zip(program.layers, times.matmuls, strict=True):
        mine = lost.setdefault(layer.name, dict.fromkeys(LIMITS, 0))
        if matmul is None:
            continue
        op = decoded[layer.instruction]
        macs = _queued(program.arch, op, matmul.rows.rows) if op.expert_rows else layer.macs
        for name, count in _lost(program.arch, op, macs, matmul).items():
            mine[name] += count
        for name, count in matmul.rows.stalls.items():
            stalls[name] = stalls.get(name, 0) + count
    ran = [matmul for matmul in times.matmuls if matmul is not None]
    if ran:
        # Behind the last row the array has nothing to do.
        stalls["empty"] += times.cycles - 1 - ran[-1].rows.end
    layers = tuple(
        LayerEstimate(
            name=part.name, cycles=part.cycles or 0, macs=part.macs,
            dram_read_bytes=part.dram_read_bytes, roofline_cycles=part.roofline_cycles,
            utilisation=part.utilisation or 0.0, lost=lost[part.name],
        )
        for part in cost.layers
    )
    return Estimate(
        program, cost, layers, stalls, resources_of(program.arch),
        routing if routing.counts else None,
        None if recorder is None else recorder.activity(
            times.cycles, program.arch.bus_bytes,
            [place for place, matmul in enumerate(times.matmuls) if matmul is not None],
        ),
    )


def _queued(arch: ArchConfig, op: Instruction, issued: int) -> int:
    """Multiply-accumulates of a MATMUL that issued so many rows, of all tiles together."""
    depth, columns = access.shape(arch, op)
    return issued // (op.k_tiles * memmap.passes(arch, op)) * depth * columns


def _lost(
    arch: ArchConfig, op: Instruction, macs: int, matmul: MatmulTimes
) -> dict[str, int]:
    rows = matmul.rows
    lost = dict.fromkeys(LIMITS, 0)
    products = op.rows * access.shape(arch, op)[1] * (op.taps_y * op.taps_x if op.tapped else 1)
    # No output of a depthwise layer has more than one product a tap.
    zeros = "copies" if not macs else "diagonals" if macs <= products else "padding"
    lost[zeros] = rows.rows - -(-(macs - shared_macs(arch, op, macs)) // arch.macs)
    for why, count in rows.reasons.items():
        lost[_OF_TILES[why]] += count
    for why, name in _OF_ROWS.items():
        lost[name] += rows.stalls[why]
    return lost
