"""From an ONNX file to an application: what the core can run, and the rest on the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError, ProgramError, UnsupportedOpError
from vitrify.frontend import image_input, is_channels_last, load
from vitrify.ir import Evaluator, shape_of
from vitrify.ir.run import with_weights_inside
from vitrify.program import Application, CorePart, HostPart, ImageSpec, Program, as_image
from vitrify.program.application import Part, in_batches
from vitrify.quant.wanted import EIGHT, Weights

from .compile import compile_graph
from .cut import CutError, Source, boundary, core_model, host_model, source_of
from .driver import (
    Progress,
    compile_model,
    first_channels,
    of_model,
    quantise_loaded,
    silent,
    source_facts,
    tell,
    tell_doubts,
)
from .losses import LossWarning, losses
from .partition import Check, Piece, partition, placed, plan
from .stand_ins import stand_ins
from .validate import as_given, check_program
from .validate_parts import check_parts

Array = npt.NDArray[Any]
#: What a judge makes of tensors by their names.
_Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def compile_application(
    path: str | Path,
    arch: ArchConfig,
    calibration: npt.NDArray[np.float32] | None,
    *,
    preprocess: str | None = None,
    keep: Path | None = None,
    progress: Progress | None = None,
    batch: int = 1,
    verify: bool = True,
    warn: Callable[[str], None] | None = None,
    weights: Weights = EIGHT,
    size: Sequence[int] | None = None,
) -> Program | Application:
    """As :func:`~vitrify.compiler.driver.compile_model`; what the core refuses goes to the host.

    So does what it has no room for.  A model that the core runs as a whole is a program as ever.

    Raises
    ------
    UnsupportedOpError, CapacityError
        What the core refuses first, if nothing that multiplies is left for it.
    """
    try:
        return compile_model(
            path, arch, calibration, preprocess=preprocess, keep=keep, progress=progress,
            batch=batch, verify=verify, warn=warn, weights=weights, size=size,
        )
    except (UnsupportedOpError, CapacityError) as refusal:
        large = isinstance(refusal, CapacityError)
        if large and not refusal.node:
            raise
        try:
            job = _Job(path=Path(path), arch=arch, preprocess=preprocess, keep=keep, batch=batch,
                       verify=verify, weights=weights, own_ranges=calibration is None,
                       report=progress or silent, warn=warn)  # fmt: skip
            model = load(path, size)
            calibration = first_channels(model, calibration)
            images = stand_ins(model, preprocess) if calibration is None else calibration
            room = functools.partial(placed, arch=arch, batch=batch)
            try:
                # trials without placing are much shorter
                application = _in_parts(job, model, images, room if large else plan)
            except CapacityError:
                application = _in_parts(job, model, images, room)
        except (CutError, CapacityError, ProgramError) as error:
            # an operator that no library has, say: the first refusal is what helps
            raise refusal from error
    if calibration is not None:
        tell_doubts(calibration, application.input.preprocess, warn)
    return application


@dataclass(frozen=True, kw_only=True)
class _Job:
    path: Path
    arch: ArchConfig
    preprocess: str | None
    keep: Path | None
    batch: int
    verify: bool
    weights: Weights
    own_ranges: bool
    report: Progress
    warn: Callable[[str], None] | None


def _in_parts(
    job: _Job, model: ir.Model, calibration: npt.NDArray[np.float32], check: Check
) -> Application:
    job.report("looking for what the core can run", 0.02)
    image = image_input(model)
    preprocess = of_model(model, job.preprocess)
    source = source_of(model)
    pieces = partition(source, check)
    job.report("running the model on the calibration images", 0.1)
    reads = {name for piece in pieces if piece.on_core for name in piece.reads}
    tensors = boundary(source, reads, as_given(model, calibration))
    tensors[image.name or ""] = calibration
    parts: list[Part] = []
    judges: list[_Run] = []
    for number, piece in enumerate(pieces):
        start, step = 0.15 + 0.75 * number / len(pieces), 0.75 / len(pieces)

        def report(phrase: str, fraction: float, start: float = start, step: float = step) -> None:
            job.report(phrase, start + step * fraction)

        if piece.on_core:
            whole = preprocess if piece.reads == (image.name,) else None
            folder = None if job.keep is None else job.keep / f"part_{number}"
            own = replace(job, preprocess=whole, report=report, keep=folder)
            part, judge = _on_core(own, source, piece, tensors)
        else:
            part, judge = _on_host(source, piece)
            if job.keep is not None:
                (job.keep / f"part_{number}.onnx").write_bytes(part.model)
        parts.append(part)
        judges.append(judge)
    channels, height, width = (int(size) for size in shape_of(image)[1:])
    application = Application(
        model=job.path.stem, parts=tuple(parts),
        input=ImageSpec(name=image.name or "", preprocess=preprocess,
                        shape=(channels, height, width), channels_last=is_channels_last(image)),
        outputs=tuple(value.name or "" for value in model.graph.outputs),
        metadata={"source": source_facts(job.path)},
    )  # fmt: skip
    if job.verify:
        job.report("comparing the parts with the model", 0.95)

        def run(images: Array) -> Mapping[str, Array]:
            known: dict[str, Array] = {image.name or "": images}
            for judge in judges:
                known.update(judge(known))
            return known

        check_parts(model, run, calibration, source.batch)
    return application


def _on_core(
    job: _Job, source: Source, piece: Piece, tensors: Mapping[str, Array]
) -> tuple[CorePart, _Run]:
    axes = tuple(source.axis(name) for name in piece.reads)
    images = as_image([tensors[name] for name in piece.reads], axes)
    model = core_model(source, piece.reads, piece.results)
    canonical, graph = quantise_loaded(
        model, job.arch, images, preprocess=job.preprocess, keep=job.keep, progress=job.report,
        weights=job.weights, own_ranges=job.own_ranges,
    )
    graph.name = f"{job.path.stem}: {piece.nodes[0].name} to {piece.nodes[-1].name}"
    program = compile_graph(
        graph, job.arch, preprocess=of_model(canonical, job.preprocess), batch=job.batch
    )
    if job.verify:
        check_program(program, graph, images)
        for loss in () if job.own_ranges else losses(program, graph, canonical, images):
            tell(loss, LossWarning, job.warn)
    part = CorePart(program=program, reads=piece.reads, axes=axes)
    machine = Evaluator(canonical, list(piece.results))
    name = image_input(canonical).name or ""

    def judge(known: Mapping[str, Array]) -> Mapping[str, Array]:
        return machine.run({name: part.image(known)})

    return part, judge


def _on_host(source: Source, piece: Piece) -> tuple[HostPart, _Run]:
    model = host_model(source, piece.reads, piece.results)
    data = ir.to_proto(with_weights_inside(model)).SerializeToString()
    machine = Evaluator(model, list(piece.results))

    def judge(known: Mapping[str, Array]) -> Mapping[str, Array]:
        given = {name: known[name] for name in piece.reads}
        made = in_batches(lambda feed: list(machine.run(feed).values()), given, source.batch)
        return dict(zip(piece.results, made, strict=True))

    part = HostPart(model=data, why=piece.why, macs=piece.macs)
    if part.reads != piece.reads:
        raise CutError("its host part reads other tensors than were found")
    return part, judge
