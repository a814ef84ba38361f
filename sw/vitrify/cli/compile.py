"""``vitrify compile``: an ONNX model and calibration pictures to a program."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitrify.arch.errors import InputError
from vitrify.arch.load import load as load_arch
from vitrify.program import Application, Program
from vitrify.program.files import check_writable
from vitrify.runtime.labels import labels_beside, read_labels

from .models import (
    AUTO,
    compile_parts_shown,
    compile_shown,
    kept,
    known_preprocess,
    read_samples,
    remark_on_pictures,
    show_precision,
)
from .options import (
    add_arch,
    add_calibration,
    add_input_shape,
    add_preprocess,
    add_weights,
    human_bytes,
    weights_of,
)
from .parts import core_share, of_application, show_parts
from .terminal import say


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compile",
        help="compile an ONNX model to a program",
        description="Read, quantise with the calibration images, lower and emit.",
    )
    parser.add_argument("model", metavar="MODEL.onnx", type=Path)
    add_arch(parser)
    add_calibration(
        parser, "calibration images, a few dozen of the kind the model will see; a model that is "
        "quantised already can do without",
    )
    add_preprocess(parser)
    add_weights(parser)
    add_input_shape(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT.vfy", help="default: the model's name with .vfy"
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="B",
        help="images of one job, 1 to 4: they share every weight that is fetched (default: 1)",
    )
    parser.add_argument(
        "--keep-intermediates",
        type=Path,
        metavar="DIR",
        help="write every intermediate model there, for Netron and ONNX Runtime",
    )
    parser.add_argument(
        "--no-verify", dest="verify", action="store_false",
        help="do not compare, at the end, the program with the model on calibration images",
    )
    parser.add_argument(
        "--strict", action="store_true",
        help="refuse a model of which the core cannot run everything; without it, the rest becomes "
        "parts of the host",
    )
    parser.add_argument(
        "--labels", metavar="FILE|auto",
        help="names of the classes, one a line or JSON, which the program stores and `run` prints; "
        "auto: id2label or label_names of the config.json beside the model",
    )
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    target = options.output or Path(options.model.with_suffix(".vfy").name)
    named = None if options.labels in (None, AUTO) else Path(options.labels)
    check_writable(target, [options.model, options.calib, named])
    labels = None if options.labels is None else (
        read_labels(named) if named else labels_beside(options.model)
    )
    arch, weights = load_arch(options.arch), weights_of(options)
    options.preprocess = known_preprocess(options.model, options.preprocess)
    calibration = None if options.calib is None else read_samples(
        options.model, options.calib, options.preprocess, options.input_shape
    )
    compiled = (compile_shown if options.strict else compile_parts_shown)(
        options.model, arch, calibration, options.preprocess, options.keep_intermediates,
        options.batch, verify=options.verify, size=options.input_shape, weights=weights,
    )
    if labels is not None:
        compiled = _labelled(compiled, labels)
    compiled.save(target)
    remark_on_pictures(options.model, options.preprocess)
    whole = isinstance(compiled, Program)
    programs = [compiled] if whole else compiled.programs
    for program in programs:
        if "weights" in program.metadata:
            show_precision(program.metadata["weights"])
        for name, steps in program.metadata.get("as_onnx", {}).items():
            say(f"the integers as ONNX: output {name!r} is {steps:.2g} steps of 8 bits from golden "
                f"(root mean square)")
        if "quantisers" in program.metadata:
            say(kept(program.metadata["quantisers"]) + "; vitrify info lists the others")
    cycles = sum(program.roofline_cycles / program.batch for program in programs)
    macs = sum(program.macs / program.batch for program in programs)
    left_out = sum(
        program.metadata.get("macs_left_out", 0) / program.batch for program in programs
    )
    share = f"{100 * left_out / (macs + left_out):.1f} %" if left_out else ""
    unread = f" ({share} more would be for rows that nothing reads)" if left_out else ""
    if not whole:
        rows = of_application(compiled)
        show_parts(rows)
        say(f"{100 * core_share(rows):.1f} % of the multiplications on the core")
    say(
        f"{target}: {compiled.model} for {arch.name}, "
        f"{human_bytes(sum(len(program.image) for program in programs))}, "
        f"{macs / 1e6:.1f} M MACs{unread}, at least {cycles:,.0f} cycles an image "
        f"({cycles / arch.clock_mhz / 1e3:.3f} ms at {arch.clock_mhz:g} MHz)"
    )


def _labelled(compiled: Program | Application, labels: list[str]) -> Program | Application:
    """With names for the classes of an output.

    Raises
    ------
    InputError
        If no output has as many classes.
    """
    outputs = compiled.outputs if isinstance(compiled, Program) else compiled.results()
    shapes = {out.name: out.shape for out in outputs}
    if not any(shape and shape[-1] == len(labels) for shape in shapes.values()):
        known = ", ".join(f"{name!r} {list(shape)}" for name, shape in shapes.items())
        raise InputError(
            f"--labels has {len(labels)} names, and no output has as many classes ({known})"
        )
    return replace(compiled, metadata={**compiled.metadata, "labels": labels})
