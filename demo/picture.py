"""The demonstration's picture: pictures with their labels, and where the cycles went.

Of a board, which does not tell the cycles of its layers, the logits instead.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from vitrify.runtime.statistics import Statistics

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

#: Layers shown at most.
_LAYERS = 60
_BARS = "#3b7ea1"


def draw(
    path: Path,
    title: str,
    images: npt.NDArray[np.uint8],
    names: list[str],
    labels: dict[str, list[str]],
    statistics: Statistics,
) -> None:
    """Write a PNG: one tile a picture, one bar a layer (its share of the array's MACs)."""
    figure, grid = _tiles(images, names, labels)
    axes = figure.add_subplot(grid[1, :])
    layers = statistics.layers[:_LAYERS]
    axes.bar(range(len(layers)), [100 * (layer.utilisation or 0) for layer in layers],
             color=_BARS)
    axes.axhline(100 * (statistics.utilisation or 0), color="#c4820e",
                 label=f"whole image: {statistics.utilisation or 0:.1%}")
    axes.set(ylim=(0, 100), ylabel="utilisation / %", xlabel="layer", title=(
        f"{title} on {statistics.arch.name}: {(statistics.cycles or 0) // statistics.images:,} "
        f"cycles an image"
    ))
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.legend(loc="upper right")
    _write(figure, path)


def draw_logits(
    path: Path,
    title: str,
    images: npt.NDArray[np.uint8],
    names: list[str],
    labels: dict[str, list[str]],
    classes: tuple[str, ...],
    logits: npt.NDArray[np.floating],
) -> None:
    """Write a PNG: one tile a picture, and the logit of each class below it."""
    figure, grid = _tiles(images, names, labels)
    figure.suptitle(title)
    for i, row in enumerate(logits):
        axes = figure.add_subplot(grid[1, i])
        best = int(row.argmax())
        axes.barh(range(len(row)), row,
                  color=[_BARS if label == best else "#b9cdd8" for label in range(len(row))])
        axes.set_yticks(range(len(row)), classes if i == 0 else [""] * len(row))
        axes.set_xlim(float(logits.min()), float(logits.max()))
        axes.spines[["top", "right"]].set_visible(False)
        axes.invert_yaxis()
        axes.set_xlabel("logit")
    _write(figure, path)


def _tiles(
    images: npt.NDArray[np.uint8], names: list[str], labels: dict[str, list[str]]
) -> tuple[Figure, GridSpec]:
    """A figure with the pictures in its upper row, and its grid."""
    count = len(images)
    figure = plt.figure(figsize=(1.6 * count, 5), layout="constrained")
    grid = figure.add_gridspec(2, count, height_ratios=(1, 1.2))
    for i in range(count):
        axes = figure.add_subplot(grid[0, i])
        axes.imshow(images[i].squeeze(), cmap="gray_r" if images.shape[-1] == 1 else None)
        axes.set_title(f"{names[i]}\n→ {labels['RTL'][i]}", fontsize=9)
        axes.set_axis_off()
    return figure, grid


def _write(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)
