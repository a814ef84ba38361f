"""Running an application: its programs on a backend, the rest on the host, one after another."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from vitrify.program import (
    Application,
    CorePart,
    HostPart,
    ImageSpec,
    Program,
    TensorSpec,
    as_inputs,
)

from .backend import TYPES, Backend, NodeArg, Others
from .host import CPU, HostRunner
from .statistics import Statistics


class PartsBackend(Backend):
    """The parts of an application in turn.

    Parameters
    ----------
    make : the backend for a program
    providers : those of ONNX Runtime, for what runs on the host
    """

    def __init__(
        self, application: Application, make: Callable[[Program], Backend],
        providers: Sequence[str] = CPU,
    ) -> None:
        self.application = application
        first = application.inputs[0]
        self.channels_last = isinstance(first, ImageSpec) and first.channels_last
        self.is_of_images = isinstance(first, ImageSpec) and len(application.inputs) == 1
        self.inputs = tuple(map(_argument, application.inputs))
        self.outputs = tuple(
            NodeArg(
                value.name, f"tensor({TYPES.get(value.dtype, value.dtype)})",
                ["N" if size is None else size for size in value.shape],
            )
            for value in application.results()
        )
        self._runners: list[HostRunner | Backend] = []
        try:
            for part in application.parts:
                host = isinstance(part, HostPart)
                self._runners.append(
                    HostRunner(part, providers=providers) if host else make(part.program)
                )
        except BaseException:
            self.close()
            raise
        self.name = next(r.name for r in self._runners if isinstance(r, Backend))

    def run(
        self, names: Sequence[str], feed: npt.NDArray[Any], others: Others
    ) -> list[npt.NDArray[Any]]:
        """Run every part on the whole batch."""
        start = time.perf_counter()
        application = self.application
        known = as_inputs(application.inputs, {self.inputs[0].name: feed, **others})
        costs: list[Callable[[], Statistics]] = []
        host_seconds = 0.0
        for part, runner in zip(application.parts, self._runners, strict=True):
            if isinstance(runner, HostRunner):
                begin = time.perf_counter()
                known.update(runner.run(known))
                host_seconds += time.perf_counter() - begin
                continue
            assert isinstance(part, CorePart), "the others have a runner of the host"
            wanted = [out.name for out in runner.outputs]
            made = runner.run(wanted, part.image(known), {})
            known.update(zip(wanted, made, strict=True))
            if runner.cost is not None:
                costs.append(runner.cost)
        seconds = time.perf_counter() - start
        if costs:
            self.cost = functools.cache(lambda: dataclasses.replace(
                _sum([cost() for cost in costs], application.model),
                seconds=seconds, host_seconds=host_seconds,
            ))  # fmt: skip
        return [known[name] for name in names]

    def close(self) -> None:
        """Close every backend."""
        for runner in self._runners:
            if isinstance(runner, Backend):
                runner.close()


def _argument(spec: ImageSpec | TensorSpec) -> NodeArg:
    kind = "float32" if isinstance(spec, ImageSpec) else spec.dtype
    return NodeArg(spec.name, f"tensor({TYPES.get(kind, kind)})", ["N", *spec.given_shape])


def _sum(parts: Sequence[Statistics], model: str) -> Statistics:
    """The cost of all programs together."""
    first, *others = parts
    total = dataclasses.replace(
        first, name=model, layers=list(first.layers), counters=dict(first.counters),
        # cycles of several programs are no one time
        activity=None if others else first.activity,
    )
    for other in others:
        total.macs += other.macs
        total.shared_macs += other.shared_macs
        total.dram_read_bytes += other.dram_read_bytes
        total.dram_write_bytes += other.dram_write_bytes
        total.wasted_bytes += other.wasted_bytes
        if total.cycles is not None and other.cycles is not None:
            total.cycles += other.cycles
        total.layers += other.layers
        for name, count in other.counters.items():
            total.counters[name] = total.counters.get(name, 0) + count
    return total
