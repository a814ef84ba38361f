"""Direct evaluation of the integer graph over the golden kernels, image batch by image batch.

Independent of compiler and machine: when the machine's tensors differ from these, the compiler is
at fault; when both differ from the RTL, a kernel is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig

from .evaluation import Evaluation, IntArray, Tasks
from .graph import QInput, QOp, QuantGraph

#: Images evaluated together: bounds the memory of the intermediate integers.
BATCH = 8


def quantise_input(spec: QInput, images: npt.NDArray[np.floating]) -> npt.NDArray[np.int8]:
    """Float images ``[N, C, H, W]`` to the int8 rows ``[N, rows, C*ph*pw]`` of the core."""
    top, left, bottom, right = spec.pads
    images = np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)))
    exact = images * spec.multiplier[:, None, None]
    exact += spec.offset[:, None, None]
    q = np.clip(np.rint(exact, out=exact), -128, 127, out=exact).astype(np.int8)
    high, wide = spec.strides or spec.patch
    windows = np.lib.stride_tricks.sliding_window_view(q, spec.patch, axis=(2, 3))
    patches = windows[:, :, ::high, ::wide].transpose(0, 2, 3, 1, 4, 5)
    rows = patches.reshape(len(q), -1, q.shape[1] * spec.patch[0] * spec.patch[1])
    return np.pad(rows, ((0, 0), (spec.prefix, 0), (0, 0)))


class Evaluator:
    """Runs a :class:`~vitrify.quant.graph.QuantGraph` with the integer kernels.

    Parameters
    ----------
    arch : only ``requant_bits`` enters the result
    """

    def __init__(self, graph: QuantGraph, arch: ArchConfig) -> None:
        self.graph = graph
        self.requant_bits = arch.requant_bits

    def run(
        self,
        images: npt.NDArray[np.floating],
        keep: Collection[str] | None = None,
        tasks: Tasks | None = None,
    ) -> dict[str, IntArray]:
        """Integers of every op's result (by op name), and of the input (by tensor name).

        Parameters
        ----------
        images : float ``[N, C, H, W]``, preprocessed
        keep : names wanted; all when ``None``
        tasks : of every image; task 0 without

        Returns
        -------
        Arrays ``[N, rows, channels]``.  An op that adds to a tensor gives the sum.
        """
        parts: dict[str, list[IntArray]] = {}
        for start in range(0, len(images), BATCH):
            some = slice(start, start + BATCH)
            chosen = {name: numbers[some] for name, numbers in (tasks or {}).items()}
            for name, value in self.steps(images[some], chosen):
                if keep is None or name in keep:
                    # Later additions happen out of place, so no copy is needed.
                    parts.setdefault(name, []).append(value)
        return {name: np.concatenate(values) for name, values in parts.items()}

    def outputs(
        self, images: npt.NDArray[np.floating], tasks: Tasks | None = None
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Real values ``[N, rows, channels]`` of the graph's outputs, by ONNX name."""
        last = {tensor: _key(op, tensor) for op in self.graph.ops for tensor in op.results()}
        wanted = {name: last[tensor] for name, tensor in self.graph.outputs.items()}
        result = self.run(images, set(wanted.values()), tasks)
        return {
            name: self.graph.tensors[self.graph.outputs[name]].dequantise(result[op])
            for name, op in wanted.items()
        }

    def begin(
        self, images: npt.NDArray[np.floating], tasks: Tasks | None = None
    ) -> Evaluation:
        """One batch before the first op: input and constants."""
        graph = self.graph
        run = Evaluation(graph.tensors, len(images), self.requant_bits, tasks or {})
        run.write(graph.input.out, quantise_input(graph.input, images))
        self.write_constants(run)
        return run

    def write_constants(self, run: Evaluation, start: int = 0) -> None:
        """Those of the graph from number ``start`` on, which may have come since."""
        for constant in self.graph.constants[start:]:
            run.write(constant.out, np.broadcast_to(
                constant.value, (run.images, *constant.value.shape)
            ))

    def results(self, run: Evaluation) -> dict[str, npt.NDArray[np.float64]]:
        """As :meth:`outputs`, of a batch behind the last op."""
        return {
            name: self.graph.tensors[tensor].dequantise(run.read(tensor))
            for name, tensor in self.graph.outputs.items()
        }

    def steps(
        self, images: npt.NDArray[np.floating], tasks: Tasks | None = None
    ) -> Iterator[tuple[str, IntArray]]:
        """One batch: ``(name, integers [N, rows, channels])`` op by op.

        An op with several results gives the first under its own name, the others under theirs.
        """
        graph = self.graph
        run = self.begin(images, tasks)
        yield graph.input.out, run.read(graph.input.out)
        for op in graph.ops:
            op.evaluate(run)
            for tensor in op.results():
                yield _key(op, tensor), run.read(tensor)


def _key(op: QOp, tensor: str) -> str:
    """The name under which a result of ``op`` is reported."""
    return op.name if tensor == op.out else tensor
