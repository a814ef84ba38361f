"""Traces in the Trace Event Format, which ui.perfetto.dev and chrome://tracing open.

The format is that of the document "Trace Event Format" (Chromium): complete events ``X``, counters
``C``, metadata ``M``; times in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vitrify.program import Program
from vitrify.runtime.activity import BUCKET, ENGINES, ROW, Activity, Span

#: Points of a counter at most.
_POINTS = 2000
#: States of loader and array that are waits, and what for.
WAITS = {
    "tile": "a stationary tile", "dependency": "an earlier result or load",
    "drain": "the epilogue to drain a row", "bank": "a bank of the token memory",
    "empty": "an instruction", "weights": "weights from DRAM",
    "epilogue": "the epilogue to finish a c tile",
}
_LAYERS = "layers"
#: Threads of a process, the array's layers first.
_THREADS = {name: number for number, name in enumerate((_LAYERS, *ENGINES))}


def chrome_trace(program: Program, activities: Sequence[Activity]) -> dict[str, Any]:
    """The trace as JSON values: a process for each activity, a thread for each engine.

    Every event has ``cycle`` and ``cycles`` among its arguments; its times are those at the clock
    of ``program.arch``.
    """
    arch = program.arch
    events = [
        event
        for process, activity in enumerate(activities, 1)
        for event in _process(program, process, activity)
    ]
    return {
        "traceEvents": events, "displayTimeUnit": "ns",
        "otherData": {
            "model": program.model, "arch": arch.name, "clock_mhz": arch.clock_mhz,
            "cycles": {activity.source: activity.cycles for activity in activities},
        },
    }


def _process(program: Program, process: int, activity: Activity) -> Iterator[dict[str, Any]]:
    title = f"{program.model} on {program.arch.name}: {activity.source}"
    yield _metadata(process, _LAYERS, "process_name", name=title)
    yield _metadata(process, _LAYERS, "process_sort_index", sort_index=process)
    for name, number in _THREADS.items():
        yield _metadata(process, name, "thread_name", name=name)
        yield _metadata(process, name, "thread_sort_index", sort_index=number)
    names = [layer.name for layer in program.layers]
    for span in layer_spans(names, activity):
        yield _event(program, process, span, span.state, {})
    for span in activity.spans:
        layer = program.layers[span.matmul] if span.matmul >= 0 else None
        arguments: dict[str, Any] = {}
        if layer is not None:
            arguments |= {"layer": layer.name, "instruction": layer.instruction}
        if span.tile is not None:
            arguments |= {
                name: place for name, place in zip(("c_tile", "k_tile"), span.tile, strict=True)
                if place >= 0
            }
        waits = span.engine in ("array", "loader") and span.state in WAITS
        if waits:
            arguments["waits_for"] = WAITS[span.state]
        if span.cause:
            arguments["because_of"] = span.cause
        name = span.state
        if layer is not None and (span.state == ROW or span.engine == "epilogue"):
            name = layer.name
        yield _event(program, process, span, name, arguments, waits)
    yield from _traffic(program, process, activity)


def layer_spans(names: Sequence[str], activity: Activity) -> list[Span]:
    """Stretches in which the array works on one layer, waits included; ``state`` is its name."""
    found: list[Span] = []
    for span in activity.of("array"):
        name = names[span.matmul] if span.matmul >= 0 else found[-1].state if found else ""
        if found and found[-1].state == name:
            found[-1] = found[-1]._replace(end=span.end)
        elif name:
            found.append(Span(_LAYERS, name, span.begin, span.end))
    return found


def _traffic(program: Program, process: int, activity: Activity) -> Iterator[dict[str, Any]]:
    """DRAM bandwidth, averaged over equal times."""
    traffic = activity.traffic
    step = -(-len(traffic) // _POINTS) or 1
    seconds = step * BUCKET / program.arch.clock_mhz / 1e6
    # The last is behind the end: a viewer draws a value until the next one.
    for at in (*range(0, len(traffic), step), len(traffic)):
        read = int(traffic[at : at + step].sum())
        yield {
            "ph": "C", "pid": process, "tid": _tid(process, _LAYERS), "name": "DRAM read",
            "ts": _microseconds(program, min(at * BUCKET, activity.cycles)),
            "args": {"GB/s": round(read / seconds / 1e9, 4)},
        }


def _event(
    program: Program, process: int, span: Span, name: str, arguments: dict[str, Any],
    waits: bool = False,
) -> dict[str, Any]:
    begin, end = (_microseconds(program, cycle) for cycle in (span.begin, span.end))
    return {
        "ph": "X", "pid": process, "tid": _tid(process, span.engine), "ts": begin,
        "dur": round(end - begin, 3), "name": name, "cat": "wait" if waits else "work",
        "args": {**arguments, "cycle": span.begin, "cycles": span.cycles},
    }


def _microseconds(program: Program, cycle: int) -> float:
    """In whole nanoseconds, as viewers have them, so that ends and begins still meet."""
    return round(cycle * 1e3 / program.arch.clock_mhz) / 1e3


def _metadata(process: int, thread: str, kind: str, **arguments: Any) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": _tid(process, thread), "ts": 0, "name": kind,
            "args": arguments}


def _tid(process: int, thread: str) -> int:
    """Number of a thread.

    Perfetto takes 0 for the idle thread and a process's own number for its main thread, and runs
    their spans into each other; its threads of different processes have different numbers.
    """
    return 100 * process + _THREADS[thread]
