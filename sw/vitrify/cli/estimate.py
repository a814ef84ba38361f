"""``vitrify estimate``: cycles, bottlenecks and fit, without a simulation."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from vitrify.arch.boards import BOARDS, board
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError
from vitrify.arch.estimate import fits
from vitrify.arch.load import load as load_arch
from vitrify.estimate import LIMITS, Estimate, estimate
from vitrify.program import Program
from vitrify.runtime import open_model
from vitrify.runtime.backend import as_jobs
from vitrify.runtime.images import read_batch
from vitrify.runtime.routing import Routing, read, replay, routes, typical

from .emit import summary
from .models import AUTO, compile_shown, known_preprocess, read_calibration
from .options import add_arch, add_json, add_preprocess, add_task, human_bytes, task_feed
from .terminal import new_table, print_json, progress_bar, say, show


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
        "--board", metavar="|".join(BOARDS),
        help="on this board: its clock, memory ports and memory (default for --arch: its preset)",
    )
    parser.add_argument("--clock", type=float, metavar="MHZ", help="clock of the core")
    parser.add_argument(
        "--dram-bandwidth", type=float, metavar="GB/S",
        help="what the memory sustains, reads and writes of all ports together",
    )
    parser.add_argument(
        "--calib",
        type=Path,
        metavar="FILE.npz|FILE.npy|IMAGE_DIR",
        help="calibration images for a model (default: noise, also for what a quantised model "
        "saturates)",
    )
    add_preprocess(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--input", nargs="+", type=Path, metavar="FILE",
        help="experts: replay the routing of these pictures (default: all experts alike)",
    )
    source.add_argument(
        "--routing", type=Path, metavar="FILE.json",
        help="experts: replay a routing of `vitrify routing -o`",
    )
    add_task(parser)
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    program = _program(options)
    program = dataclasses.replace(program, arch=_conditions(program.arch, options))
    with progress_bar(f"estimating {program.model}") as bar:
        result = estimate(program, bar, _routing(options, program))
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
    if options.arch is None and options.board is None:
        raise InputError(f"{str(model)!r} is a model: say with --arch or --board for which core")
    arch = load_arch(options.arch or options.board)
    if options.preprocess == AUTO:
        options.preprocess = known_preprocess(model, AUTO)
    calibration = read_calibration(model, options.calib, options.preprocess)
    return compile_shown(model, arch, calibration, options.preprocess, verify=False, warn=False)


def _conditions(arch: ArchConfig, options: argparse.Namespace) -> ArchConfig:
    """The core on the board, at the clock and behind the memory that the options name."""
    if options.board is not None:
        arch = board(options.board).place(arch)
    if options.clock is not None:
        if not 1 <= options.clock <= 1000:
            raise InputError(f"--clock must be 1 to 1000 MHz, not {options.clock:g}")
        arch = dataclasses.replace(arch, clock_mhz=options.clock)
    if options.dram_bandwidth is not None:
        if not 0.001 <= options.dram_bandwidth <= 10_000:
            raise InputError(
                f"--dram-bandwidth must be 0.001 to 10000 GB/s, not {options.dram_bandwidth:g}"
            )
        dram = arch.dram.sustaining(options.dram_bandwidth * 1e9)
        arch = dataclasses.replace(arch, dram=dram)
    return arch


def _routing(options: argparse.Namespace, program: Program) -> Routing | None:
    """What the options say about the experts."""
    if options.routing is not None:
        return read(options.routing, program)
    if options.input is None:
        return None
    spec = program.input
    preprocess = known_preprocess(program, options.preprocess) or spec.preprocess
    images = read_batch(options.input, spec.name, spec.shape, preprocess)
    tasks = task_feed(options.task, [task.name for task in program.tasks])
    regions, words, _ = as_jobs(program, images, tasks)
    return typical(replay(program, regions, words), routes(program))


def _show(result: Estimate) -> None:
    """Facts, then a line a layer."""
    data, arch, cycles = result.to_dict(), result.arch, result.cycles
    lost = {name: count / cycles for name, count in result.lost.items()}
    memory = data["token_memory_bytes"]
    fit = {True: "fits", False: "does not fit", None: "no part"}[result.fits]
    if result.fits and not fits(arch, surely=True):
        fit = "may fit"
    values = {
        "model": f"{data['model']} on {arch.name}, {arch.macs} MACs a cycle",
        "cycles": f"{cycles:,}",
        "latency": f"{result.milliseconds:.3f} ms at {arch.clock_mhz:g} MHz, "
        f"{data['images_per_second']:.1f} images a second",
        "conditions": data["conditions"],
        "memory": _memory(arch),
        "utilisation": f"{data['utilisation']:.1%}, "
        f"{data['roofline_cycles'] / cycles:.1%} of the roofline",
        **_experts(result),
        "DRAM": f"{human_bytes(data['dram_read_bytes'] / result.program.batch)} in, "
        f"{human_bytes(data['dram_write_bytes'] / result.program.batch)} out an image",
        "token memory": "not stored in the program" if memory is None
        else f"{human_bytes(memory)} of {human_bytes(arch.token_bytes)}",
        "part": f"{arch.part.name}: {fit}, {summary(dict(result.resources))}",
        "lost": ", ".join(f"{name} {share:.1%}" for name, share in lost.items() if share > 1e-3),
        "bottleneck": data["bottleneck"],
    }
    facts = new_table(box=None, show_header=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for key, value in values.items():
        facts.add_row(key, value)
    show(facts)
    table = new_table(box=None)
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
    show(table)
    named = {layer.bottleneck for layer in result.layers} | {data["bottleneck"]}
    for name, meaning in LIMITS.items():
        if name in named:
            say(f"{name}: {meaning}")


def _memory(arch: ArchConfig) -> str:
    """Ports, and what lies behind."""
    ports = f"{arch.ports} ports" if arch.ports > 1 else "one port"
    peak = arch.bus_bytes * arch.clock_mhz / 1e3
    behind = (
        f"{arch.dram.sustained / 1e9:.2f} GB/s sustained, refreshes, turn-arounds and row misses"
        if arch.dram.bandwidth else "an ideal memory"
    )
    return f"{ports} of {arch.port_bytes} bytes, {peak:.2f} GB/s each way; behind: {behind}"


def _experts(result: Estimate) -> dict[str, str]:
    """Where the routing is from, and how many experts it uses."""
    if result.routing is None:
        return {}
    used = sum(count > 0 for counts in result.routing.counts for count in counts)
    count = sum(map(len, result.routing.counts))
    source = {
        "uniform": "all alike; --input or --routing replays real pictures",
        "replayed": "of real pictures, replayed",
    }[result.routing.source]
    return {"experts": f"{used} of {count} in use, {source}"}
