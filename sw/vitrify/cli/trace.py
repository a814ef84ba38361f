"""``vitrify trace``: what every engine does when, for ui.perfetto.dev."""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitrify.estimate import estimate
from vitrify.program import Program
from vitrify.program.files import check_writable, write_atomic
from vitrify.report import chrome_trace
from vitrify.runtime import InferenceSession
from vitrify.runtime.activity import Activity
from vitrify.runtime.routing import Routing, routes

from .placed import add_program, pictures_of, placed_program, replayed, routing_of, tasks_of
from .terminal import Bar, progress_bar, say


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "trace",
        help="write what every engine does when, for ui.perfetto.dev",
        description="Write a trace of every engine of the core, with layer, tile and cause of each "
        "wait, which ui.perfetto.dev opens: from the estimator, or, with --backend rtl, from the "
        "estimator and from the simulated core side by side.",
    )
    add_program(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="TRACE.json",
        help="compressed, if it ends in .gz",
    )
    parser.add_argument(
        "--backend", choices=("estimate", "rtl"), default="estimate",
        help="rtl: simulate a job, too, of the first pictures of --input or of blank ones "
        "(default: estimate)",
    )
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    check_writable(options.output, [options.model, *(options.input or ())])
    program = placed_program(options)
    simulated: list[Activity] = []
    with progress_bar(f"estimating {program.model}") as bar:
        routing = routing_of(options, program)
        if options.backend == "rtl":
            bar.say(f"simulating {program.model}")
            simulated, routing = _simulate(options, program, routing, bar)
            bar.say(f"estimating {program.model}")
        result = estimate(program, bar, routing, trace=True)
    assert result.activity is not None
    activities = [result.activity, *simulated]
    write_trace(options.output, program, activities)
    cycles = ", ".join(f"{one.source} {one.cycles:,} cycles" for one in activities)
    say(f"{options.output}: {cycles}; open it in https://ui.perfetto.dev")


def _simulate(
    options: argparse.Namespace, program: Program, routing: Routing | None, bar: Bar
) -> tuple[list[Activity], Routing | None]:
    """A job on the simulated core; the routing is that of its pictures if no other was named."""
    images = pictures_of(options, program)[: program.batch]
    tasks = {name: numbers[: program.batch] for name, numbers in tasks_of(options, program).items()}
    if routes(program) and options.routing is None:
        routing = replayed(options, program, images)
    with InferenceSession(program, "rtl", activity=True, progress=bar) as session:
        session.run(None, {program.input.name: images, **tasks})
        assert session.statistics is not None
        assert session.statistics.activity is not None
        return [session.statistics.activity], routing


def write_trace(path: Path, program: Program, activities: Sequence[Activity]) -> None:
    """Write a trace, compressed if the name says so."""
    text = json.dumps(chrome_trace(program, activities), separators=(",", ":")).encode()
    # No time in the header: equal runs give equal files.
    write_atomic(path, gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
