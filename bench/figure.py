"""The benchmark's picture: utilisation and cycles of every measured core beside the records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from bench.records import RECORDS, VIT_TINY_CYCLES, VIT_TINY_WORK
from vitrify.arch.estimate import multipliers
from vitrify.arch.presets import preset

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

_COLOURS = ("#2f6f8f", "#6a8f3c", "#8a5a83", "#b5651d")
_RECORD = "#a83232"
_TEXT = "#333333"
#: The model that the records are about.
_TINY = "vit_tiny_imagenet"


def draw(path: Path, runs: list[dict[str, Any]]) -> None:
    """Two panels with a bar a run, a group a model; ``runs`` in the order of the rows."""
    models = list(dict.fromkeys(run["model"] for run in runs))
    places, at = [], 0.0
    for number, run in enumerate(runs):
        at += 0.0 if not number else 1.0 if run["model"] == runs[number - 1]["model"] else 1.7
        places.append(at)
    mpl.rcParams.update({"font.size": 9, "text.color": _TEXT, "axes.labelcolor": _TEXT})
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 0.36 * (at + 1) + 2.6), sharey=True, layout="constrained",
        width_ratios=(3, 2),
    )
    colours = [_COLOURS[models.index(run["model"]) % len(_COLOURS)] for run in runs]
    _utilisation(left, runs, places, colours)
    _cycles(right, runs, places, colours)
    left.set_yticks(places, [f"{r['arch']}  {r['array_macs']:>5} MACs" for r in runs])
    left.set_ylim(at + 0.8, -1.2)
    for model in models:
        first = next(p for p, run in zip(places, runs, strict=True) if run["model"] == model)
        left.annotate(
            model, (0, first - 0.55), xytext=(4, 0), textcoords="offset points", va="bottom",
            weight="bold", color=_COLOURS[models.index(model) % len(_COLOURS)],
        )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_axisbelow(True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _utilisation(
    axes: Axes, runs: list[dict[str, Any]], places: list[float], colours: list[str]
) -> None:
    """Share of the array; a dot where all multipliers of the core are counted."""
    values = [100 * run["utilisation"] for run in runs]
    axes.barh(places, values, height=0.72, color=colours)
    for value, place in zip(values, places, strict=True):
        axes.annotate(f"{value:.1f} %", (100, place), xytext=(6, 0), va="center",
                      textcoords="offset points", weight="bold")
    dots = [100 * _of_all(run) for run in runs]
    axes.scatter(dots, places, marker="D", s=18, color="white", edgecolors=_TEXT, zorder=3)
    for number, record in enumerate(RECORDS, 1):
        axes.axvline(100 * record.utilisation, color=_RECORD, linewidth=1, zorder=2,
                     linestyle=":" if record.claimed else "--")
        axes.annotate(
            str(number), (100 * record.utilisation, 1), xycoords=("data", "axes fraction"),
            ha="center", va="bottom", color=_RECORD, weight="bold",
        )
    lines = ["◇  of all multipliers of the core: statistics, scaling and addresses too"]
    lines += [
        f"{number}  {'claimed ' if r.claimed else ''}{100 * r.utilisation:.4g} %: {r.work}; "
        f"{r.model} ({r.source})"
        for number, r in enumerate(RECORDS, 1)
    ]
    axes.set_xlabel("multiplications done, % of those that the array offers\n\n"
                    + "\n".join(lines), loc="left")
    axes.set_xlim(0, 100)


def _of_all(run: dict[str, Any]) -> float:
    """Utilisation of every multiplier of the core, as the records count."""
    arch = preset(run["arch"])
    products = 2 if arch.packing else 1
    return run["macs"] / run["cycles"] / (products * sum(multipliers(arch).values()))


def _cycles(
    axes: Axes, runs: list[dict[str, Any]], places: list[float], colours: list[str]
) -> None:
    """Cycles of an image, and the time that they take at the preset's clock."""
    cycles = [run["cycles"] for run in runs]
    axes.barh(places, cycles, height=0.72, color=colours)
    for run, place in zip(runs, places, strict=True):
        milliseconds = run["cycles"] / run["clock_mhz"] / 1e3
        axes.annotate(
            f"{run['cycles']:,}  ·  {milliseconds:.3g} ms at {run['clock_mhz']:g} MHz",
            (run["cycles"], place), xytext=(5, 0), textcoords="offset points", va="center",
            zorder=4, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    tiny = [p for p, run in zip(places, runs, strict=True) if run["model"] == _TINY]
    if tiny:
        axes.plot([VIT_TINY_CYCLES] * 2, [min(tiny) - 0.5, max(tiny) + 0.5], color=_RECORD,
                  linestyle="--", linewidth=1)
        axes.annotate(
            f"{VIT_TINY_WORK}: {VIT_TINY_CYCLES:,.0f}", (VIT_TINY_CYCLES, min(tiny) - 0.5),
            ha="center", va="bottom", color=_RECORD, fontsize=8,
        )
    axes.set_xscale("log")
    low = 10 ** np.floor(np.log10(min(cycles)))
    axes.set_xlim(low, max(cycles) * 200)
    axes.set_xticks([10.0**e for e in range(int(np.log10(low)), int(np.log10(max(cycles))) + 1)])
    axes.minorticks_off()
    axes.set_xlabel("cycles of an image, loads and stores included")


def draw_ablation(
    path: Path, found: dict[str, Any], published: tuple[tuple[str, float], ...]
) -> None:
    """Milliseconds without each technique, a panel a core; Edge-MoE's own steps beside them."""
    cores = found["cores"]
    figure, panels = plt.subplots(
        1, len(cores) + 1, figsize=(16, 3), layout="constrained"
    )
    for axes, colour, (name, core) in zip(panels, _COLOURS, cores.items(), strict=False):
        cycles, scale = core["cycles"], core["clock_mhz"] * 1e3
        _bars(axes, colour, {
            variant.replace("without", "–"): count / scale for variant, count in cycles.items()
        })
        axes.set_title(f"{name}, estimated", loc="left")
    _bars(panels[-1], _RECORD, {
        name if not number else f"+ {name}": value
        for number, (name, value) in enumerate(published)
    })
    panels[-1].set_title("Edge-MoE, published, step by step", loc="left")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _bars(axes: Axes, colour: str, values: dict[str, float]) -> None:
    places, least = list(range(len(values))), min(values.values())
    axes.barh(places, list(values.values()), height=0.7, color=colour)
    for place, value in zip(places, values.values(), strict=True):
        axes.annotate(f"{value:.3g} ms  ·  {value / least:.2f}", (value, place), xytext=(4, 0),
                      textcoords="offset points", va="center")
    axes.set_yticks(places, list(values))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.7 * max(values.values()))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("ms a picture  ·  times the fastest")
