"""Two steps of Amaranth's way to Verilog, as they are for cores with megabytes of memory.

Amaranth 0.5 looks for combinational cycles bit by bit, and writes the contents of memories bit by
bit: more than half of the time of an emission.  :func:`quick` has both done in larger pieces, with
the same results.  Neither has a place for that in Amaranth's interface, so they are replaced while
a design is converted; pyproject.toml keeps the version, and tests compare with Amaranth's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from amaranth.back import rtlil
from amaranth.hdl import _nir

#: Cells whose outputs depend at once on inputs only, perhaps not each of them on each.
_COMBINATIONAL = (
    _nir.Operator, _nir.Part, _nir.Matches, _nir.PriorityMatch, _nir.AssignmentList,
)
_bit_by_bit = _nir.Netlist.check_comb_cycles


@contextmanager
def quick() -> Iterator[None]:
    """Convert designs in here."""
    with (
        mock.patch.object(_nir.Netlist, "check_comb_cycles", check_cycles),
        mock.patch.object(rtlil.ModuleEmitter, "emit_memory", _emit_memory),
    ):
        yield


def check_cycles(netlist: Any) -> None:
    """As Amaranth's check: first of cells, then of the bits of those that wait for themselves.

    Raises
    ------
    amaranth.hdl._nir.CombinationalCycle
        With the path of a cycle.
    """
    cells = waiting({
        number: {bit >> 16 for bit in _resolved(netlist, _read(cell, number))}
        for number, cell in enumerate(netlist.cells)
    })
    bits = waiting({
        int(bit): {
            source for source in _resolved(netlist, _read_by(netlist.cells[number], bit))
            if source >> 16 in cells
        }
        for number in cells for bit in netlist.cells[number].output_nets(number)
    })
    if bits:
        _bit_by_bit(netlist)  # knows the path, too


def waiting(sources: Mapping[int, set[int]]) -> set[int]:
    """Nodes that are on a cycle, or behind one."""
    readers: dict[int, list[int]] = {}
    for node, before in sources.items():
        for source in before:
            readers.setdefault(source, []).append(node)
    left = {node: len(before) for node, before in sources.items()}
    ready = [node for node, count in left.items() if not count]
    while ready:
        node = ready.pop()
        del left[node]
        for reader in readers.get(node, ()):
            left[reader] -= 1
            if not left[reader]:
                ready.append(reader)
    return set(left)


def _read(cell: Any, number: int) -> Iterable[int]:
    """What any output of a cell may depend on at once."""
    if isinstance(cell, _COMBINATIONAL):
        return cell.input_nets()
    return {net for bit in cell.output_nets(number) for net in _read_by(cell, bit)}


def _read_by(cell: Any, bit: Any) -> Iterable[int]:
    """What one bit of a cell's output depends on at once."""
    return (net for net, _ in cell.comb_edges_to(bit.bit))


def _resolved(netlist: Any, nets: Iterable[int]) -> Iterator[int]:
    """The outputs of cells that drive ``nets``; constants are none."""
    for net in nets:
        while net < 0:
            net = netlist.connections[net]
        if net > 1:
            yield int(net)


def _emit_memory(emitter: Any, number: int, cell: Any) -> None:
    """The contents of a memory, word by word."""
    one = 1 << cell.width  # in front of a word: then it has all its digits, negative ones, too
    bits = "".join(f"{row & one - 1 | one:b}"[1:] for row in reversed(cell.init))
    emitter.builder.cell("$meminit_v2", ports={
        "ADDR": emitter.sigspec(),
        "DATA": f"{len(bits)}'{bits}" if bits else emitter.sigspec(),
        "EN": emitter.sigspec(_nir.Value.ones(cell.width)),
    }, parameters={
        "MEMID": emitter.memories[number].memid,
        "ABITS": 0,
        "WIDTH": cell.width,
        "WORDS": cell.depth,
        "PRIORITY": 0,
    }, src_loc=cell.src_loc)
