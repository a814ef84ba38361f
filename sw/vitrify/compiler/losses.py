"""What the integers lose against the floats: no fault, but no secret either."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.program import Program, formed
from vitrify.quant.evaluate import Evaluator
from vitrify.quant.graph import QuantGraph

from .validate import deviations, task_numbers, values_of

#: Signal-to-noise ratio in dB below which an output is mentioned.
LEAST = 20
#: Images that are compared at most, and multiplications that they may cost.
_IMAGES, _MACS = 32, 2e9


class LossWarning(UserWarning):
    """An output is far from what the model computes in floats."""


def losses(
    program: Program, graph: QuantGraph, canonical: ir.Model, images: npt.NDArray[np.float32]
) -> Iterator[str]:
    """A sentence for each output in real numbers whose integers are far from the floats."""
    specs = [spec for spec in program.outputs if np.dtype(spec.dtype).kind == "f"]
    if not specs:
        return
    one = max(1, program.macs // program.batch)
    chosen = images[: max(1, min(_IMAGES, int(_MACS / one)))]
    tasks = task_numbers(program, len(chosen))
    found = Evaluator(graph, program.arch).outputs(chosen, tasks)
    exact = values_of(canonical, chosen, tasks, [spec.name for spec in specs])
    for spec in specs:
        each = deviations(exact[spec.name], formed(spec, found[spec.name]))
        ratio = -10 * np.log10(max(1e-12, float(np.mean(each**2))))
        if ratio < LEAST:
            yield (
                f"output {spec.name!r} has {ratio:.0f} dB of signal-to-noise ratio against the "
                f"model in floats on {len(chosen)} calibration images: answers may differ"
            )
