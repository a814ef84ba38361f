"""The basis of residual streams, and of values, in which weights of four bits are rounded.

How much a rotation helps depends on the numbers that it happens to have, and some models are better
off without: several are tried, and what they leave of the results of calibration images decides.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.config import ArchConfig
from vitrify.ir.quantisers import quantisers_of
from vitrify.quant.calibrate import Progress
from vitrify.quant.graph import QuantGraph
from vitrify.quant.precision import Judge
from vitrify.quant.rotate import rotated
from vitrify.quant.wanted import NARROW, WIDE, Weights

from .quantise import Preprocess, part_of, quantise

#: Rotations that are tried, beside none.
_ROTATIONS = 3


def quantise_rotated(
    canonical: ir.Model, images: npt.NDArray[np.float32], *, arch: ArchConfig,
    preprocess: Preprocess | None, progress: Progress, weights: Weights, own_ranges: bool = False,
) -> tuple[ir.Model, QuantGraph]:
    """As :func:`~vitrify.compiler.quantise.quantise`, with the canonical model that it is made of.

    That is ``canonical``, or if weights may have four bits and no quantised model gives their
    steps, the same with its residual streams and values of heads rotated.
    """
    def made(
        model: ir.Model, wanted: Weights, start: float, stop: float,
        narrow: QuantGraph | None = None,
    ) -> QuantGraph:
        return quantise(
            model, images, arch=arch, preprocess=preprocess, weights=wanted, own_ranges=own_ranges,
            progress=part_of(progress, start, stop), narrow=narrow,
        )

    bases = [canonical]
    if weights.bits != WIDE and not quantisers_of(canonical):
        bases += [each for each in (rotated(canonical, seed) for seed in range(_ROTATIONS))
                  if each is not None]
    if len(bases) == 1:
        return canonical, made(canonical, weights, 0.0, 1.0)
    narrow, share = replace(weights, bits=NARROW, max_drop=None, budget_bytes=None), 1 / len(bases)
    share *= 1.0 if weights == narrow else 0.5
    graphs = [made(basis, narrow, number * share, (number + 1) * share)
              for number, basis in enumerate(bases)]
    noise = [Judge(basis, arch, images, graph.tasks).of(graph).noise
             for basis, graph in zip(bases, graphs, strict=True)]
    best = int(np.argmin(noise))
    graph = graphs[best]
    return bases[best], graph if weights == narrow else made(bases[best], weights, 0.5, 1.0, graph)
