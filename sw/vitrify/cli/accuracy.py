"""``vitrify accuracy``: labelled pictures through a backend, beside the float model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import InputError
from vitrify.arch.load import load as load_arch
from vitrify.program import Application, Program
from vitrify.runtime import InferenceSession, open_model
from vitrify.runtime.accuracy import Labelled, agreement, check_labels, paired, read_labels, scores
from vitrify.runtime.images import read_floats

from .models import Shape, image_input, known_preprocess, read_calibration, stages
from .options import (
    add_arch,
    add_calibration,
    add_float_model,
    add_json,
    add_preprocess,
    add_task,
    add_weights,
    refuse_for_program,
    task_feed,
    weights_of,
)
from .terminal import new_table, print_json, progress_bar, remark, say, show

Float32 = npt.NDArray[np.float32]

#: Pictures in memory at once, and pictures whose tensors are compared layer by layer.
_BATCH = 16
_LAYER_IMAGES = 16


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "accuracy",
        help="classify labelled pictures and compare with the float model",
        description="Top-1 and top-5 on labelled pictures, agreement with the float model and "
        "mean KL divergence from it, with the 95 %% intervals that so many pictures give.  "
        "A model needs --arch and --calib to become integers.",
    )
    parser.add_argument("model", metavar="OUT.vfy|MODEL.onnx", type=Path)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="the pictures")
    parser.add_argument(
        "--labels", required=True, type=Path, metavar="FILE.csv",
        help="columns file, label and, for --split, split",
    )
    parser.add_argument("--split", metavar="NAME", help="only the pictures of this split")
    parser.add_argument("--backend", choices=("golden", "float"), default="golden")
    add_arch(parser, required=False)
    add_calibration(parser, "calibration images for a model")
    add_weights(parser)
    add_float_model(parser)
    add_preprocess(parser)
    add_task(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    parser.add_argument(
        "--layers", action="store_true",
        help="signal-to-noise ratio of every layer's integers (of a model, not a program)",
    )
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit must be at least 1, not {options.limit}")
    pictures = read_labels(options.data, options.labels, options.split)[: options.limit]
    model = open_model(options.model)
    options.preprocess = known_preprocess(model, options.preprocess)
    data: dict[str, Any] = {"model": options.model.name, "backend": options.backend}
    if not isinstance(model, Path):
        program, spec = model, model.input
        _check_program(options, program)
        name, shape = spec.name, spec.shape
        preprocess = options.preprocess or spec.preprocess
    else:
        name, shape = image_input(model)
        preprocess, program = options.preprocess, None
        if options.backend == "golden":
            program, layers = _integers(options, model, pictures, name, shape)
            if layers is not None:
                data["layers"] = layers
        elif options.layers:
            raise InputError("--layers compares integers with floats: it needs --backend golden")
    if program is not None:
        data["arch"] = program.arch.name
    labels = np.array([picture.label for picture in pictures])
    sessions = _sessions(options, program, preprocess)
    with ExitStack() as stack:
        for session in sessions.values():
            stack.enter_context(session)
        others = [arg.name for arg in next(iter(sessions.values())).get_inputs()[1:]]
        tasks = _tasks(options, others)
        results = _run(sessions, pictures, name, shape, preprocess, tasks)
    data |= {key: int(value[0]) for key, value in tasks.items()}
    check_labels(labels, next(iter(results.values())).shape[1])
    data |= {"images": len(pictures), **scores(results[options.backend], labels)}
    if options.backend == "golden" and "float" in results:
        exact = scores(results["float"], labels)
        data |= {f"float_{key}": value for key, value in exact.items()}
        data |= agreement(results["float"], results["golden"])
        data |= paired(results["float"], results["golden"], labels)
    if options.json:
        print_json(data)
    else:
        _show(data)


def _check_program(options: argparse.Namespace, program: Program | Application) -> None:
    refuse_for_program(options, "calib")
    if options.layers:
        raise InputError(
            "--layers needs the float model: give the .onnx file with --arch and --calib"
        )
    if options.arch is not None:
        program.require_arch(load_arch(options.arch))


def _integers(
    options: argparse.Namespace, model: Path, pictures: list[Labelled], name: str, shape: Shape
) -> tuple[Program, list[dict[str, Any]] | None]:
    """The compiled model and, if asked for, the quality of its layers."""
    if options.arch is None or options.calib is None:
        raise InputError(
            f"{str(model)!r} is a model: --arch and --calib say how it becomes integers (or use "
            f"--backend float)"
        )
    from vitrify.compiler.driver import compile_graph, quantise_model
    from vitrify.quant.compare import compare

    arch, weights = load_arch(options.arch), weights_of(options)
    calibration = read_calibration(model, options.calib, options.preprocess)
    layers = None
    with progress_bar(f"compiling {model.name}") as bar:
        canonical, graph = quantise_model(
            model, arch, calibration, preprocess=options.preprocess, progress=stages(bar),
            weights=weights,
        )
        program = compile_graph(graph, arch, preprocess=options.preprocess)
        if options.layers:
            bar.say("comparing layers")
            files = [picture.file for picture in pictures[:_LAYER_IMAGES]]
            images = read_floats(files, name, shape, options.preprocess)
            numbers = _tasks(options, list(graph.tasks))
            found = compare(
                canonical, graph, images, arch, progress=bar,
                tasks={key: int(value[0]) for key, value in numbers.items()},
            )
            layers = [asdict(comparison) for comparison in found]
    return program, layers


def _sessions(
    options: argparse.Namespace, program: Program | Application | None, preprocess: str | None
) -> dict[str, InferenceSession]:
    """The backends to run; without the original of a program, there is no float one."""
    chosen = {}
    if options.backend == "golden":
        assert program is not None
        chosen["golden"] = InferenceSession(program, "golden", preprocess=preprocess)
    given = {} if options.float_model is None else {"onnx": options.float_model}
    try:
        chosen["float"] = InferenceSession(
            options.model, "float", preprocess=preprocess, **given
        )
    except InputError as error:
        if options.backend == "float" or given:
            raise
        remark(f"no comparison with float: {error}")
    return chosen


def _run(
    sessions: dict[str, InferenceSession], pictures: list[Labelled], name: str, shape: Shape,
    preprocess: str | None, tasks: dict[str, npt.NDArray[np.int64]],
) -> dict[str, npt.NDArray[np.float64]]:
    """Logits ``[N, classes]`` of every session."""
    parts: dict[str, list[Any]] = {backend: [] for backend in sessions}
    with progress_bar("classifying") as bar:
        for start, batch in _batches(pictures, name, shape, preprocess):
            for backend, session in sessions.items():
                logits = session.run(None, {session.get_inputs()[0].name: batch, **tasks})[0]
                if logits.ndim != 2:
                    raise InputError(
                        f"the model's first output has the shape {list(logits.shape)}; labels need "
                        f"a classifier, [N, classes]"
                    )
                parts[backend].append(logits)
            bar(start + len(batch), len(pictures))
    return {backend: np.concatenate(logits) for backend, logits in parts.items()}


def _tasks(options: argparse.Namespace, names: list[str]) -> dict[str, npt.NDArray[np.int64]]:
    """The task that all pictures are labelled for."""
    found = task_feed(options.task, names)
    for name in names:
        if name not in found:
            raise InputError("the model has tasks: say with --task for which the labels are")
        if len(found[name]) > 1:
            raise InputError(f"--task takes one task here, not {len(found[name])}")
    return found


def _batches(
    pictures: list[Labelled], name: str, shape: Shape, preprocess: str | None
) -> Iterator[tuple[int, Float32]]:
    for start in range(0, len(pictures), _BATCH):
        files = [picture.file for picture in pictures[start : start + _BATCH]]
        yield start, read_floats(files, name, shape, preprocess)


def _show(data: dict[str, Any]) -> None:
    """One table of shares, one of layers."""
    where = f" on {data['arch']}" if "arch" in data else ""
    say(f"{data['model']}{where}, {data['images']} pictures")
    table = new_table(box=None)
    for heading in ("", "top-1", "top-5", "agreement", "KL"):
        table.add_column(heading, justify="right" if heading else "left")
    if "float_top1" in data:
        table.add_row("float", f"{data['float_top1']:.2%}", f"{data['float_top5']:.2%}")
    extra = (f"{data['agreement']:.2%}", f"{data['kl']:.4f}") if "agreement" in data else ()
    table.add_row(data["backend"], f"{data['top1']:.2%}", f"{data['top5']:.2%}", *extra)
    show(table)
    say(_certainty(data))
    if "layers" not in data:
        return
    layers = new_table(box=None)
    layers.add_column("integers against floats", overflow="fold")
    for heading in ("SQNR dB", "largest error", "largest value"):
        layers.add_column(heading, justify="right", no_wrap=True)
    for layer in data["layers"]:
        layers.add_row(
            layer["name"], f"{layer['sqnr']:.1f}", f"{layer['error']:.4g}", f"{layer['peak']:.4g}"
        )
    show(layers)


def _certainty(data: dict[str, Any]) -> str:
    """What so many pictures allow to say."""
    low, high = data["top1_interval"]
    if "difference" not in data:
        return f"95 % interval of top-1: {low:.1%} to {high:.1%}"
    low, high = data["difference_interval"]
    return (
        f"{100 * data['difference']:+.2f} points against float (95 %: {100 * low:+.2f} to "
        f"{100 * high:+.2f}), {data['lost']} pictures lost and {data['gained']} gained, "
        f"McNemar p = {data['mcnemar_p']:.2g}; KL {data['kl_interval'][0]:.4f} to "
        f"{data['kl_interval'][1]:.4f}"
    )
