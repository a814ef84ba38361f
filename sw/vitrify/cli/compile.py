"""``vitrify compile``: an ONNX model and calibration pictures to a program."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from vitrify.arch.load import load as load_arch
from vitrify.program import preprocess
from vitrify.runtime.images import read_floats

from .options import (
    add_arch,
    add_preprocess,
    check_writable,
    human_bytes,
    progress_bar,
    say,
)


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compile",
        help="compile an ONNX model to a program",
        description="Read, quantise with the calibration images, lower and emit.",
    )
    parser.add_argument("model", metavar="MODEL.onnx", type=Path)
    add_arch(parser)
    parser.add_argument(
        "--calib",
        required=True,
        type=Path,
        metavar="FILE.npz|FILE.npy|IMAGE_DIR",
        help="calibration images, a few dozen of the kind the model will see",
    )
    add_preprocess(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT.vfy", help="default: the model's name with .vfy"
    )
    parser.add_argument(
        "--keep-intermediates",
        type=Path,
        metavar="DIR",
        help="write every intermediate model there, for Netron and ONNX Runtime",
    )
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    from vitrify.compiler.driver import compile_model
    from vitrify.frontend import image_input, load
    from vitrify.ir import shape_of

    target = options.output or Path(options.model.with_suffix(".vfy").name)
    check_writable(target)
    arch = load_arch(options.arch)
    if options.preprocess is not None:
        preprocess.parse(options.preprocess)
    image = image_input(load(options.model))
    c, h, w = (int(size) for size in shape_of(image)[1:])
    calibration = read_floats([options.calib], image.name or "", (c, h, w), options.preprocess)
    with progress_bar(f"compiling {options.model.name}") as bar:

        def report(phrase: str, fraction: float) -> None:
            bar.say(phrase)
            bar(round(100 * fraction), 100)

        program = compile_model(
            options.model,
            arch,
            calibration,
            preprocess=options.preprocess,
            keep=options.keep_intermediates,
            progress=report,
        )
    source = {
        "path": str(options.model.resolve()),
        "sha256": hashlib.sha256(options.model.read_bytes()).hexdigest(),
    }
    # The float backend finds the original model by this.
    program = dataclasses.replace(program, metadata={**program.metadata, "source": source})
    program.save(target)
    cycles = program.roofline_cycles
    say(
        f"{target}: {program.model} for {arch.name}, {human_bytes(len(program.image))}, "
        f"{program.macs / 1e6:.1f} M MACs, at least {cycles:,} cycles an image "
        f"({cycles / arch.clock_mhz / 1e3:.3f} ms at {arch.clock_mhz:g} MHz)"
    )
