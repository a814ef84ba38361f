"""Whether a model in parts computes what it does as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.errors import ModelError
from vitrify.ir import Evaluator, shape_of
from vitrify.program.application import in_batches

from .cut import CutError
from .inputs import as_typed
from .validate import (
    IMAGES,
    WAY_OUT,
    VerificationError,
    check_finite,
    check_shapes,
    deviations,
    of_onnx_runtime,
    tolerance_of,
)

Array = npt.NDArray[Any]
#: Arrays by the names of inputs.
Feed = Mapping[str, Array]
#: Share of whole numbers that may be others.
OTHER_NUMBERS = 0.05


def check_parts(
    model: ir.Model, run: Callable[[Feed], Mapping[str, Array]], feed: Feed, batch: int | None,
) -> None:
    """Compare the parts of a model, those of the core in their canonical form, with the whole.

    Parameters
    ----------
    model : as it was given
    run : from inputs ``[N, …]`` of the model's types to its outputs
    feed : inputs; a few of the samples are taken
    batch : images that the model takes at once; ``None`` for any number

    Raises
    ------
    VerificationError
        Names the output that deviates.
    CutError
        If ONNX Runtime cannot run the whole.
    ModelError
        If what an image gives depends on the images beside it: parts take as many as they like.
    """
    given = as_typed(model, {name: array[:IMAGES] for name, array in feed.items()})
    names = [value.name or "" for value in model.graph.outputs]
    machine = Evaluator(model, names)

    def whole(feed: Feed, batch: int | None) -> dict[str, Array]:
        made = in_batches(lambda feed: list(machine.run(feed).values()), feed, batch)
        return dict(zip(names, made, strict=True))

    if not isinstance(shape_of(model.graph.inputs[0])[0], int):
        two = {name: np.resize(array, (2, *array.shape[1:])) for name, array in given.items()}
        _check_alone(whole, two, tolerance_of(model))
    try:
        exact = whole(given, batch)
    except Exception as error:
        if not of_onnx_runtime(error):
            raise
        raise CutError("ONNX Runtime cannot run it") from error
    found = run(given)
    for name in names:
        check_shapes(name, exact[name], found[name])
        check_finite(name, exact[name])
        deviation, most = _difference(exact[name], found[name], tolerance_of(model))
        if not deviation <= most:
            raise VerificationError(
                f"output {name!r} of the parts deviates from that of the model by "
                f"{100 * deviation:.2g} % on calibration images. {WAY_OUT}"
            )


def _check_alone(
    whole: Callable[[Feed, int | None], dict[str, Array]], feed: Feed, tolerance: float
) -> None:
    """Compare the outputs for images one by one with those for all of them at once."""
    try:
        together = whole(feed, None)
    except Exception as error:
        if not of_onnx_runtime(error):
            raise
        return  # a batch of one is written into the model
    for name, alone in whole(feed, 1).items():
        same = alone.shape == together[name].shape
        deviation, most = _difference(together[name], alone, tolerance) if same else (1.0, 0.0)
        if not deviation <= most:
            raise ModelError(
                f"output {name!r} of several images at once is not what the model gives for each, "
                f"and its parts would run in other batches than the whole; export the model for "
                f"one image, or compile with --no-verify and run one image a time"
            )


def _difference(exact: Array, found: Array, tolerance: float) -> tuple[float, float]:
    """How much an output deviates, and how much of that is none: of reals, or of whole numbers."""
    if not exact.size:
        return 0.0, tolerance
    if exact.dtype.kind == "f":
        return float(deviations(exact, found).max()), tolerance
    # of numbers that are all but equal, another may be the largest
    return float(np.mean(exact != found)), OTHER_NUMBERS
