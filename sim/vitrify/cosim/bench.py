"""Helpers for cocotb benches: clock and reset, payloads, streams and pipes.

Timing
    A cycle is counted from one falling edge to the next.  Inputs change at the falling edge;
    outputs, and combinational answers such as ``ready``, are looked at in the ``ReadOnly``
    phase of the same instant, where they have the values that the rising edge will see.  So
    benches behave the same on every simulator.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import data
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, with_timeout
from cocotb.utils import get_sim_time

from vitrify.arch.config import ArchConfig

_PERIOD_NS = 10


@cache
def _settings() -> dict[str, Any]:
    return json.loads(os.environ["VITRIFY_BENCH"])


def arch() -> ArchConfig:
    """The architecture that :func:`vitrify.cosim.runner.simulate` was given."""
    return ArchConfig.from_dict(_settings()["arch"])


def option(name: str, default: Any = None) -> Any:
    """An entry of ``simulate``'s ``options``."""
    return _settings()["options"].get(name, default)


def rng(salt: int = 0) -> np.random.Generator:
    """A NumPy generator that follows the run's seed; ``salt`` gives independent ones."""
    return np.random.default_rng([_settings()["seed"], salt])


async def start(dut: Any, *, reset_cycles: int = 2) -> None:
    """Start the clock with every input zero, reset, and return at a falling edge."""
    for name in _settings()["inputs"]:
        getattr(dut, name).value = 0
    cocotb.start_soon(Clock(dut.clk, _PERIOD_NS, "ns").start())
    dut.rst.value = 1
    for _ in range(reset_cycles + 1):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    await FallingEdge(dut.clk)


async def cycles(dut: Any, count: int) -> None:
    """Wait for ``count`` falling edges."""
    for _ in range(count):
        await FallingEdge(dut.clk)


async def until(dut: Any, condition: Callable[[], bool], *, limit: int = 100_000) -> None:
    """Wait for the falling edge at which ``condition()`` holds; fail after ``limit`` cycles."""
    for _ in range(limit):
        if condition():
            return
        await FallingEdge(dut.clk)
    raise AssertionError(f"nothing happened within {limit} cycles")


async def finish(task: Any, *, limit: int = 100_000) -> Any:
    """Await a coroutine or task; fail after ``limit`` cycles."""
    return await with_timeout(task, limit * _PERIOD_NS, "ns")


# Payloads --------------------------------------------------------------------------------------
def pack(layout: data.Layout, fields: dict[str, Any]) -> int:
    """Integer of a payload; missing fields are zero, arrays are sequences, structs dicts."""
    value = 0
    for name, member in _fields(layout):
        if name not in fields:
            continue
        value |= _pack(member.shape, fields[name]) << member.offset
    unknown = set(fields) - {name for name, _ in _fields(layout)}
    assert not unknown, f"the layout has no field {sorted(unknown)[0]!r}"
    return value


def _fields(layout: Any) -> Iterable[tuple[str, data.Field]]:
    return layout  # its base class declares no items


def _pack(shape: Any, value: Any) -> int:
    if isinstance(shape, data.ArrayLayout):
        items = [_pack(shape.elem_shape, item) for item in value]
        assert len(items) == shape.length, f"{len(items)} values for {shape.length} elements"
        width = shape.size // shape.length
        return sum(item << (width * i) for i, item in enumerate(items))
    if isinstance(shape, data.Layout):
        return pack(shape, value)
    value, width = int(value), _width(shape)
    low, high = (-(1 << (width - 1)), 1 << (width - 1)) if _signed(shape) else (0, 1 << width)
    assert low <= value < high or width == 0, f"{value} does not fit {shape!r}"
    return value & ((1 << width) - 1)


def unpack(layout: data.Layout, value: int) -> dict[str, Any]:
    """Fields of a payload: integers (signed where the layout says so), lists, dicts."""
    return {name: _unpack(member.shape, value >> member.offset) for name, member in _fields(layout)}


def _unpack(shape: Any, value: int) -> Any:
    if isinstance(shape, data.ArrayLayout):
        width = shape.size // shape.length
        return [_unpack(shape.elem_shape, value >> (width * i)) for i in range(shape.length)]
    if isinstance(shape, data.Layout):
        return unpack(shape, value)
    width = _width(shape)
    value &= (1 << width) - 1
    return value - (1 << width) if _signed(shape) and value >> (width - 1) else value


