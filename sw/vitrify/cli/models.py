"""What commands do with a model file: find its input, read pictures for it, compile it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError
from vitrify.program import Application, Program, preprocess
from vitrify.runtime.arrays import read_arrays
from vitrify.runtime.images import read_floats
from vitrify.runtime.known_preprocess import find

from .terminal import Bar, new_table, progress_bar, remark, show

#: ``--preprocess auto``.
AUTO = "auto"
Shape = tuple[int, int, int]
#: Of ``--input-shape``: of the image, or of inputs by their names.
Sizes = tuple[int, ...] | dict[str, tuple[int, ...]]

#: Images of noise where nobody cares what the model says.
_NOISE_IMAGES = 2


def image_input(model: Path, size: Sizes | None = None) -> tuple[str, Shape]:
    """Name and shape ``(C, H, W)`` of a model's input."""
    from vitrify.frontend import load

    return _image_of(load(model, size))


def _image_of(model: Any) -> tuple[str, Shape]:
    """As :func:`image_input`, of a model that is loaded."""
    from vitrify.frontend import image_input as of_model
    from vitrify.ir import shape_of

    image = of_model(model)
    c, h, w = (int(size) for size in shape_of(image)[1:])
    return image.name or "", (c, h, w)


def read_calibration(
    model: Path, images: Path | None, preprocess: str | None, size: Sizes | None = None
) -> npt.NDArray[np.float32]:
    """Calibration images of a model; noise without ``images``."""
    from vitrify.compiler.driver import of_model
    from vitrify.frontend import load

    loaded = load(model, size)
    name, shape = _image_of(loaded)
    if images is None:
        noise = np.random.default_rng(0).normal(size=(_NOISE_IMAGES, *shape))
        return noise.astype(np.float32)
    return read_floats([images], name, shape, of_model(loaded, preprocess))


def read_samples(
    model: Path, file: Path, preprocess: str | None, size: Sizes | None = None
) -> npt.NDArray[np.float32] | dict[str, npt.NDArray[Any]]:
    """As :func:`read_calibration`; of a model with other inputs an array for each."""
    from vitrify.frontend import load, model_inputs, takes_image

    loaded = load(model, size, any_inputs=True)
    if takes_image(loaded):
        return read_calibration(model, file, preprocess, size)
    return read_arrays([str(file)], [value.name or "" for value in model_inputs(loaded)])


def known_preprocess(model: Path | Program | Application, given: str | None) -> str | None:
    """The specification for ``--preprocess``; remarks on stderr what is known and what is not.

    ``auto`` is what a program has stored, or what comes with a model.

    Raises
    ------
    InputError
        If nothing is known and ``auto`` is asked for, or the specification is wrong.
    """
    if not isinstance(model, Path):
        return None if given == AUTO else given
    if given is not None and given != AUTO:
        preprocess.parse(given)
    try:
        known = find(model)
    except InputError:
        if given == AUTO:
            raise
        known = None
    if given == AUTO:
        if known is None:
            raise InputError(
                f"nothing says how pictures become the input of {str(model)!r}: no metadata in it, "
                f"no preprocessor_config.json and no config.json of timm beside it; give "
                f"--preprocess with settings, imagenet or augreg"
            )
        remark(f"preprocessing of {known.source}: {known.spec}")
        return known.spec
    if known is not None and given is not None:
        if preprocess.parse(given) != preprocess.parse(known.spec):
            remark(
                f"warning: --preprocess {given} is not what {known.source} says: {known.spec} "
                f"(--preprocess auto takes that)"
            )
    elif given is not None and given.strip() == "imagenet":
        remark(
            "warning: nothing that comes with the model confirms --preprocess imagenet; "
            "torchvision's models and DeiT take it, most other ViTs take augreg, and a wrong one "
            "costs tens of points"
        )
    return given


