"""``vitrify report``: one page that shows where time, memory and accuracy go."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError
from vitrify.arch.text import short
from vitrify.estimate import estimate
from vitrify.program.files import check_writable, write_atomic
from vitrify.report import FORM, figures
from vitrify.runtime import open_model

from .models import need_whole
from .options import add_json
from .placed import Float32, add_program, placed_program, routing_of
from .terminal import print_json, progress_bar, say

#: Calibration images on which tensors are compared.
_IMAGES = 16


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "report",
        help="write a page that shows where time, memory and accuracy go",
        description="Write one HTML page that needs no network: cycles and waits by layer and "
        "block, engines over time, roofline, DRAM traffic, token memory, graph, resources, and the "
        "routing of experts.  With a model and --calib: ranges, noise and clipping of its tensors.",
    )
    add_program(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="REPORT.html", help="the page")
    parser.add_argument(
        "--compare", type=Path, metavar="OUT.vfy|REPORT.json",
        help="show the differences from this program, or from what --json has printed",
    )
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.output is None and not options.json:
        raise InputError("say where the page goes with -o REPORT.html, or print JSON with --json")
    given = [options.model, options.compare, *(options.input or ())]
    check_writable(options.output, given)
    if options.output is not None:
        # Before the work: it may not be installed.
        from vitrify.report.page import render
    other = None if options.compare is None else _other(options)
    quality: list[dict[str, Any]] = []

    def inspect(canonical: Any, graph: Any, images: Float32, arch: ArchConfig) -> None:
        quality.extend(_quality(canonical, graph, images, arch))

    # What noise makes of the tensors says nothing.
    program = placed_program(options, inspect if options.calib is not None else None)
    with progress_bar(f"estimating {program.model}") as bar:
        result = estimate(program, bar, routing_of(options, program), trace=True)
    data = figures(result, quality or None)
    if options.output is not None:
        write_atomic(options.output, render(data, other).encode())
    if options.json:
        print_json(data)
    else:
        say(f"{options.output}: {program.model} on {program.arch.name}, {result.cycles:,} cycles")


def _quality(
    canonical: Any, graph: Any, images: Float32, arch: ArchConfig
) -> list[dict[str, Any]]:
    """Of every tensor; an exact one has no signal-to-noise ratio in JSON."""
    from vitrify.quant.compare import compare

    with progress_bar("comparing tensors") as bar:
        found = [asdict(one) for one in compare(canonical, graph, images[:_IMAGES], arch, bar)]
    return [
        {**one, "sqnr": None if one["sqnr"] == float("inf") else one["sqnr"]} for one in found
    ]


def _other(options: argparse.Namespace) -> dict[str, Any]:
    """Figures to compare with."""
    path = options.compare
    if path.suffix == ".json":
        return _read(path)
    program = need_whole(open_model(path), "a report")
    if isinstance(program, Path):
        raise InputError(
            f"--compare takes a program or the JSON of a report, and {str(path)!r} is a model: "
            f"`vitrify compile` it, or `vitrify report {path.name} --arch ... --json`"
        )
    with progress_bar(f"estimating {program.model}") as bar:
        return figures(estimate(program, bar, trace=True))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"there is no file {str(path)!r}") from None
    except ValueError as error:
        raise InputError(f"{str(path)!r} is no JSON: {error}") from error
    found = data.get("form") if isinstance(data, dict) else None
    if found != FORM:
        raise InputError(
            f"{str(path)!r} is no report of this version (form {short(found)}, not {FORM}); print "
            f"it again with `vitrify report --json`"
        )
    return data
