"""``python -m bench.session``: what a session adds to the time of the golden machine.

``InferenceSession.run`` checks names, shapes and values, turns pictures into the integers of the
input region and integers of the output region into results.  The same pictures through all of
that, and through the golden machine alone with regions that are packed already, in turn and in one
run; CPU time with one thread, the least of each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from bench.cases import CASES, Float32
from bench.golden import least
from vitrify.arch.presets import preset
from vitrify.compiler import compile_model
from vitrify.program import Program
from vitrify.runtime import InferenceSession
from vitrify.runtime.backend import as_jobs
from vitrify.runtime.backends.golden import GoldenBackend

_BATCHES = (1, 16)


def measure(program: Program, images: Float32, repeats: int) -> dict[str, float]:
    """CPU seconds of ``session`` and of ``golden`` for all of ``images`` at once."""
    session = InferenceSession(program)
    # the session's own: where in memory another would have its arrays makes some percent
    machine = session._backend
    assert isinstance(machine, GoldenBackend), "as asked for"
    tasks = {task.name: np.zeros(len(images), np.int64) for task in program.tasks}
    feed = {program.input.name: images, **tasks}
    regions, words, count = as_jobs(program, images, tasks)
    runs: dict[str, Callable[[], object]] = {
        "session": lambda: session.run(None, feed),
        "golden": lambda: machine.execute(regions, words, count),
    }
    with threadpool_limits(1):
        return least(runs, 1, repeats)


def main() -> None:
    """Measure models and print how much the session adds."""
    known = [case.model for case in CASES if case.available]
    parser = argparse.ArgumentParser(prog="python -m bench.session", description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, default=known, metavar="MODEL.onnx")
    parser.add_argument("--arch", default="kv260", metavar="PRESET")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    table = Table("model", "pictures", "golden, ms", "session, ms", "added",
                  title=f"on {options.arch}, a picture")  # fmt: skip
    for model in options.models:
        shape = [int(size) for size in InferenceSession(model, "float").get_inputs()[0].shape[1:]]
        images = np.random.default_rng(0).standard_normal((max(_BATCHES), *shape), np.float32)
        program = compile_model(model, preset(options.arch), images, verify=False,
                                warn=lambda _: None)  # fmt: skip
        for batch in _BATCHES:
            found = measure(program, images[:batch], options.repeats)
            golden, session = found["golden"], found["session"]
            table.add_row(
                model.parent.name if model.stem == "model" else model.stem, str(batch),
                f"{1e3 * golden / batch:.2f}", f"{1e3 * session / batch:.2f}",
                f"{100 * (session / golden - 1):.1f} %",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
