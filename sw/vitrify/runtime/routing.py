"""Which rows went to which expert: of real images, counted on the golden machine, or assumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import InputError
from vitrify.arch.isa import Instruction, Opcode
from vitrify.arch.text import short
from vitrify.program import Program

Counts = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]
#: More than a job has.
_MOST_ROWS = 1 << 20
#: Called with jobs done and in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Route:
    """A ROUTE of a program: the layer it belongs to, and what an expert costs on the bus."""

    name: str
    rows: int
    experts: int
    choices: int
    #: Bytes of the weights of each expert, for one block of its queue.
    stream_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Routing:
    """Rows of every expert: ``counts[route][expert]`` for each of :func:`routes`, in their order.

    ``source`` says where they are from.
    """

    counts: tuple[tuple[int, ...], ...]
    source: str

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"source": self.source, "counts": [list(part) for part in self.counts]}


def routes(program: Program) -> list[Route]:
    """The ROUTEs of a program; rows of those that join another count as rows of that one."""
    layers = {layer.instruction: layer for layer in program.layers}
    found: list[tuple[Instruction, str, dict[int, int]]] = []
    for number, op in enumerate(program.instructions()):
        if op.opcode is Opcode.ROUTE and op.joins:
            first, name, sizes = found[-1]
            whole = {**first.values, "rows": first.rows + op.rows}
            found[-1] = Instruction(Opcode.ROUTE, whole), name, sizes
        elif op.opcode is Opcode.ROUTE:
            found.append((op, "", {}))
        elif op.opcode is Opcode.MATMUL and op.expert_rows and not op.expert_first:
            route, name, sizes = found[-1]
            sizes[op.expert] = sizes.get(op.expert, 0) + layers[number].stream_bytes
            found[-1] = route, name or layers[number].name.rpartition(".")[0], sizes
    return [
        Route(name, op.rows, op.experts, op.choices,
              tuple(sizes.get(expert, 0) for expert in range(op.experts)))
        for op, name, sizes in found
    ]


def uniform(program: Program) -> Routing:
    """Every expert gets as many rows as the others."""
    counts = []
    for route in routes(program):
        total = route.rows * route.choices
        counts.append(tuple(
            total * (e + 1) // route.experts - total * e // route.experts
            for e in range(route.experts)
        ))
    return Routing(tuple(counts), "uniform")


def replay(
    program: Program, regions: UInt8, tasks: Sequence[int], progress: Progress | None = None
) -> list[Routing]:
    """The routing of every job, from the golden machine.

    Parameters
    ----------
    regions : input regions ``[jobs, input_bytes]``
    tasks : the register TASK of each job
    """
    from vitrify.golden.machine import Machine

    machine = Machine(program.arch)
    first = _first_experts(program)
    sizes = {number: route.experts for number, route in zip(first, routes(program), strict=True)}
    found = []
    for done, (region, task) in enumerate(zip(regions, tasks, strict=True), 1):
        counts: list[tuple[int, ...]] = []

        def observe(number: int, *_: Any, into: list[tuple[int, ...]] = counts) -> None:
            if number in sizes:
                into.append(tuple(int(n) for n in machine.experts.count[: sizes[number]]))

        machine.run(
            program.image, program.instruction_count, region, program.output_bytes, observe, task
        )
        found.append(Routing(tuple(counts), "replayed"))
        if progress is not None:
            progress(done, len(regions))
    return found


def expert_bytes(routing: Routing, layers: Sequence[Route]) -> int:
    """Bytes of the weights of every expert that has rows."""
    return sum(
        size
        for layer, counts in zip(layers, routing.counts, strict=True)
        for size, count in zip(layer.stream_bytes, counts, strict=True) if count
    )


def typical(found: Sequence[Routing], layers: Sequence[Route]) -> Routing:
    """The one with the median of the fetched bytes."""
    order = sorted(found, key=lambda routing: expert_bytes(routing, layers))
    return order[len(order) // 2]


def _first_experts(program: Program) -> list[int]:
    """Number of the first MATMUL that uses each ROUTE's queues."""
    found, waiting = [], False
    for number, op in enumerate(program.instructions()):
        if op.opcode is Opcode.ROUTE:
            waiting = True
        elif waiting and op.opcode is Opcode.MATMUL and op.expert_rows:
            found.append(number)
            waiting = False
    return found


def read(path: Path, program: Program) -> Routing:
    """The ``replay`` part of a file that ``vitrify routing`` wrote.

    Raises
    ------
    InputError
        If it is no such file, or of a program with other experts.
    """
    try:
        data = json.loads(path.read_text())
        counts = tuple(tuple(map(_rows, part)) for part in data["replay"]["counts"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{str(path)!r} is no routing: `vitrify routing OUT.vfy --data … -o {path.name}` "
            f"makes one ({short(str(error))})"
        ) from error
    wanted = [(r.experts, r.rows * r.choices) for r in routes(program)]
    if [(len(part), sum(part)) for part in counts] != wanted:
        raise InputError(
            f"{str(path)!r} routes other layers than those of {program.model!r} with "
            f"{program.batch} images a job; make it again for this program"
        )
    return Routing(counts, "replayed")


def _rows(number: object) -> int:
    """A count of rows in a file."""
    if not isinstance(number, int) or not 0 <= number <= _MOST_ROWS:
        raise ValueError(f"{short(number)} is no number of rows")
    return number