def remark_on_pictures(model: Path, stored: str | None) -> None:
    """Say on stderr that a program without a specification takes no pictures."""
    if stored is not None:
        return
    try:
        known = find(model)
    except InputError:
        known = None
    way = "" if known is None else f"; {known.source} says {known.spec} (--preprocess auto)"
    remark(f"note: compiled without --preprocess, the program takes floats and no pictures{way}")


def stages(bar: Bar) -> Callable[[str, float], None]:
    """A compiler's progress as a bar."""

    def report(phrase: str, fraction: float) -> None:
        bar.say(phrase)
        bar(round(100 * fraction), 100)

    return report


def compile_shown(
    model: Path, arch: ArchConfig,
    calibration: npt.NDArray[np.float32] | Mapping[str, npt.NDArray[Any]] | None,
    preprocess: str | None = None, keep: Path | None = None, batch: int = 1, *,
    verify: bool = True, warn: bool = True, weights: Any = None, size: Sizes | None = None,
    inspect: Callable[[Any, Any], None] | None = None,
) -> Program:
    """Compile behind a progress bar; then say what looks wrong with the images, if they matter.

    ``weights`` is that of :func:`~vitrify.cli.options.weights_of`; 8 bits without.
    """
    from vitrify.compiler import compile_model

    with _shown(model, warn=warn, weights=weights) as shown:
        return compile_model(
            model, arch, calibration, preprocess=preprocess, keep=keep, batch=batch, verify=verify,
            inspect=inspect, size=size, **shown,
        )


def compile_parts_shown(
    model: Path, arch: ArchConfig,
    calibration: npt.NDArray[np.float32] | Mapping[str, npt.NDArray[Any]] | None,
    preprocess: str | None = None, keep: Path | None = None, batch: int = 1, *,
    verify: bool = True, weights: Any = None, size: Sizes | None = None,
) -> Program | Application:
    """As :func:`compile_shown`; what the core refuses goes to the host."""
    from vitrify.compiler import compile_application

    with _shown(model, warn=True, weights=weights) as shown:
        return compile_application(
            model, arch, calibration, preprocess=preprocess, keep=keep, batch=batch, verify=verify,
            size=size, **shown,
        )


@contextlib.contextmanager
def _shown(model: Path, *, warn: bool, weights: Any) -> Iterator[dict[str, Any]]:
    """What a compiler tells its progress and its doubts; the latter come when it has ended well."""
    from vitrify.quant.wanted import EIGHT

    doubts: list[str] = []
    with progress_bar(f"compiling {model.name}") as bar:
        yield {"progress": stages(bar), "warn": doubts.append, "weights": weights or EIGHT}
    for doubt in doubts if warn else ():
        print(f"vitrify: warning: {doubt}", file=sys.stderr)


def need_whole(model: Program | Application | Path, what: str) -> Program | Path:
    """``model``, unless it is an application in parts, of which ``what`` is not known."""
    if isinstance(model, Application):
        raise InputError(
            f"{model.model!r} is an application in parts: {what} is known of programs only; "
            f"export the model without what the host runs, which `vitrify info` lists"
        )
    return model


def show_precision(points: Sequence[Mapping[str, Any]]) -> None:
    """The table of what weights of four bits in more and more layers cost; ``*``: what was taken.

    ``points`` are those that the compiler has put into a program.
    """
    table = new_table(box=None)
    for heading in ("layers of 4 bits", "bits", "bytes", "divergence", "points lost"):
        table.add_column(heading, justify="right")
    for p in points:
        table.add_row(
            f"{p['layers']}{' *' if p['chosen'] else '  '}", f"{p['bits']:.2f}",
            f"{p['bytes']:,}", f"{p['divergence']:.4f}",
            "" if p["drop"] is None else f"{p['drop']:.2f}",
        )
    show(table)


def kept(facts: Mapping[str, Any]) -> str:
    """How many formats of a quantised model its program has."""
    every = facts["kept"] + len(facts["changed"]) + facts["left_out"]
    return f"{facts['kept']} of {every} formats of the quantised model are kept"
