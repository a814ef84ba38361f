"""``vitrify run``: inputs through a backend, results and cost out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitrify.arch.errors import InputError
from vitrify.arch.load import load as load_arch
from vitrify.arch.text import short
from vitrify.program import Program
from vitrify.program.files import check_writable, npz, write_atomic
from vitrify.runtime import BACKENDS, InferenceSession, open_model
from vitrify.runtime.arrays import read_arrays
from vitrify.runtime.images import read_batch
from vitrify.runtime.statistics import Statistics

from .models import AUTO, known_preprocess
from .options import (
    add_arch,
    add_float_model,
    add_input,
    add_json,
    add_preprocess,
    add_task,
    human_bytes,
    task_feed,
)
from .terminal import new_table, print_json, progress_bar, say, show
from .trace import write_trace

#: Best results shown for an image.
_TOP = 5


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "run",
        help="run a program or a model",
        description="Run a program on the golden machine or the simulated core, or the original "
        "model on ONNX Runtime.  Several inputs make a batch, in the order given.",
    )
    parser.add_argument("model", metavar="OUT.vfy|MODEL.onnx", type=Path)
    add_input(parser)
    parser.add_argument(
        "--backend",
        default="golden",
        metavar="NAME",
        help=f"{', '.join(BACKENDS)}; a board with its device: 'board:ulx3s?port=/dev/ttyUSB0'",
    )
    add_float_model(parser)
    add_task(parser)
    add_preprocess(parser)
    add_arch(parser, required=False)
    parser.add_argument(
        "--check",
        action="store_true",
        help="rtl: compare every tensor with golden, stop at the first difference",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT.npz",
        help="write the outputs, named as in the model",
    )
    parser.add_argument(
        "--stats",
        type=Path,
        metavar="STATS.json",
        help="write cycles, utilisation and DRAM bytes, whole and by layer",
    )
    parser.add_argument("--trace", type=Path, metavar="FILE.fst", help="rtl: write a waveform")
    parser.add_argument(
        "--trace-depth", type=int, metavar="N", help="only N levels of the core's hierarchy"
    )
    parser.add_argument(
        "--trace-layer", metavar="NAME",
        help="only while this layer of the first job runs, from the MATMUL before it on",
    )
    parser.add_argument(
        "--trace-cycles", type=_cycles, metavar="FIRST:END", help="only these cycles"
    )
    parser.add_argument(
        "--perfetto", type=Path, metavar="TRACE.json[.gz]",
        help="rtl: write what every engine does when, for ui.perfetto.dev (`vitrify trace` puts "
        "the estimate beside it)",
    )
    parser.add_argument(
        "--dram-latency",
        type=int,
        metavar="CYCLES",
        help="rtl: cycles to the first beat (default: the preset's)",
    )
    parser.add_argument(
        "--dram-outstanding",
        type=int,
        metavar="N",
        help="rtl: bursts in flight (default: the preset's)",
    )
    parser.add_argument(
        "--dram-bandwidth",
        type=float,
        metavar="BYTES",
        help="rtl: bytes a cycle each way of an ideal memory (default: one beat)",
    )
    parser.add_argument(
        "--dram",
        metavar="BOARD|ideal",
        help="rtl: that board's memory, refreshes, turn-arounds and row misses included, or an "
        "ideal one (default: the preset's)",
    )
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    given = [part for text in options.input for part in (text, text.partition("=")[2]) if part]
    for path in (options.output, options.stats, options.trace, options.perfetto):
        check_writable(path, [options.model, *map(Path, given)])
    settings = _backend_options(options)
    if options.preprocess == AUTO:
        options.preprocess = known_preprocess(open_model(options.model), AUTO)
    with progress_bar(f"preparing {options.backend}") as bar:
        session = InferenceSession(
            options.model,
            options.backend,
            arch=load_arch(options.arch) if options.arch else None,
            preprocess=options.preprocess,
            progress=bar,
            **settings,
        )
        program = session.program
        if options.perfetto is not None and not isinstance(program, Program):
            raise InputError("--perfetto needs a program that the core runs as a whole")
        with session:
            feed = read_feed(session, options.input, options.task, options.preprocess)
            bar.say(f"running on {options.backend}")
            results = session.run(None, feed)
            names = [out.name for out in session.get_outputs()]
            statistics = session.statistics
    outputs = dict(zip(names, results, strict=True))
    if options.output is not None:
        write_atomic(options.output, npz(outputs))
    if options.stats is not None and statistics is not None:
        text = json.dumps(statistics.to_dict(), indent=2) + "\n"
        write_atomic(options.stats, text.encode())
    if options.perfetto is not None:
        assert isinstance(program, Program)
        assert statistics is not None
        assert statistics.activity is not None
        write_trace(options.perfetto, program, [statistics.activity])
    if options.json:
        print_json(
            {
                "outputs": {name: value.tolist() for name, value in outputs.items()},
                "statistics": statistics.to_dict() if statistics else None,
            }
        )
        return
    labels = () if program is None else program.metadata.get("labels", ())
    _show(outputs, statistics, options, labels)


def _cycles(text: str) -> tuple[int, int]:
    """``FIRST:END``."""
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal() and len(text) < 40):
        raise argparse.ArgumentTypeError(f"must be FIRST:END, two cycles, not {short(text)}")
    return int(first), int(end)


def _backend_options(options: argparse.Namespace) -> dict[str, Any]:
    """Options that only the simulated core has."""
    given = {
        "check": options.check or None,
        "trace": options.trace,
        "trace_depth": options.trace_depth,
        "trace_layer": options.trace_layer,
        "trace_cycles": options.trace_cycles,
        "activity": None if options.perfetto is None else True,
        "latency": options.dram_latency,
        "outstanding": options.dram_outstanding,
        "bytes_per_cycle": options.dram_bandwidth,
        "dram": options.dram,
    }
    flags = {
        "check": "--check",
        "trace": "--trace",
        "trace_depth": "--trace-depth",
        "trace_layer": "--trace-layer",
        "trace_cycles": "--trace-cycles",
        "activity": "--perfetto",
        "latency": "--dram-latency",
        "outstanding": "--dram-outstanding",
        "bytes_per_cycle": "--dram-bandwidth",
        "dram": "--dram",
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    if chosen and options.backend != "rtl":
        raise InputError(
            f"{flags[next(iter(chosen))]} belongs to --backend rtl, not to {options.backend}"
        )
    if options.float_model is not None:
        if options.backend != "float":
            raise InputError(f"--float-model belongs to --backend float, not to {options.backend}")
        chosen["onnx"] = options.float_model
    if options.stats is not None and options.backend == "float":
        raise InputError("--stats needs --backend golden or rtl: ONNX Runtime counts no cycles")
    return chosen


def read_feed(
    session: InferenceSession, inputs: Sequence[str], task: Sequence[str], preprocess: str | None
) -> dict[str, Any]:
    """The batch of ``--input`` and its tasks of ``--task``, under the inputs' names."""
    arg, *others = session.get_inputs()
    if not session.is_of_images:
        if task:
            raise InputError(f"--task {task[0]}: the model has no tasks")
        return read_arrays(inputs, [arg.name, *(other.name for other in others)])
    tasks = task_feed(task, [other.name for other in others])
    paths: list[Path] = []
    for text in inputs:
        name, equals, rest = text.partition("=")
        if Path(text).exists() or not equals:
            paths.append(Path(text))
            continue
        if name != arg.name:
            raise InputError(f"the model has no input {name!r}; its input is {arg.name!r}")
        paths.append(Path(rest))
    sizes = arg.shape[1:]
    if not all(isinstance(size, int) for size in sizes):
        raise InputError(
            f"input {arg.name!r} of the model has no fixed size ({arg.shape}); export the model "
            f"with one"
        )
    if preprocess is None and session.program is not None:
        preprocess = session.program.preprocess
    if preprocess is None and arg.type == "tensor(uint8)":
        preprocess = "none"  # a model that takes pixels gets them as they are
    a, b, c = (int(size) for size in sizes)
    shape = (c, a, b) if session.channels_last else (a, b, c)
    return {arg.name: read_batch(paths, arg.name, shape, preprocess), **tasks}


