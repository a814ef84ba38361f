"""The benchmark's picture: utilisation of every measured core beside published records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

#: Published utilisation of the multipliers for a tiny ViT at batch 1, and where it is from.
RECORDS = (
    (0.405, "Huang et al., TCAS-I 2023 (ViT-T, verified)"),
    (0.90, "ViTA, 2023 (claimed)"),
)


def draw(path: Path, runs: list[dict[str, Any]]) -> None:
    """One bar a run, one line a record."""
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(runs) + 1.5), layout="constrained")
    names = [f"{r['model']} on {r['arch']} ({r['array_macs']} MACs)" for r in runs]
    values = [100 * r["utilisation"] for r in runs]
    bars = axes.barh(names, values, color="#3b7ea1")
    axes.bar_label(bars, [f"{v:.1f} %" for v in values], padding=3)
    for value, label in RECORDS:
        axes.axvline(100 * value, color="#c4820e", linestyle="--", linewidth=1)
        axes.annotate(label, (100 * value, 1.0), xycoords=("data", "axes fraction"), fontsize=8,
                      rotation=0, ha="right", va="bottom")
    axes.set(xlim=(0, 108), xlabel="multiply-accumulates done / offered, %")
    axes.invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)
