"""Estimate the designs that could be worth it.

A design takes at least the cycles that :func:`bound` counts.  As soon as one that
takes no more of the part is known to be as fast as that, nothing is left to find out, and it is not
estimated: the front is the same as if all of them had been, within the tolerance that was given.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

from vitrify.arch.config import MECHANISMS, ArchConfig
from vitrify.arch.errors import VitrifyError
from vitrify.program import roofline

from .space import share_of
from .study import Design, Study

#: How a model becomes an integer graph for cores like this one, by name of the model.
Models = Mapping[str, Callable[[ArchConfig], Any]]
#: Told designs decided and in all.
Progress = Callable[[int, int], None]
_Class = tuple[Any, ...]
_Result = tuple[str, dict[str, int], str]


def explore(
    archs: Sequence[ArchConfig], models: Models, study: Study, *, jobs: int | None = None,
    tolerance: float = 0.0, progress: Progress | None = None,
) -> list[Design]:
    """Decide every design.

    Parameters
    ----------
    archs : cores on one part; the first of them is estimated, whatever the others are
    study : what is known, and where results go as they come
    jobs : processes (default: one for each processor); 1 works in this one
    tolerance : leave a design out, too, that could be faster than a smaller one by this share only

    Returns
    -------
    One for each of ``archs``, in their order.
    """
    shares = [max(share_of(arch).values(), default=0.0) for arch in archs]
    graphs = _graphs(archs, models)
    bounds = [
        {name: bound(graph, arch) for name, graph in graphs[_class(arch)].items()}
        for arch in archs
    ]
    least = [sum(cycles.values()) / arch.clock_mhz
             for arch, cycles in zip(archs, bounds, strict=True)]
    decided: dict[int, Design] = {}
    # The first of all, then fast and small ones: they rule out most of the others.
    queue = sorted(range(len(archs)), key=lambda i: (i > 0, least[i], shares[i]))

    def settle(number: int, result: _Result) -> None:
        decided[number] = Design(archs[number], shares[number], *result)
        if progress is not None:
            progress(len(decided), len(archs))

    def beaten(number: int) -> bool:
        return any(
            one.status == "estimated" and one.share <= shares[number]
            and one.milliseconds * 1e3 <= least[number] * (1 + tolerance)
            for one in decided.values()
        )

    for number in queue:
        known = study.find(archs[number])
        if known is not None:
            settle(number, known)
    left = deque(number for number in queue if number not in decided)
    with _Pool(jobs, graphs) as pool:
        running: dict[Future[_Result], int] = {}
        while left or running:
            while left and len(running) < pool.size:
                number = left.popleft()
                if beaten(number):
                    settle(number, ("dominated", bounds[number], ""))
                else:
                    running[pool.submit(archs[number])] = number
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                number = running.pop(future)
                result = future.result()
                study.add(archs[number], *result)
                settle(number, result)
    return [decided[number] for number in range(len(archs))]


def bound(graph: Any, arch: ArchConfig) -> int:
    """Cycles that a model takes at least, padding and waits left aside.

    The most of: multiplications; bytes of the weights that every job needs, from DRAM and word by
    word into tiles; results of linear layers, one a lane and cycle.
    """
    from vitrify.compiler.unread import leave_out

    graph = leave_out(graph)
    weights = results = 0
    for op in graph.ops:
        if any(True for _ in op.branches()):
            continue  # what a job may leave out
        for layer in op.layers():
            # Of tasks one at a time.
            weights += math.prod(layer.weight.shape[-2:])
            results += graph.macs.get(layer.name, 0) // layer.weight.shape[-1]
    if arch.nibbles:
        weights //= 2
    return max(
        roofline(arch, sum(graph.macs.values()) * arch.width // arch.sums(arch.width), weights),
        weights // arch.depth,
        results // arch.lanes,
    )


def _class(arch: ArchConfig) -> _Class:
    """What of a core decides its integers: of eight bits, codes depend on its width as well."""
    return arch.requant_bits, *(getattr(arch, name) for name in MECHANISMS)


def _graphs(archs: Sequence[ArchConfig], models: Models) -> dict[_Class, dict[str, Any]]:
    """Integer graphs of the models, once for all cores with the same integers."""
    firsts = {_class(arch): arch for arch in reversed(archs)}
    return {
        key: {name: quantise(arch) for name, quantise in models.items()}
        for key, arch in firsts.items()
    }


# In the processes --------------------------------------------------------------------------------
_held: dict[_Class, dict[str, Any]] = {}


def _hold(graphs: dict[_Class, dict[str, Any]]) -> None:
    _held.update(graphs)


def _of_held(arch: ArchConfig) -> _Result:
    return measure(_held[_class(arch)], arch)


def measure(graphs: Mapping[str, Any], arch: ArchConfig) -> _Result:
    """Compile and estimate every model: status, cycles and, for a refusal, the reason."""
    from vitrify.compiler import compile_graph
    from vitrify.estimate import estimate

    cycles: dict[str, int] = {}
    for name, graph in graphs.items():
        try:
            cycles[name] = estimate(compile_graph(graph, arch)).cycles
        except VitrifyError as error:
            return "refused", {}, f"{name}: {error}"
    return "estimated", cycles, ""


class _Pool:
    """Processes that hold the graphs; this one, if there is one only."""

    def __init__(self, jobs: int | None, graphs: dict[_Class, dict[str, Any]]) -> None:
        self.size = jobs or os.cpu_count() or 1
        self._graphs = graphs
        # Not forked: ONNX Runtime has threads.
        self._pool = None if self.size == 1 else ProcessPoolExecutor(
            self.size, multiprocessing.get_context("spawn"), _hold, (graphs,)
        )

    def submit(self, arch: ArchConfig) -> Future[_Result]:
        """Measure a core."""
        if self._pool is not None:
            return self._pool.submit(_of_held, arch)
        future: Future[_Result] = Future()
        future.set_result(measure(self._graphs[_class(arch)], arch))
        return future

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
