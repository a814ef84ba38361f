"""``vitrify export``: a program and a run of it as files for C and for testbenches."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vitrify.arch.errors import InputError
from vitrify.export import Run, check_name, export_files
from vitrify.program import Program
from vitrify.program.files import check_folder, write_folder
from vitrify.runtime import InferenceSession, open_model
from vitrify.runtime.backend import as_jobs, need_program

from .models import need_whole
from .options import add_input, add_json, add_preprocess, add_task, human_bytes
from .run import read_feed
from .terminal import print_json, progress_bar, say

#: Most bytes of memory in an export, which becomes five times as much C.
_MOST_BYTES = 1 << 28


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export",
        help="write a program and a run of it for C and for testbenches",
        description="Write the program image, the packed inputs and golden's outputs (binary and "
        "$readmemh), the memory map (JSON and C), a C driver with an example, and a Verilog "
        "testbench for the core of `vitrify emit`.",
    )
    parser.add_argument("program", metavar="OUT.vfy", type=Path)
    add_input(parser)
    add_task(parser)
    add_preprocess(parser)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--name", default="model", help="of the program in C, and of its files (default: model)"
    )
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    check_name(options.name)
    check_folder(options.output)
    given = need_program("golden", need_whole(open_model(options.program), "an export"))
    with (
        progress_bar("running on golden") as bar,
        InferenceSession(
            given, "golden", preprocess=options.preprocess, progress=bar
        ) as session,
    ):
        program = session.program
        assert isinstance(program, Program)
        feed = read_feed(session, options.input, options.task, options.preprocess)
        run = _run(program, feed, bar)
    files = export_files(program, run, options.name)
    write_folder(options.output, files)
    sizes = {name: len(data) for name, data in files.items()}
    if options.json:
        print_json({"folder": str(options.output), "jobs": len(run.tasks), "files": sizes})
        return
    say(f"{options.output}: {len(run.tasks)} jobs of {program.model} for {program.arch.name}")
    for name, size in sizes.items():
        say(f"  {name}: {human_bytes(size)}")


def _run(program: Program, feed: dict[str, Any], progress: Any) -> Run:
    """The jobs, and golden's outputs."""
    from vitrify.runtime.backends.golden import GoldenBackend

    tasks = dict(feed)
    regions, words, images = as_jobs(program, tasks.pop(program.input.name), tasks)
    size = len(program.image) + len(regions) * (program.input_bytes + program.output_bytes)
    if size > _MOST_BYTES:
        raise InputError(
            f"program {program.model!r} with {images} pictures takes {human_bytes(size)} of "
            f"memory, and an export holds {human_bytes(_MOST_BYTES)} at most; give fewer pictures"
        )
    outputs, _ = GoldenBackend(program, progress=progress).execute(regions, words, images)
    return Run(regions, tuple(words), outputs)