def _show(
    outputs: dict[str, np.ndarray], statistics: Statistics | None, options: argparse.Namespace,
    labels: Sequence[str],
) -> None:
    """Tables of the best classes; ``labels`` name them where there are as many."""
    for name, value in outputs.items():
        if value.ndim != 2:
            say(f"{name}: {list(value.shape)} {value.dtype}")
            continue
        table = new_table(title=name, title_justify="left", box=None)
        table.add_column("image", justify="right")
        names = labels if len(labels) == value.shape[1] else range(value.shape[1])
        best = min(_TOP, value.shape[1])
        for rank in range(best):
            table.add_column(f"#{rank + 1}", justify="right")
        for number, row in enumerate(value):
            numbers = row.astype(np.float64)
            order = np.argsort(-numbers, kind="stable")[:best]
            table.add_row(str(number), *(f"{names[i]} ({numbers[i]:.3f})" for i in order))
        show(table)
    if options.check:
        say("every tensor equal: rtl = golden")
    if statistics is not None:
        say(summary(statistics))


def summary(statistics: Statistics) -> str:
    """One line of cost."""
    many = "s" * (statistics.images != 1)
    parts = [f"{statistics.images} image{many}", f"{statistics.macs / 1e6:.1f} M MACs"]
    if statistics.cycles and statistics.utilisation is not None:
        each = statistics.cycles / statistics.images
        time = each / statistics.arch.clock_mhz / 1e3
        parts += [
            f"{each:,.0f} cycles an image ({time:.2f} ms at {statistics.arch.clock_mhz:g} MHz)",
            f"{100 * statistics.utilisation:.1f} % of {statistics.arch.macs} MACs a cycle",
            f"{100 * statistics.roofline_cycles / statistics.cycles:.1f} % of the roofline",
        ]
    parts.append(
        f"DRAM {human_bytes(statistics.dram_read_bytes / statistics.images)} in, "
        f"{human_bytes(statistics.dram_write_bytes / statistics.images)} out an image"
    )
    return ", ".join(parts)
