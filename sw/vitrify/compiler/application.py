"""From an ONNX file to an application: what the core can run, and the rest on the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError, ProgramError, UnsupportedOpError
from vitrify.frontend import ModelInputError, image_input, load, takes_image
from vitrify.frontend.size import Sizes
from vitrify.ir import Evaluator
from vitrify.ir.run import with_weights_inside
from vitrify.program import Application, CorePart, HostPart, ImageSpec, Program, as_image
from vitrify.program.application import Part, in_batches
from vitrify.quant.wanted import EIGHT, Weights

from .compile import compile_graph
from .cut import CutError, Source, boundary, core_model, host_model
from .driver import (
    Progress,
    compile_model,
    of_model,
    quantise_loaded,
    silent,
    source_facts,
    tell,
    tell_doubts,
)
from .inputs import Calibration, Specs, as_typed, feed_of, images_of, specs_of
from .losses import LossWarning, losses
from .one_range import maps_of
from .partition import Check, Piece, cut, placed, plan
from .stand_ins import stand_ins
from .validate import check_program
from .validate_parts import check_parts

Array = npt.NDArray[Any]
#: What a judge makes of tensors by their names.
_Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def compile_application(
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
    weights: Weights = EIGHT,
    size: Sizes | None = None,
) -> Program | Application:
    """As :func:`~vitrify.compiler.driver.compile_model`; what the core refuses goes to the host.

    So does what it has no room for.  A model that the core runs as a whole is a program as ever.

    Raises
    ------
    UnsupportedOpError, CapacityError
        What the core refuses first, if nothing that multiplies is left for it.
    ModelInputError
        If the model takes something else than an image, and cannot be cut.
    """
    try:
        return compile_model(
            path, arch, calibration, preprocess=preprocess, keep=keep, progress=progress,
            batch=batch, verify=verify, warn=warn, weights=weights, size=size,
        )
    except (UnsupportedOpError, CapacityError, ModelInputError) as refusal:
        large = isinstance(refusal, CapacityError)
        if large and not refusal.node:
            raise
        try:
            job = _Job(path=Path(path), arch=arch, preprocess=preprocess, keep=keep, batch=batch,
                       verify=verify, weights=weights, own_ranges=calibration is None,
                       report=progress or silent, warn=warn)  # fmt: skip
            model = load(path, size, any_inputs=True)
            specs, feed = _inputs(job, model, calibration)
            room = functools.partial(placed, arch=arch, batch=batch)
            try:
                # trials without placing are much shorter
                application = _in_parts(job, model, specs, feed, room if large else plan)
            except CapacityError:
                application = _in_parts(job, model, specs, feed, room)
        except (CutError, CapacityError, ProgramError) as error:
            if isinstance(refusal, ModelInputError):
                raise ModelInputError(
                    f"{str(refusal).rstrip('.')}; nor can it be cut: {error}."
                ) from error
            # an operator that no library has, say: the first refusal is what helps
            raise refusal from error
    if calibration is not None and takes_image(model):
        tell_doubts(feed[application.input.name], application.preprocess, warn)
    return application


def _inputs(
    job: _Job, model: ir.Model, calibration: Calibration | None
) -> tuple[Specs, dict[str, Array]]:
    """What a model takes, and calibration for it."""
    specs = specs_of(model, job.preprocess)
    if takes_image(model) and len(specs) == 1:
        images = images_of(image_input(model), calibration)
        images = stand_ins(model, job.preprocess) if images is None else images
        return specs, {specs[0].name: images}
    if takes_image(model) and not isinstance(calibration, Mapping):
        raise CutError("its calibration says nothing of tasks")
    return specs, feed_of(specs, calibration)


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
    job: _Job, model: ir.Model, specs: Specs, feed: dict[str, Array], check: Check
) -> Application:
    job.report("looking for what the core can run", 0.02)
    source, pieces = cut(model, check)
    job.report("running the model on the calibration images", 0.1)
    reads = {name for piece in pieces if piece.on_core for name in piece.reads}
    tensors = {**boundary(source, reads, as_typed(model, feed)), **feed}
    whole = {spec.name: spec.preprocess for spec in specs if isinstance(spec, ImageSpec)}
    parts: list[Part] = []
    judges: list[_Run] = []
    for number, piece in enumerate(pieces):
        start, step = 0.15 + 0.75 * number / len(pieces), 0.75 / len(pieces)

        def report(phrase: str, fraction: float, start: float = start, step: float = step) -> None:
            job.report(phrase, start + step * fraction)

        if piece.on_core:
            preprocess = whole.get(piece.reads[0]) if len(piece.reads) == 1 else None
            folder = None if job.keep is None else job.keep / f"part_{number}"
            own = replace(job, preprocess=preprocess, report=report, keep=folder)
            part, judge = _on_core(own, source, piece, tensors)
        else:
            part, judge = _on_host(source, piece)
            if job.keep is not None:
                (job.keep / f"part_{number}.onnx").write_bytes(part.model)
        parts.append(part)
        judges.append(judge)
    application = Application(
        model=job.path.stem, parts=tuple(parts), inputs=specs,
        outputs=tuple(value.name or "" for value in model.graph.outputs),
        metadata={"source": source_facts(job.path)},
    )
    if job.verify:
        job.report("comparing the parts with the model", 0.95)

        def run(given: Mapping[str, Array]) -> Mapping[str, Array]:
            known = dict(given)
            for judge in judges:
                known.update(judge(known))
            return known

        check_parts(model, run, feed, source.batch)
    return application


def _on_core(
    job: _Job, source: Source, piece: Piece, tensors: Mapping[str, Array]
) -> tuple[CorePart, _Run]:
    axes = tuple(source.axis(name) for name in piece.reads)
    given = {name: tensors[name] for name in piece.reads}
    maps = maps_of(source, given) if len(given) > 1 else {}
    gains, offsets = (tuple(each[i] for each in maps.values()) for i in (0, 1))
    images = as_image([*given.values()], axes, gains, offsets)
    model = core_model(source, piece.reads, piece.results, maps)
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
    part = CorePart(program=program, reads=piece.reads, axes=axes, gains=gains, offsets=offsets)
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
