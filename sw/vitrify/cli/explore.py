"""``vitrify explore``: which core for these models on this part."""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError
from vitrify.arch.load import load as load_arch
from vitrify.explore import Design, Space, Study, explore, front, parse_budget, parse_sweep
from vitrify.program.files import check_writable, write_atomic

from .arch import check_new, write_arch
from .models import AUTO, known_preprocess, read_calibration, stages
from .options import add_calibration, add_json, add_preprocess
from .terminal import new_table, print_json, progress_bar, say, show

_LIMIT = 500
_TOLERANCE = 0.05


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "explore",
        help="search for the core that suits models and a part",
        description="Compile the models for many cores, estimate their cycles and resources, and "
        "show those that no other beats in both.  Cores that cannot be among them, because a "
        "smaller one is as fast as they could ever be, are not estimated.",
    )
    parser.add_argument("models", metavar="MODEL.onnx", type=Path, nargs="+")
    parser.add_argument("--part", required=True, metavar="BOARD|PART", help="for which FPGA")
    parser.add_argument(
        "--budget", action="append", default=[], metavar="KIND=SHARE[,…]",
        help="what of the part the core may take: lut, ff, dsp, bram, uram (default: all)",
    )
    parser.add_argument(
        "--sweep", action="append", default=[], metavar="SETTING=VALUE,…",
        help="values of a setting, in place of the usual ones of depth, width, lanes, max_rows, "
        "banks, bank_words and ports; any other setting may vary, too",
    )
    parser.add_argument(
        "--base", metavar="PRESET|FILE.yaml",
        help="what does not vary (default: the board's preset)",
    )
    parser.add_argument(
        "--tolerance", type=float, default=_TOLERANCE, metavar="SHARE",
        help="do not estimate what could be faster than a smaller core by this share only "
        f"(default: {_TOLERANCE:g}; 0: the exact front)",
    )
    parser.add_argument(
        "--limit", type=int, default=_LIMIT, metavar="N",
        help=f"designs at most, a random choice of all that fit (default: {_LIMIT})",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of that choice")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: as processors)")
    parser.add_argument(
        "--study", type=Path, metavar="FILE.sqlite", help="keep results there, and go on from them"
    )
    add_calibration(
        parser, "calibration images (default: noise, which hardly ever changes cycles)"
    )
    add_preprocess(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.yaml",
        help="write the fastest, for `vitrify emit --arch` and `vitrify compile --arch`",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.svg|FILE.png", help="draw time against share of the part"
    )
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    names = _names(options.models)
    for option, value in (("--limit", options.limit), ("--jobs", options.jobs)):
        if value is not None and value < 1:
            raise InputError(f"{option} must be at least 1, not {value}")
    if not 0 <= options.tolerance < 1:
        raise InputError(f"--tolerance must be 0 to 1, not {options.tolerance:g}")
    if options.output is not None:
        check_new(options.output)
    for path in (options.plot, options.study):
        check_writable(path, [*options.models, options.calib])
    if options.plot is not None:
        if options.plot.suffix not in (".svg", ".png"):
            raise InputError(f"--plot ends in .svg or .png, not {options.plot.name!r}")
        # Before the work: it may not be installed.
        from vitrify.explore.plot import draw
    budget = parse_budget(options.budget)
    base = load_arch(options.base) if options.base else None
    space = Space.of(options.part, base, parse_sweep(options.sweep))
    archs = space.designs(budget, options.limit, options.seed)
    if not archs:
        raise InputError(
            f"no core of these settings fits the budget on {space.board.part.name}; sweep smaller "
            f"values or allow more"
        )
    about = {
        f"model {name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
    } | {"calibration": str(options.calib), "preprocess": str(options.preprocess)}
    with (
        Study(options.study, about) as study,
        progress_bar(f"exploring {space.board.name}") as bar,
    ):
        models = {name: _quantiser(path, options) for name, path in names.items()}
        designs = explore(
            archs, models, study, jobs=options.jobs, tolerance=options.tolerance, progress=bar
        )
    best = front(designs)
    if not best:
        raise InputError(f"no core of these settings takes the models: {designs[0].note}")
    if options.output is not None:
        write_arch(options.output, best[0].arch, space.board.name)
    if options.plot is not None:
        write_atomic(options.plot, draw(designs, space.board, options.plot.suffix.lstrip(".")))
    if options.json:
        print_json({
            "part": space.board.part.name, "budget": budget,
            "front": [design.arch.name for design in best],
            "designs": [design.to_dict() for design in designs],
        })
        return
    _show(designs, best, options)


def _names(models: Sequence[Path]) -> dict[str, Path]:
    """Models by the names of their files."""
    found: dict[str, Path] = {}
    for path in models:
        if not path.is_file():
            raise InputError(f"there is no model {str(path)!r}")
        if path.stem in found:
            raise InputError(f"two models are called {path.stem!r}")
        found[path.stem] = path
    return found


def _quantiser(path: Path, options: argparse.Namespace) -> Callable[[ArchConfig], Any]:
    """What makes integers of a model."""
    preprocess = options.preprocess
    if preprocess == AUTO:
        preprocess = known_preprocess(path, AUTO)
    calibration = read_calibration(path, options.calib, preprocess)

    def quantise(arch: ArchConfig) -> Any:
        from vitrify.compiler.driver import quantise_model

        with progress_bar(f"quantising {path.name}") as bar:
            return quantise_model(
                path, arch, calibration, preprocess=preprocess, progress=stages(bar)
            )[1]

    return quantise


def _show(designs: list[Design], best: list[Design], options: argparse.Namespace) -> None:
    count = Counter(design.status for design in designs)
    say(f"{len(designs)} designs: {count['estimated']} estimated, {count['dominated']} left out "
        f"because smaller ones are as fast, {count['refused']} that the models do not fit")
    several = len(best[0].cycles) > 1
    table = new_table(box=None)
    table.add_column("design", overflow="fold")
    for heading in ("K x C", "lanes", "ms", *(best[0].cycles if several else ()), "cycles",
                    "of the part"):
        table.add_column(heading, justify="right", no_wrap=True)
    for design in best:
        arch = design.arch
        table.add_row(
            arch.name, f"{arch.depth} x {arch.width}", str(arch.lanes),
            f"{design.milliseconds:.3f}",
            *(f"{cycles:,}" for cycles in (design.cycles.values() if several else ())),
            f"{sum(design.cycles.values()):,}", f"{design.share:.1%}",
        )
    show(table)
    if options.output is not None:
        say(f"{options.output}: {best[0].arch.name}, the fastest")
