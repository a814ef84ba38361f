"""A program on a core, a board and a memory that options name: what estimates start from."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.boards import BOARDS, board
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError
from vitrify.arch.load import load as load_arch
from vitrify.program import Program
from vitrify.runtime import open_model
from vitrify.runtime.backend import as_jobs
from vitrify.runtime.images import read_batch
from vitrify.runtime.routing import Routing, read, replay, routes, typical

from .models import AUTO, compile_shown, known_preprocess, need_whole, read_calibration
from .options import (
    add_arch,
    add_calibration,
    add_input_shape,
    add_preprocess,
    add_task,
    add_weights,
    refuse_for_program,
    task_feed,
    weights_of,
)

Float32 = npt.NDArray[np.float32]


def add_program(parser: argparse.ArgumentParser) -> None:
    """Options of :func:`placed_program` and :func:`routing_of`."""
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
    add_calibration(
        parser,
        "calibration images for a model (default: noise, also for what a quantised model "
        "saturates)",
    )
    add_preprocess(parser)
    add_weights(parser)
    add_input_shape(parser)
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


#: Shown a canonical model, its integer graph, calibration images and the core.
Inspect = Callable[[Any, Any, Float32, ArchConfig], None]


def placed_program(options: argparse.Namespace, inspect: Inspect | None = None) -> Program:
    """The program of the options, its architecture on the board that they name.

    ``inspect`` is called when a model is compiled.
    """
    program = _program(options, inspect)
    return dataclasses.replace(program, arch=_conditions(program.arch, options))


def _program(options: argparse.Namespace, inspect: Inspect | None) -> Program:
    """The program in the file, or that of the model in it."""
    model = need_whole(open_model(options.model), "the estimate")
    if isinstance(model, Program):
        refuse_for_program(options, "calib", "preprocess", "input_shape")
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
    size = options.input_shape
    calibration = read_calibration(model, options.calib, options.preprocess, size)
    return compile_shown(
        model, arch, calibration, options.preprocess, verify=False, warn=False,
        inspect=inspect and (lambda canonical, graph: inspect(canonical, graph, calibration, arch)),
        weights=weights_of(options), size=size,
    )


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


def routing_of(options: argparse.Namespace, program: Program) -> Routing | None:
    """What the options say about the experts."""
    if options.routing is not None:
        return read(options.routing, program)
    if options.input is None:
        return None
    return replayed(options, program, pictures_of(options, program))


def replayed(options: argparse.Namespace, program: Program, images: Float32) -> Routing:
    """The routing of one job of ``images``, typical of all of them."""
    regions, words, _ = as_jobs(program, images, tasks_of(options, program))
    return typical(replay(program, regions, words), routes(program))


def pictures_of(options: argparse.Namespace, program: Program) -> Float32:
    """The pictures of ``--input``; without it a job of blank ones."""
    spec = program.input
    if options.input is None:
        return np.zeros((program.batch, *spec.shape), np.float32)
    preprocess = known_preprocess(program, options.preprocess) or spec.preprocess
    return read_batch(options.input, spec.name, spec.shape, preprocess)


def tasks_of(options: argparse.Namespace, program: Program) -> dict[str, np.ndarray]:
    """The tasks of ``--task``, by the name of the input."""
    return task_feed(options.task, [task.name for task in program.tasks])
