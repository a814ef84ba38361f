"""``vitrify routing``: which experts a data set asks for, layer by layer and task by task."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import InputError
from vitrify.program import Program
from vitrify.program.files import check_writable, write_atomic
from vitrify.runtime import open_model
from vitrify.runtime.backend import as_jobs
from vitrify.runtime.images import read_batch
from vitrify.runtime.routing import Route, Routing, expert_bytes, replay, routes, typical

from .models import known_preprocess, need_whole
from .options import add_json, add_preprocess, add_task, human_bytes, task_feed
from .terminal import new_table, print_json, progress_bar, say, show

#: Shades of a share, from none to twice an even one.
_SHADES = " ·▁▂▃▄▅▆▇█"


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "routing",
        help="count which experts the pictures of a data set ask for",
        description="Run pictures through the golden machine, with every task of the model, and "
        "count the tokens of each expert and the weights that are fetched for them.  `vitrify "
        "estimate --routing` takes the file.",
    )
    parser.add_argument("model", metavar="OUT.vfy", type=Path)
    parser.add_argument(
        "--data", required=True, nargs="+", type=Path, metavar="FILE|DIR",
        help="pictures, .npy or .npz files, or folders of them",
    )
    add_preprocess(parser)
    add_task(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.json", help="write the counts")
    parser.add_argument("--picture", type=Path, metavar="OUT.png", help="draw them (matplotlib)")
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    for path in (options.output, options.picture):
        check_writable(path, [options.model, *options.data])
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit must be at least 1, not {options.limit}")
    program = need_whole(open_model(options.model), "the routing")
    if not isinstance(program, Program):
        raise InputError(f"{str(program)!r} is a model: compile it first, routing is of programs")
    layers = routes(program)
    if not layers:
        raise InputError(f"program {program.model!r} has no experts")
    spec = program.input
    preprocess = known_preprocess(program, options.preprocess) or spec.preprocess
    images = read_batch(options.data, spec.name, spec.shape, preprocess)[: options.limit]
    found = _count(options, program, images)
    data = analyse(program, layers, found, len(images))
    text = json.dumps(data, indent=1) + "\n"
    if options.output is not None:
        write_atomic(options.output, text.encode())
    if options.picture is not None:
        _draw(options.picture, data)
    if options.json:
        print_json(data)
    else:
        _show(data)


def _count(
    options: argparse.Namespace, program: Program, images: npt.NDArray[Any]
) -> dict[str, list[Routing]]:
    """The routing of every job, by the tasks of its images."""
    names = [task.name for task in program.tasks]
    given = task_feed(options.task, names)
    choices = [
        sorted(set(given[task.name].tolist())) if task.name in given else range(task.count)
        for task in program.tasks
    ]
    found: dict[str, list[Routing]] = {}
    with progress_bar("routing") as bar:
        for numbers in itertools.product(*choices):
            feed = {name: np.array(n) for name, n in zip(names, numbers, strict=True)}
            regions, words, _ = as_jobs(program, images, feed)
            label = ", ".join(f"{name} {n}" for name, n in zip(names, numbers, strict=True))
            found[label or "all"] = replay(program, regions, words, bar)
    return found


def analyse(
    program: Program, layers: list[Route], found: dict[str, list[Routing]], images: int
) -> dict[str, Any]:
    """Shares of the tokens, experts in use and bytes fetched, as plain data.

    The share of an expert is that of the tokens' choices; used experts and bytes are means of all
    jobs.
    """
    every = [routing for part in found.values() for routing in part]
    table = []
    for number, layer in enumerate(layers):
        tasks = {}
        for label, part in found.items():
            counts = np.array([routing.counts[number] for routing in part])
            used = counts > 0
            tasks[label] = {
                "tokens": [int(n) for n in counts.sum(axis=0)],
                "share": [float(s) for s in counts.sum(axis=0) / counts.sum()],
                "used": float(used.sum(axis=1).mean()),
                "bytes": float((used * np.array(layer.stream_bytes)).sum(axis=1).mean()),
            }
        table.append({
            "name": layer.name, "rows": layer.rows, "experts": layer.experts,
            "choices": layer.choices, "all_bytes": sum(layer.stream_bytes), "tasks": tasks,
        })
    return {
        "model": program.model, "arch": program.arch.name, "images": images,
        "images_a_job": program.batch, "layers": table,
        "expert_bytes": float(np.mean([expert_bytes(routing, layers) for routing in every])),
        "all_expert_bytes": sum(sum(layer.stream_bytes) for layer in layers),
        "replay": typical(every, layers).to_dict(),
    }


def _show(data: dict[str, Any]) -> None:
    say(
        f"{data['model']} on {data['arch']}, {data['images']} pictures: "
        f"{human_bytes(data['expert_bytes'])} of {human_bytes(data['all_expert_bytes'])} of the "
        f"experts' weights are fetched for a job"
    )
    table = new_table(box=None)
    for heading in ("layer", "task"):
        table.add_column(heading, overflow="fold")
    for heading in ("used", "fetched"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("share of each expert, first to last (full: twice an even one)")
    for layer in data["layers"]:
        for label, part in layer["tasks"].items():
            table.add_row(
                layer["name"], label, f"{part['used']:.1f} of {layer['experts']}",
                human_bytes(part["bytes"]), "".join(map(_shade, _relative(layer, part))),
            )
    show(table)


def _relative(layer: dict[str, Any], part: dict[str, Any]) -> list[float]:
    """Shares as multiples of an even one."""
    return [share * layer["experts"] for share in part["share"]]


def _shade(share: float) -> str:
    top = len(_SHADES) - 1
    return _SHADES[0] if share == 0 else _SHADES[min(top, 1 + int(share / 2 * (top - 1)))]


def _draw(path: Path, data: dict[str, Any]) -> None:
    """A row a layer and task, a column an expert."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise InputError("--picture needs matplotlib: `pip install 'vitrify[plot]'`") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [
        (f"{layer['name']}  {label}", _relative(layer, part))
        for layer in data["layers"] for label, part in layer["tasks"].items()
    ]
    grid = np.full((len(rows), max(len(shares) for _, shares in rows)), np.nan)
    for row, (_, shares) in zip(grid, rows, strict=True):
        row[: len(shares)] = shares
    figure, axes = plt.subplots(figsize=(8, 0.3 * len(rows) + 1.6), layout="constrained")
    image = axes.imshow(grid, cmap="Blues", vmin=0, vmax=2, aspect="auto")
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_xlabel("expert")
    figure.colorbar(image, label="tokens, of an even share")
    figure.savefig(path, dpi=130, format="png")
    plt.close(figure)
