"""Layers made band by band, because what is between them is too large for the token memory.

A tensor that *passes* is never there as a whole.  An op that reads it and makes something that
stays is done in bands of its rows, whole lines of a map; before each, what passes is made as far as
that band reads it, lines that two bands read twice.  So every band has parts of the ops
(:meth:`~vitrify.quant.graph.QOp.part`) and tensors of its own; the integers are those of the whole
graph.  What several ops read that are not done together is made again for each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vitrify.codegen.strategy import Passing
from vitrify.ops.linear.integer import QLinear
from vitrify.ops.passing.integer import QAside, QRead
from vitrify.ops.product.integer import QProduct
from vitrify.quant.graph import QConstant, QOp, QuantGraph
from vitrify.quant.tensors import Band


def may_pass(graph: QuantGraph) -> dict[str, frozenset[str]]:
    """Tensors that can be made in bands, by name, and those that pass with each."""
    mates: dict[str, set[str]] = {}
    blocked = set(graph.outputs.values())
    for op in graph.ops:
        touched = {*op.sources(), *op.results()}
        for pair in op.pairs():
            for name in pair:
                mates.setdefault(name, set()).update(pair)
        blocked |= {*op.stationary()} if _divisible(op) else touched
    made = {name for op in graph.ops for name in op.results()} | {graph.input.out}
    return {
        name: frozenset({name, *mates.get(name, ())}) for name in made - blocked
        if not blocked & mates.get(name, set())
    }


def _divisible(op: QOp) -> bool:
    """Whether parts of its rows can be made alone."""
    if isinstance(op, QProduct):
        return op.by_row
    if not isinstance(op, QLinear) or op.task is not None or (op.into and op.into.start is None):
        return False
    return op.window is None or op.window.maps == 1


@dataclass(frozen=True)
class Banded:
    """A graph in bands, and for each of its ops the first one of the group, empty for others."""

    graph: QuantGraph
    groups: list[str]


def in_bands(graph: QuantGraph, passing: Passing) -> Banded:
    """``graph`` with some tensors passing in bands, as many as are wanted and there are lines for.

    Raises
    ------
    ValueError
        If they cannot, because what they are made of has changed when they are read.
    """
    if not passing.tensors:
        return Banded(graph, [""] * len(graph.ops))
    return _Cut(graph, passing).made()


@dataclass(frozen=True)
class _Need:
    """Of one band: rows that ops make, by their numbers, and rows that tensors need."""

    made: Mapping[int, range]
    rows: Mapping[str, range]


@dataclass
class _Cut:
    graph: QuantGraph
    way: Passing
    ops: list[QOp] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    constants: list[QConstant] = field(default_factory=list)
    #: Rows that were made by now, from the first one on, by op number.
    done: dict[int, int] = field(default_factory=dict)
    #: Numbers of the ops that make a tensor.
    makers: dict[str, list[int]] = field(default_factory=dict)
    count: int = 0

    def made(self) -> Banded:
        """The graph in bands."""
        graph, self.passing = self.graph, self.way.tensors
        self.tensors = dict(graph.tensors)
        self.widths = _widths(graph)
        self.known = {one.out: one for one in graph.constants}
        self.whole = {name: range(tensor.rows) for name, tensor in graph.tensors.items()}
        for i, op in enumerate(graph.ops):
            self.makers.setdefault(op.out, []).append(i)
        at = 0
        while at < len(graph.ops):
            op, name = graph.ops[at], ""
            if op.out in self.passing:
                at += 1
            elif self.passing.isdisjoint(op.sources()):
                self.ops.append(op)
                at += 1
            else:
                name = op.name
                group, at = self._group(at)
                if not self._emit(group):
                    raise ValueError(f"what {name!r} reads cannot be made in bands")
            self.groups += [name] * (len(self.ops) - len(self.groups))
        used = {name for op in self.ops for name in (*op.sources(), *op.results())}
        kept = [one for one in graph.constants if one.out in used]
        made = replace(
            graph, ops=self.ops, tensors=self.tensors, constants=[*kept, *self.constants]
        )
        return Banded(made, self.groups)

    def _group(self, first: int) -> tuple[list[int], int]:
        """Numbers of ops that are done together, and where to go on."""
        ops, rows = self.graph.ops, self._rows(first)
        group, at = [first], first + 1
        while at < len(ops):
            op = ops[at]
            if op.out not in self.passing:
                if self.passing.isdisjoint(op.sources()) or self._rows(at) != rows:
                    break
                results = {ops[i].out for i in group}
                read = {
                    name for i in (*self._closure(at), at) for name in ops[i].sources()
                    if not (i == at and name == op.out)
                }
                if results & read or self._unit(at) != self._unit(first):
                    break
                group.append(at)
            at += 1
        return group, at

    def _rows(self, number: int) -> int:
        return self.graph.tensors[self.graph.ops[number].out].rows

    def _unit(self, number: int) -> int:
        return self.widths.get(self.graph.ops[number].out, 1)

    def _closure(self, number: int) -> list[int]:
        """Numbers of the ops that make what passes to op ``number``."""
        found, left = set[int](), [number]
        while left:
            later = left.pop()
            for name in self.graph.ops[later].sources():
                if name in self.passing:
                    new = {i for i in self.makers.get(name, ()) if i < later} - found
                    found |= new
                    left += new
        return sorted(found)

    def _emit(self, group: list[int]) -> bool:
        """The bands of a group of ops; whether they are possible."""
        ops = self.graph.ops
        closure = sorted({i for number in group for i in self._closure(number)})
        for i in closure:
            whole = {*ops[i].sources()} - self.passing
            if any(op.out in whole for op in ops[i + 1 : group[0]]):
                return False
        rows, unit = self._rows(group[0]), self._unit(group[0])
        if rows % unit:
            return False
        bands = dict(self.way.counts).get(ops[group[0]].name, self.way.bands)
        needs = [
            self._need(group, closure, band) for band in self._bands(closure, rows, unit, bands)
        ]
        behind = self._behind(group, closure, needs)
        aside: dict[str, str] = {}
        if 2 * behind >= len(needs):
            behind, aside = 0, self._set_aside(group, closure, needs)
        names = [dict(aside) for _ in needs]
        for number in range(len(needs) + behind):
            if number < len(needs):
                need, own = needs[number], names[number]
                self._begin(need, own)
                if not self._band(closure, need, own, aside):
                    return False
            if number >= behind:
                last = number - behind
                if not self._band(group, needs[last], names[last], aside):
                    return False
        return True

    def _bands(self, closure: list[int], rows: int, unit: int, bands: int) -> list[range]:
        """So many bands of rows, or fewer.

        Where what passes has lines, and the result a few rows before or behind them (a class
        token), the first band is as much longer that the others are whole lines.
        """
        made = [self.widths.get(self.graph.ops[i].out, 1) for i in closure]
        width = max(made, default=1)
        more = rows % width
        if unit > 1 or not 0 < more < width < rows:
            width, more = unit, 0
        each = -(-(rows // width) // bands) * width
        starts = [0, *range(each + more, rows, each)]
        return [range(a, b) for a, b in zip(starts, [*starts[1:], rows], strict=True)]

    def _behind(self, group: list[int], closure: list[int], needs: list[_Need]) -> int:
        """How many bands later than they could they add to what bands behind them read.

        As many as there are, if they read it themselves.
        """
        ops, most = self.graph.ops, 0
        for op in (ops[i] for i in group):
            if isinstance(op, QLinear) and op.x == op.out and op.window is not None:
                return len(needs)
            if not any(op.out in {*ops[j].sources()} for j in closure):
                continue
            starts = [need.made[group[0]].start for need in needs]
            for number, need in enumerate(needs):
                first = need.rows[op.out].start if need.rows.get(op.out) else starts[number]
                most = max(most, sum(first < start for start in starts[1 : number + 1]))
        return most

    def _need(self, group: list[int], closure: list[int], band: range) -> _Need:
        ops, rows, made = self.graph.ops, dict[str, range](), dict[int, range]()
        #: Read for nothing but the zeros around a map: some line has to be there.
        touched = set[str]()

        def needed(name: str) -> range:
            if name in touched and name not in rows:
                rows[name] = self._hull(name, range(1), range(1))
            return rows.get(name, range(0))

        for i in sorted([*closure, *group], reverse=True):
            op = ops[i]
            made[i] = self._able(i, band if i in group else needed(op.out))
            if not made[i]:
                continue
            read = op.rows_read(made[i]) or {}
            for name, some in read.items():
                if some:
                    rows[name] = self._hull(name, rows.get(name, some), some)
                elif name in self.passing:
                    touched.add(name)
        needed(self.graph.input.out)
        return _Need(made, rows)

    def _able(self, number: int, rows: range) -> range:
        """Those of some rows of its result that an op makes."""
        op = self.graph.ops[number]
        into = op.into if isinstance(op, QLinear | QProduct) else None
        if into is None:
            return rows
        first, last = into.index[0], into.index[-1]
        return range(max(rows.start, first), max(first, min(rows.stop, last + 1)))

    def _hull(self, name: str, one: range, other: range) -> range:
        """Whole lines with both."""
        unit, most = self.widths.get(name, 1), self._count(name)
        start, stop = min(one.start, other.start), max(one.stop, other.stop)
        return range(start // unit * unit, min(most, -(-stop // unit) * unit))

    def _count(self, name: str) -> int:
        return self.graph.tensors[name].rows

    def _set_aside(
        self, group: list[int], closure: list[int], needs: list[_Need]
    ) -> dict[str, str]:
        """Tensors that a band adds to before others have read them: what they are called then."""
        ops, found = self.graph.ops, dict[str, str]()
        for i in group:
            op = ops[i]
            read = any(op.out in {*ops[j].sources()} for j in closure) or (
                isinstance(op, QLinear) and op.x == op.out
            )
            late = any(
                need.rows[op.out].start < need.made[i].start
                for need in needs if op.out in need.rows
            )
            if read and late and op.out not in found:
                found[op.out] = self._name(op.out)
                self.tensors[found[op.out]] = replace(
                    self.tensors[op.out], name=found[op.out]
                )
                self.ops.append(QAside(
                    name=found[op.out], out=found[op.out], x=op.out
                ))
        return found

    def _name(self, of: str) -> str:
        self.count += 1
        return f"{of}.band{self.count}"

    def _begin(self, need: _Need, names: dict[str, str]) -> None:
        """Tensors of a band that pass: their names, and what is there before any op."""
        for name, rows in need.rows.items():
            if name not in self.passing:
                continue
            names[name] = self._name(name)
            self.tensors[names[name]] = replace(
                self.graph.tensors[name], name=names[name], rows=len(rows)
            )
            if name in self.known:
                value = self.known[name].value[rows.start : rows.stop]
                self.constants.append(QConstant(names[name], value))
            if name == self.graph.input.out:
                self.ops.append(QRead(
                    name=names[name], out=names[name], image=name, rows=rows
                ))

    def _band(
        self, numbers: list[int], need: _Need, names: Mapping[str, str], aside: Mapping[str, str]
    ) -> bool:
        """Some ops of a band; whether they are possible."""
        graph = self.graph
        passing = {name: rows for name, rows in need.rows.items() if name in self.passing}
        kept = {**self.whole, **passing}
        fresh = set(aside)
        for i in numbers:
            op, made = graph.ops[i], need.made[i]
            if not made:
                continue
            part = op.part(made, kept)
            if not isinstance(part, QLinear | QProduct):
                return False
            into = op.into if isinstance(op, QLinear | QProduct) else None
            total, first = (into.count, into.index[0]) if into else (self._count(op.out), 0)
            band = Band(kept[op.out].start, self.done.get(i, 0), total, first)
            self.done[i] = max(self.done.get(i, 0), made.stop)
            base = None
            if op.out in fresh:
                base = aside[op.out]
                fresh.remove(op.out)
            own = op.out if op.out in aside else names.get(op.out, op.out)
            part = part.of_band(names, own, band)
            self.ops.append(
                replace(part, base=base) if isinstance(part, QLinear) else part
            )
        return True


def _widths(graph: QuantGraph) -> dict[str, int]:
    """Rows of a line of the maps that tensors are, as far as windows and layers say it."""
    widths: dict[str, int] = {}
    links: list[tuple[str, ...]] = []
    for op in graph.ops:
        if isinstance(op, QProduct) and op.by_row:
            links.append((op.x, op.out))
        if not isinstance(op, QLinear):
            continue
        if op.window is not None:
            for name, width in ((op.x, op.window.map[1]), (op.out, op.window.size[1])):
                widths[name] = math.lcm(widths.get(name, 1), width)
        elif op.rows is None and op.into is None:
            links.append((op.x, op.out, *((op.times.tensor,) if op.times else ())))
        elif op.times is not None:
            links.append((op.x, op.times.tensor))
    changed = True
    while changed:
        changed = False
        for names in links:
            width = math.lcm(*(widths.get(name, 1) for name in names))
            for name in names:
                if widths.get(name, 1) != width:
                    widths[name], changed = width, True
    return widths