def _width(shape: Any) -> int:
    return Shape.cast(shape).width


def _signed(shape: Any) -> bool:
    return Shape.cast(shape).signed


def vector(values: Iterable[int], bits: int = 8) -> int:
    """Pack integers (signed or not) into adjacent fields of ``bits`` bits, the first lowest."""
    mask = (1 << bits) - 1
    return sum((int(v) & mask) << (bits * i) for i, v in enumerate(values))


def elements(value: int, count: int, bits: int = 8, *, signed: bool = True) -> list[int]:
    """The inverse of :func:`vector`."""
    items = [value >> (bits * i) & ((1 << bits) - 1) for i in range(count)]
    return [i - (1 << bits) if signed and i >> (bits - 1) else i for i in items]


# Drivers and monitors ----------------------------------------------------------------------------
def _noise(handle: Any) -> int:
    """Something to put where nothing is valid, so that designs cannot rely on it."""
    return random.getrandbits(len(handle))


def _chance(probability: float) -> bool:
    return random.random() < probability  # noqa: S311 (a test pattern)


async def pipe_put(dut: Any, port: str, words: Sequence[int], *, gap: float = 0.0) -> None:
    """Drive a pipe (``{port}__valid``, ``{port}__p``); idle a cycle with probability ``gap``.

    Starts at the present falling edge and returns one cycle after the last word.
    """
    valid, payload = getattr(dut, f"{port}__valid"), getattr(dut, f"{port}__p")
    for word in words:
        while _chance(gap):
            valid.value, payload.value = 0, _noise(payload)
            await FallingEdge(dut.clk)
        valid.value, payload.value = 1, word
        await FallingEdge(dut.clk)
    valid.value, payload.value = 0, _noise(payload)


async def pipe_get(dut: Any, port: str, sink: list[tuple[int, int]]) -> None:
    """Append ``(cycle, payload)`` of every valid cycle of a pipe, forever (``start_soon`` it).

    Cycles are counted from time zero, so that two monitors agree.
    """
    valid, payload = getattr(dut, f"{port}__valid"), getattr(dut, f"{port}__p")
    while True:
        await FallingEdge(dut.clk)
        await ReadOnly()
        if valid.value == 1:
            sink.append((now(), int(payload.value)))


async def stream_put(dut: Any, port: str, words: Iterable[int], *, gap: float = 0.0) -> None:
    """Send words over a stream; pause a cycle with probability ``gap``.

    ``valid`` and the payload are held until they are taken.  Starts at the present falling edge.
    """
    valid, ready = getattr(dut, f"{port}__valid"), getattr(dut, f"{port}__ready")
    payload = getattr(dut, f"{port}__payload")
    for word in words:
        while _chance(gap):
            valid.value, payload.value = 0, _noise(payload)
            await FallingEdge(dut.clk)
        valid.value, payload.value = 1, word
        while True:
            await ReadOnly()
            taken = ready.value == 1
            await FallingEdge(dut.clk)
            if taken:
                break
    valid.value, payload.value = 0, _noise(payload)


async def stream_get(
    dut: Any, port: str, count: int | None = None, *, stall: float = 0.0,
    sink: list[int] | None = None,
) -> list[int]:
    """Take ``count`` words (or all, forever) from a stream; refuse with probability ``stall``.

    Checks the stream contract on the way: once offered, a word stays until it is taken.
    """
    valid, ready = getattr(dut, f"{port}__valid"), getattr(dut, f"{port}__ready")
    payload = getattr(dut, f"{port}__payload")
    words = [] if sink is None else sink
    taken, held = 0, None
    while count is None or taken < count:
        accept = not _chance(stall)
        ready.value = int(accept)
        await ReadOnly()
        offered = int(payload.value) if valid.value == 1 else None
        assert held is None or offered == held, f"{port}: a word that was offered changed"
        held = None if accept else offered
        if accept and offered is not None:
            words.append(offered)
            taken += 1
        await FallingEdge(dut.clk)
    ready.value = 0
    return words


def now() -> int:
    """Cycles since time zero."""
    return int(get_sim_time("ns")) // _PERIOD_NS
