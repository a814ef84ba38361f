"""What several commands share: arguments, and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitrify.arch.errors import InputError
from vitrify.arch.presets import PRESETS


def add_arch(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """``--arch PRESET|FILE.yaml``."""
    parser.add_argument(
        "--arch",
        required=required,
        metavar="PRESET|FILE.yaml",
        help=f"the core: {', '.join(PRESETS)}, or a YAML file",
    )


def add_input(parser: argparse.ArgumentParser) -> None:
    """``--input [NAME=]FILE...``."""
    parser.add_argument(
        "--input", required=True, nargs="+", action="extend", metavar="[NAME=]FILE",
        help=".npy, .npz or pictures",
    )


def add_calibration(parser: argparse.ArgumentParser, text: str) -> None:
    """``--calib`` with this help."""
    parser.add_argument(
        "--calib", type=Path, metavar="FILE.npz|FILE.npy|IMAGE_DIR", help=text
    )


def add_preprocess(parser: argparse.ArgumentParser) -> None:
    """``--preprocess SPEC``."""
    parser.add_argument(
        "--preprocess",
        metavar="SPEC",
        help="how pictures become the model's input: imagenet, augreg, settings such as "
        "crop_pct=0.9,mean=0.5,std=0.5, or auto: what comes with the model says it",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """``--weights 8|4|auto`` with its limits."""
    from vitrify.quant.wanted import MAX_DROP

    parser.add_argument(
        "--weights", choices=("8", "4", "auto"),
        help="bits of weights: 4 halves what is fetched of every layer but the patch embedding and "
        "those that give logits; auto chooses for each layer (default: 8)",
    )
    parser.add_argument(
        "--max-drop", type=float, metavar="POINTS",
        help=f"--weights auto: points of accuracy that it may cost, by the calibration images "
        f"(default: {MAX_DROP})",
    )
    parser.add_argument(
        "--budget-bytes", type=int, metavar="N",
        help="--weights auto: bytes that all weights may have, at the least cost",
    )


def weights_of(options: argparse.Namespace) -> Any:
    """What :func:`add_weights` was given, as the compiler takes it."""
    from vitrify.quant.wanted import Weights

    bits = None if options.weights == "auto" else int(options.weights or 8)
    return Weights(bits, options.max_drop, options.budget_bytes)


def refuse_for_program(options: argparse.Namespace, *names: str) -> None:
    """Refuse options that only a model heeds: ``names``, and those of :func:`add_weights`.

    Raises
    ------
    InputError
        If one of them was given for ``options.model``, which is a program.
    """
    given = ", ".join(
        f"--{name.replace('_', '-')}" for name in (*names, "weights", "max_drop", "budget_bytes")
        if getattr(options, name) is not None
    )
    if given:
        raise InputError(
            f"{str(options.model)!r} is a program: {given} would belong to a model that is compiled"
        )


def add_input_shape(parser: argparse.ArgumentParser) -> None:
    """``--input-shape C,H,W`` and ``--input-shape NAME=SIZES``."""
    parser.add_argument(
        "--input-shape", type=_sizes, action=_Shapes, metavar="C,H,W|NAME=SIZES",
        help="channels, height and width of the image, where the model leaves them open; or the "
        "sizes of an input, without the batch (may be given several times)",
    )


class _Shapes(argparse.Action):
    """Sizes of the image, or of all inputs that are named, in one dictionary."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
        option_string: str | None = None,
    ) -> None:
        name, sizes = values
        known = getattr(namespace, self.dest)
        if known is not None and not (name and isinstance(known, dict)):
            parser.error(f"{option_string} is given twice: name each input, NAME=SIZES")
        setattr(namespace, self.dest, {**(known or {}), name: sizes} if name else sizes)


def _sizes(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, numbers = text.rpartition("=")
    try:
        sizes = tuple(int(part) for part in numbers.replace("x", ",").split(","))
    except ValueError:
        sizes = (0,)
    if min(sizes) < 1 or (not name and len(sizes) == 1 and "," not in text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size such as 3,224,224: channels, height, width; nor NAME=77,512"
        )
    return name, sizes


def add_float_model(parser: argparse.ArgumentParser) -> None:
    """``--float-model MODEL.onnx``."""
    parser.add_argument(
        "--float-model", type=Path, metavar="MODEL.onnx",
        help="backend float: the model that the program was compiled from (default: beside it)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def add_task(parser: argparse.ArgumentParser) -> None:
    """``--task [NAME=]N[,N...]``."""
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="[NAME=]N[,N...]",
        help="for a model with tasks: the task of all images, or one for each",
    )


def task_feed(given: Sequence[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Task numbers of ``--task`` by the name of the input; ``names`` are those of the model.

    Raises
    ------
    InputError
        If the model has no tasks, or no such input, or a number is none.
    """
    found: dict[str, np.ndarray] = {}
    for text in given:
        name, equals, numbers = text.rpartition("=")
        if not names:
            raise InputError(f"--task {text}: the model has no tasks")
        if not equals and len(names) > 1:
            raise InputError(f"--task {text} must say which of {', '.join(names)} it means: NAME=N")
        name = name if equals else names[0]
        if name not in names:
            raise InputError(f"the model has no task input {name!r}; it has {', '.join(names)}")
        try:
            values = [int(part) for part in numbers.split(",")]
        except ValueError:
            raise InputError(f"--task {text}: {numbers!r} is no list of task numbers") from None
        found[name] = np.array(values, np.int64)
    return found


def human_bytes(size: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
