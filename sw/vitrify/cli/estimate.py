"""``vitrify estimate``: cycles, bottlenecks and fit, without a simulation."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from rich.table import Table

from vitrify.arch.errors import InputError
from vitrify.arch.load import load as load_arch
from vitrify.estimate import LIMITS, Estimate, estimate
from vitrify.program import Program
from vitrify.runtime import open_model

from .emit import summary
from .models import compile_shown, read_calibration
from .options import (
    OUT,
    add_arch,
    add_json,
    add_preprocess,
    human_bytes,
    print_json,
    progress_bar,
    say,
)


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "estimate",
        help="predict the cycles of a program or a model on a core",
        description="Predict cycles and bottlenecks, layer by layer, from the waits of the "
        "core's engines; nothing is simulated.  A model is compiled first: without --calib "
        "with noise, which changes its numbers and hardly ever its cycles.",
    )
    parser.add_argument("model", metavar="OUT.vfy|MODEL.onnx", type=Path)
    add_arch(parser, required=False)
    parser.add_argument(
        "--calib",
        type=Path,
        metavar="FILE.npz|FILE.npy|IMAGE_DIR",
        help="calibration images for a model (default: noise)",
    )
    add_preprocess(parser)
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    program = _program(options)
    with progress_bar(f"estimating {program.model}") as bar:
        result = estimate(program, bar)
    if options.json:
        print_json(result.to_dict())
    else:
        _show(result)


def _program(options: argparse.Namespace) -> Program:
    """The program in the file, or that of the model in it."""
    model = open_model(options.model)
    if isinstance(model, Program):
        if options.calib is not None or options.preprocess is not None:
            raise InputError(
                f"--calib and --preprocess belong to a model that is compiled, and "
                f"{str(options.model)!r} is a program"
            )
        if options.arch is None:
            return model
        arch = load_arch(options.arch)
        model.require_arch(arch)
        return dataclasses.replace(model, arch=arch)
    if options.arch is None:
        raise InputError(f"{str(model)!r} is a model: say with --arch for which core")
    arch = load_arch(options.arch)
    calibration = read_calibration(model, options.calib, options.preprocess)
    return compile_shown(model, arch, calibration, options.preprocess)


def _show(result: Estimate) -> None:
    """Facts, then a line a layer."""
    data, arch, cycles = result.to_dict(), result.arch, result.cycles
    lost = {name: count / cycles for name, count in result.lost.items()}
    memory = data["token_memory_bytes"]
    fit = {True: "fits", False: "does not fit", None: "no part"}[result.fits]
    values = {
        "model": f"{data['model']} on {arch.name}, {arch.macs} MACs a cycle",
        "cycles": f"{cycles:,}",
        "latency": f"{result.milliseconds:.3f} ms at {arch.clock_mhz:g} MHz, "
        f"{data['images_per_second']:.1f} images a second",
        "utilisation": f"{data['utilisation']:.1%}, "
        f"{data['roofline_cycles'] / cycles:.1%} of the roofline",
        "DRAM": f"{human_bytes(data['dram_read_bytes'])} in, "
        f"{human_bytes(data['dram_write_bytes'])} out an image",
        "token memory": "not stored in the program" if memory is None
        else f"{human_bytes(memory)} of {human_bytes(arch.token_bytes)}",
        "part": f"{arch.part.name}: {fit}, {summary(dict(result.resources))}",
        "lost": ", ".join(f"{name} {share:.1%}" for name, share in lost.items() if share > 1e-3),
        "bottleneck": data["bottleneck"],
    }
    facts = Table(box=None, show_header=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for key, value in values.items():
        facts.add_row(key, value)
    OUT.print(facts)
    table = Table(box=None)
    table.add_column("layer", overflow="fold")
    for name in ("MACs (M)", "KiB in", "cycles", "at least", "used"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bottleneck")
    for layer in result.layers:
        table.add_row(
            layer.name, f"{layer.macs / 1e6:.2f}", f"{layer.dram_read_bytes / 1024:.1f}",
            f"{layer.cycles:,}", f"{layer.roofline_cycles:,}", f"{layer.utilisation:.1%}",
            layer.bottleneck,
        )
    OUT.print(table)
    named = {layer.bottleneck for layer in result.layers} | {data["bottleneck"]}
    for name, meaning in LIMITS.items():
        if name in named:
            say(f"{name}: {meaning}")
