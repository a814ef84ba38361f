"""The figures of a report, as JSON values: what the page draws and `--json` prints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitrify.estimate import LIMITS, Estimate
from vitrify.program import Program
from vitrify.runtime.activity import BUCKET, ENGINES, ROW, Activity
from vitrify.runtime.routing import routes

from .chrome import WAITS
from .flow import OUTPUTS, SOURCES, follow, short_name

#: Version of this form.
FORM = 1
#: Equal times in which occupancy and traffic are averaged.
_BINS = 240
_BLOCK = re.compile(r"^(.*?\d+)[./](.+)$")


def figures(result: Estimate, quality: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Everything that a report says.

    Parameters
    ----------
    result : an estimate with a trace
    quality : of every quantised tensor, as :class:`vitrify.quant.compare.Comparison` has it
    """
    activity, program = result.activity, result.program
    if activity is None:
        raise ValueError("a report needs an estimate with a trace")
    data = result.to_dict()
    flow = follow(program, activity)
    layers = [_layer(layer) for layer in data.pop("layers")]
    return {
        "form": FORM, "summary": data, "limits": dict(LIMITS), "layers": layers,
        "blocks": _blocks(layers),
        "graph": {
            "nodes": _nodes(layers),
            "edges": [[source, to, count] for (source, to), count in flow.edges.items()],
        },
        "memory": {
            "bank_words": program.arch.bank_words, "banks": program.arch.banks,
            "word_bytes": program.arch.depth,
            "tensors": [
                {"name": tensor.name, "bits": tensor.bits, "begin": tensor.begin,
                 "end": tensor.end, "words": sorted(map(list, tensor.banks.values()))}
                for tensor in flow.tensors
            ],
        },
        "occupancy": _occupancy(activity),
        "traffic": _traffic(program, activity),
        "roofline": {"macs": program.arch.macs, "bytes": program.arch.dram_bytes},
        "quantisation": quality,
        "outputs": [
            {"name": out.name, "shape": list(out.shape), "bits": out.bits,
             "scale": float(np.max(np.abs(out.scale))), "zero_point": out.zero_point}
            for out in program.outputs
        ],
        "routing": _routing(result),
    }


def _layer(layer: Mapping[str, Any]) -> dict[str, Any]:
    """With its block, and what it is in it."""
    found = _BLOCK.match(short_name(layer["name"]))
    block, part = found.groups() if found else ("", short_name(layer["name"]))
    return {**layer, "block": block, "part": part}


def _blocks(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sums over the layers of each block; those of none are one by itself."""
    found: dict[str, dict[str, Any]] = {}
    for layer in layers:
        name = layer["block"] or layer["name"]
        mine = found.setdefault(name, {
            "name": name, "cycles": 0, "macs": 0, "dram_read_bytes": 0,
            "lost_cycles": dict.fromkeys(LIMITS, 0), "parts": {},
        })
        for key in ("cycles", "macs", "dram_read_bytes"):
            mine[key] += layer[key]
        for key, count in layer["lost_cycles"].items():
            mine["lost_cycles"][key] += count
        mine["parts"][layer["part"]] = mine["parts"].get(layer["part"], 0) + layer["cycles"]
    return list(found.values())


def _nodes(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the graph, in the order of the program; cycles of those that are layers."""
    found: dict[str, int | None] = dict.fromkeys(SOURCES.values())
    for layer in layers:
        name = short_name(layer["name"])
        found[name] = (found.get(name) or 0) + layer["cycles"]
    found[OUTPUTS] = None
    return [{"name": name, "cycles": cycles} for name, cycles in found.items()]


def _occupancy(activity: Activity) -> dict[str, Any]:
    """Share of every time that the engines work, and of the array's waits by cause."""
    edges = np.linspace(0, activity.cycles, _BINS + 1)
    found: dict[str, list[float]] = {}
    for engine in ENGINES:
        for state in activity.totals(engine):
            name = f"{engine}: {state}" if engine == "array" else engine
            if engine == "instructions" or (engine == "loader" and state in WAITS):
                continue
            spans = [(s.begin, s.end) for s in activity.of(engine) if s.state == state]
            share = _coverage(np.array(spans), edges)
            earlier = np.array(found.get(name, [0.0] * _BINS))
            found[name] = np.round(earlier + share, 4).tolist()
    return {"cycles": activity.cycles, "row": f"array: {ROW}", "series": found}


def _coverage(spans: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of each bin that spans, which do not overlap, cover."""
    # Cycles covered before a moment, linear between begins and ends.
    times = spans.reshape(-1)
    covered = np.concatenate([[0], np.cumsum(np.where(np.arange(len(times) - 1) % 2, 0,
                                                      np.diff(times)))])
    return np.diff(np.interp(edges, times, covered)) / np.diff(edges)


def _traffic(program: Program, activity: Activity) -> dict[str, Any]:
    """GB/s read from DRAM over time, and what ports and memory sustain."""
    arch = program.arch
    ends = np.arange(len(activity.traffic) + 1) * BUCKET
    read = np.concatenate([[0], np.cumsum(activity.traffic)])
    edges = np.linspace(0, activity.cycles, _BINS + 1)
    rate = np.diff(np.interp(edges, ends, read)) / np.diff(edges)
    to_gbs = arch.clock_mhz * 1e6 / 1e9
    return {
        "read_gbs": np.round(rate * to_gbs, 4).tolist(),
        "sustained_gbs": arch.dram_bytes * to_gbs,
    }


def _routing(result: Estimate) -> dict[str, Any] | None:
    """Rows of every expert of every layer that has some."""
    if result.routing is None:
        return None
    return {
        "source": result.routing.source,
        "layers": [
            {"name": route.name, "rows": route.rows, "choices": route.choices,
             "counts": list(counts), "bytes": list(route.stream_bytes)}
            for route, counts in zip(routes(result.program), result.routing.counts, strict=True)
        ],
    }
