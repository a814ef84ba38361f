"""The whole way from an ONNX file to a program."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.config import ArchConfig
from vitrify.frontend import (
    STAGES,
    canonicalise,
    image_input,
    is_channels_last,
    load,
    loads,
    rounded,
)
from vitrify.frontend.size import Sizes
from vitrify.ir.quantisers import quantisers_of
from vitrify.program import Program, preprocess
from vitrify.program.files import check_folder
from vitrify.quant.doubts import CalibrationWarning, doubts
from vitrify.quant.graph import QuantGraph
from vitrify.quant.wanted import EIGHT, Weights

from .as_onnx import as_onnx, closeness
from .basis import quantise_rotated
from .compile import compile_graph
from .inputs import Calibration, images_of, of_image
from .losses import LossWarning, losses
from .means import with_means_of
from .stand_ins import stand_ins
from .validate import check_canonical, check_program

Progress = Callable[[str, float], None]


def compile_model(
    path: str | Path,
    arch: ArchConfig,
    calibration: Calibration | None,
    *,
    preprocess: str | None = None,
    keep: Path | None = None,
    progress: Progress | None = None,
    batch: int = 1,
    verify: bool = True,
    warn: Callable[[str], None] | None = None,
    inspect: Callable[[ir.Model, QuantGraph], None] | None = None,
    weights: Weights = EIGHT,
    size: Sizes | None = None,
) -> Program:
    """Read, canonicalise, quantise, lower and emit.

    Parameters
    ----------
    path : an ONNX vision transformer
    arch : the core to run on
    calibration : float32 ``[N, C, H, W]``, or as the model takes it, preprocessed like the model's
        inputs, alone or by the input's name; or uint8 for a model that takes pixels; ``None`` for
        an already quantised one, which says its ranges
    preprocess : how pictures become inputs (stored in the program); ``none`` is the default for a
        model that takes pixels
    keep : directory for every intermediate model, ``0_original.onnx`` … ; ONNX Runtime executes
        and Netron opens each; the last has the integers, see :mod:`vitrify.compiler.as_onnx`
    progress : called with a phrase and the fraction of the whole that is done
    batch : images of one job, 1 to 4
    verify : compare the canonical graph with the model, and the program with the integer graph, on
        a few of the images (seconds)
    weights : how many bits the weights of each layer have
    warn : told what looks wrong with the images, and what is far from the floats; by default a
        ``CalibrationWarning`` or ``LossWarning`` each
    inspect : shown the canonical model and the integer graph
    size : channels, height and width of the image, where the model leaves them open; or sizes of
        inputs by their names

    Raises
    ------
    VerificationError
        If one of these differs: a fault of the compiler.
    VitrifyError
        A child that says what is wrong with the model, the images or the fit.
    """
    report = progress or silent
    report("reading the model", 0.0)
    model = load(path, size)
    images = _images(model, calibration, preprocess)
    canonical, graph = quantise_loaded(
        model, arch, images, preprocess=preprocess, keep=keep, progress=report, weights=weights,
        own_ranges=calibration is None,
    )
    graph.name = Path(path).stem
    if verify:
        report("comparing the canonical graph with the model", 0.9)
        check_canonical(model, canonical, images, graph.tasks)
    if inspect is not None:
        inspect(canonical, graph)
    preprocess = of_model(canonical, preprocess)
    report("placing and emitting", 0.94)
    program = compile_graph(graph, arch, preprocess=preprocess, batch=batch)
    if verify:
        report("comparing the program with the integer graph", 0.96)
        check_program(program, graph, images)
        for loss in () if calibration is None else losses(program, graph, canonical, images):
            where = "`vitrify accuracy MODEL --layers` says in which layer it is lost"
            tell(f"{loss}; {where}", LossWarning, warn)
    program = replace(
        program, metadata={**program.metadata, "source": source_facts(Path(path))},
        input=replace(program.input, channels_last=is_channels_last(image_input(model))),
    )
    report("done", 1.0)
    if calibration is not None:
        tell_doubts(images, preprocess, warn)
    return program


def tell_doubts(
    calibration: npt.NDArray[np.float32], preprocess: str | None,
    warn: Callable[[str], None] | None,
) -> None:
    """Say what looks wrong with calibration images."""
    images = np.asarray(calibration, np.float32)
    for doubt in doubts(images, _parse(preprocess), preprocess):
        tell(doubt, CalibrationWarning, warn)


def tell(text: str, kind: type[Warning], warn: Callable[[str], None] | None) -> None:
    """Give ``text`` to ``warn``, or warn whoever called the compiler."""
    if warn is not None:
        warn(text)
        return
    frame, depth = inspect.currentframe(), 1
    while frame is not None and frame.f_globals["__name__"].startswith("vitrify.compiler."):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(text, kind, stacklevel=depth)


def quantise_model(
    path: str | Path,
    arch: ArchConfig,
    calibration: Calibration | None,
    *,
    preprocess: str | None = None,
    keep: Path | None = None,
    progress: Progress | None = None,
    weights: Weights = EIGHT,
    size: Sizes | None = None,
) -> tuple[ir.Model, QuantGraph]:
    """The first half of :func:`compile_model`: the canonical float model and the integer graph."""
    model = load(path, size)
    canonical, graph = quantise_loaded(
        model, arch, _images(model, calibration, preprocess), preprocess=preprocess, keep=keep,
        progress=progress or silent, weights=weights, own_ranges=calibration is None,
    )
    graph.name = Path(path).stem
    return canonical, graph


def _images(
    model: ir.Model, calibration: Calibration | None, preprocess: str | None
) -> npt.NDArray[np.float32]:
    """Calibration images ``[N, C, H, W]``, or what stands for them."""
    images = images_of(image_input(model), calibration)
    return stand_ins(model, preprocess) if images is None else images


def quantise_loaded(
    model: ir.Model, arch: ArchConfig, calibration: npt.NDArray[np.float32], *,
    preprocess: str | None = None, keep: Path | None = None, progress: Progress,
    weights: Weights = EIGHT, own_ranges: bool = False,
) -> tuple[ir.Model, QuantGraph]:
    """As :func:`quantise_model`, for a model that was read already.

    With ``own_ranges`` the images are stand-ins, and ranges are those that the model says.  Where
    weights may have four bits, residual streams of the canonical model may be rotated.
    """
    if keep is not None:
        check_folder(keep)
        keep.mkdir(parents=True, exist_ok=True)

    def save(stage: str, intermediate: ir.Model) -> None:
        progress(stage, 0.02 + 0.02 * STAGES.index(stage))
        if keep is not None:
            ir.save(intermediate, keep / f"{STAGES.index(stage)}_{stage}.onnx")

    canonical = canonicalise(model, save, images=calibration)
    canonical, graph = quantise_rotated(
        canonical, calibration, arch=arch,
        preprocess=_parse(of_model(canonical, preprocess)),
        progress=lambda phrase, fraction: progress(phrase, 0.12 + 0.78 * fraction),
        weights=weights, own_ranges=own_ranges,
    )
    said = quantisers_of(canonical)
    if said and not own_ranges:
        file = rounded(model)
        if loads(file):  # ONNX Runtime lacks kernels for some types
            progress("comparing means with the quantised model", 0.9)
            with_means_of(file, said, graph, arch, calibration)
    if keep is not None:
        progress("writing the integers as ONNX", 0.9)
        standard = as_onnx(canonical, graph)
        ir.save(standard, keep / f"{len(STAGES)}_integer.onnx")
        graph.as_onnx = closeness(standard, graph, arch, calibration)
    return canonical, graph


def silent(_phrase: str, _fraction: float) -> None:
    """Report to nobody."""


def source_facts(path: Path) -> dict[str, str]:
    """What the model is: the float backend knows the original by this, wherever it lies."""
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def of_model(model: ir.Model, text: str | None) -> str | None:
    """The preprocessing for ``model``: one that takes pixels gets them as they are."""
    return of_image(image_input(model), text)


def _parse(text: str | None) -> preprocess.Preprocess | None:
    return None if text is None else preprocess.parse(text)
