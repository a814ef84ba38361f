"""A compilation proves itself, on a few calibration images.

Two comparisons stand for the two ways to be wrong: the canonical graph against the model as it was
given, both in ONNX Runtime, and the program on the golden machine against the integer graph.  What
lies between them, the quantisation, is a loss and no fault (:mod:`vitrify.compiler.losses`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx.reference import ReferenceEvaluator

from vitrify.arch.errors import ModelError, VitrifyError
from vitrify.arch.isa import Instruction
from vitrify.arch.quantised import is_quantised
from vitrify.codegen.placement import Spread
from vitrify.golden.machine import Machine
from vitrify.ir import Evaluator as FloatEvaluator
from vitrify.ir import shape_of
from vitrify.program import Program, formed, pack_input, registers, unpack_output
from vitrify.quant.calibrate import feeds
from vitrify.quant.evaluate import Evaluator
from vitrify.quant.graph import QuantGraph

from .inputs import as_given
from .unread import leave_out

Array = npt.NDArray[Any]
Images = npt.NDArray[np.float32]

#: Images that the model itself runs on.
IMAGES = 4
#: Root mean square of a deviation, relative to that of the tensor: float32 in another order.
TOLERANCE = 2e-3
#: Of models with narrower floats.
HALF_TOLERANCE = 3e-2
#: Floats of so many bits are codes of a quantiser.
_CODE_BITS = 8
#: Of models with quantised operators: the canonical graph keeps their functions, not their steps.
QUANTISED_TOLERANCE = 0.25


class VerificationError(VitrifyError):
    """What came out of a compilation is not what went in: a fault of the compiler."""


#: What to do about a fault of the compiler.
WAY_OUT = (
    "This is a fault of the compiler; please report it with the model (`--no-verify` writes the "
    "program all the same)"
)


# The model ---------------------------------------------------------------------------------
def check_canonical(
    model: ir.Model, canonical: ir.Model, images: Images, tasks: Mapping[str, int]
) -> None:
    """Compare the canonical graph with the model that was given.

    Parameters
    ----------
    model, canonical : before and after :func:`vitrify.frontend.canonicalise`
    images : float32 ``[N, C, H, W]``; a few of them are taken
    tasks : number of tasks by the input that chooses

    Raises
    ------
    VerificationError
        Names the output that deviates, and the first tensor that the model does not have.
    """
    given = as_given(model, images[:IMAGES])
    numbers = {name: np.arange(1, 1 + len(given)) % count for name, count in tasks.items()}
    names = _comparable(model)
    machine = _executable(model, names)
    if machine is None:
        return  # operators of other tools, types that ONNX Runtime has no kernels for
    exact = _original(model, given, numbers, names, machine)
    found = values_of(canonical, given.astype(np.float32), numbers, names)
    tolerance = tolerance_of(model)
    experts = any(node.op_type in ("Experts", "RoutedHeads", "BalancedHeads")
                  for node in canonical.graph)
    for name in names:
        check_shapes(name, exact[name], found[name])
        check_finite(name, exact[name])
        each = deviations(exact[name], found[name])
        # Logits that are all but equal may choose another expert: not for every image.
        deviation = float(np.median(each) if experts else each.max())
        if not deviation <= tolerance:
            _check_alone(model, name, exact[name], given, numbers)
            first = _first_unknown(model, canonical, given, numbers, tolerance)
            where = f", first in tensor {first!r}" if first else ""
            raise VerificationError(
                f"output {name!r} of what was made of the model deviates from it by "
                f"{100 * deviation:.2g} % on calibration images{where}. {WAY_OUT}"
            )


def check_shapes(name: str, exact: Array, found: Array) -> None:
    """Refuse an output of another shape."""
    if exact.shape[1:] == found.shape[1:] and len(exact) < len(found):
        raise ModelError(
            f"output {name!r} has {len(exact)} of {len(found)} images: the model picks from its "
            f"batch, or a size of it is written into it, and a program gives an answer for each "
            f"image; export the model without that, or for one image"
        )
    if exact.shape != found.shape:
        raise VerificationError(
            f"output {name!r} has the shape {list(exact.shape)} in the model and "
            f"{list(found.shape)} in what was made of it. {WAY_OUT}"
        )


def _check_alone(
    model: ir.Model, name: str, exact: Array, images: Array, numbers: Mapping[str, Array]
) -> None:
    """Refuse a model whose answer for an image depends on those beside it.

    Raises
    ------
    ModelError
        Naming the output.
    """
    if _at_once(model, len(images)) != len(images):
        return
    alone = [
        _original(model, images[[i]], {n: v[[i]] for n, v in numbers.items()}, [name])[name]
        for i in range(len(images))
    ]
    if deviations(exact, np.concatenate(alone)).max() > tolerance_of(model):
        raise ModelError(
            f"output {name!r} of several images at once is not what the model gives for each: it "
            f"computes something over its batch, and a program gives an answer for each image; "
            f"export the model for one image"
        )


def check_finite(name: str, exact: Array) -> None:
    """Refuse a model that gives no numbers itself."""
    bad = np.count_nonzero(~np.isfinite(exact)) if exact.dtype.kind == "f" else 0
    if bad:
        raise ModelError(
            f"output {name!r} of the model holds {bad} values of {exact.size} that are NaN or "
            f"infinite on calibration images: a function overflows in it, or the images are not "
            f"normalised as it wants them"
        )


def _executable(model: ir.Model, names: list[str]) -> FloatEvaluator | None:
    """The model in ONNX Runtime, if that can load it at all."""
    try:
        return FloatEvaluator(model, names)
    except Exception as error:
        if not of_onnx_runtime(error):
            raise
        return None


def _comparable(model: ir.Model) -> list[str]:
    """Outputs in real numbers."""
    return [
        value.name or "" for value in model.graph.outputs
        if value.dtype is None or value.dtype.is_floating_point()
    ]


def tolerance_of(model: ir.Model) -> float:
    """How much an output in real numbers may deviate."""
    narrow = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    used = {v.dtype for node in model.graph for v in node.inputs if v is not None}
    casts = {ir.DataType(node.attributes["to"].as_int())
             for node in model.graph if node.op_type == "Cast"}
    if is_quantised(node.op_type for node in model.graph) or any(
        kind.is_floating_point() and kind.bitwidth <= _CODE_BITS for kind in casts
    ):
        return QUANTISED_TOLERANCE
    return HALF_TOLERANCE if used.intersection(narrow) else TOLERANCE


def _original(
    model: ir.Model, images: Array, numbers: Mapping[str, Array], names: list[str],
    machine: FloatEvaluator | None = None,
) -> dict[str, Array]:
    """:func:`values_of` for the model as it was given, which may contradict itself."""
    try:
        return values_of(model, images, numbers, names, machine)
    except Exception as error:
        if not of_onnx_runtime(error):
            raise
        try:
            # what its kernels do not take, such as a mask that broadcasts, may be right
            return values_of(model, images, numbers, names, _Reference(model, names))
        except Exception:
            reason = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
            reason = reason[:500].strip()
        raise ModelError(
            f"ONNX Runtime cannot run the model on {len(images)} images, with which the program is "
            f"compared ({reason}); export it again, or compile with --no-verify"
        ) from error


def of_onnx_runtime(error: Exception) -> bool:
    """Whether ONNX Runtime raised it: its exceptions share no base; others are faults of ours."""
    return type(error).__module__.startswith("onnxruntime")


class _Reference:
    """The reference implementation of ONNX, slow and without limits of its own."""

    def __init__(self, model: ir.Model, outputs: list[str]) -> None:
        self._machine = ReferenceEvaluator(ir.to_proto(model))
        self._outputs = outputs

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Run once."""
        results = self._machine.run(self._outputs, dict(arrays))
        return dict(zip(self._outputs, results, strict=True))  # type: ignore[arg-type]


def values_of(
    model: ir.Model, images: Array, numbers: Mapping[str, Array], names: list[str],
    machine: FloatEvaluator | _Reference | None = None,
) -> dict[str, Array]:
    """Outputs of ``images``, each with its task numbers, in as many runs as the model needs."""
    evaluator, step = machine or FloatEvaluator(model, names), _at_once(model, len(images))
    parts = []
    for start in range(0, len(images), step):
        # The last batch is filled up with images from the front.
        piece = np.arange(start, start + step) % len(images)
        parts.append(
            evaluator.run(feeds(model, images[piece], {n: v[piece] for n, v in numbers.items()}))
        )
    return {
        name: np.concatenate([np.atleast_1d(part[name]) for part in parts])[: len(images)]
        for name in names
    }


def _at_once(model: ir.Model, count: int) -> int:
    """Images of one run: as many as the model is fixed to, one where all share a task."""
    for value in model.graph.inputs:
        shape = shape_of(value)
        if not shape:
            return 1
        if isinstance(shape[0], int):
            return shape[0]
    return count


def deviations(exact: Array, found: Array) -> npt.NDArray[np.float64]:
    """Of each image, the root mean square of the difference relative to the batch's tensor."""
    exact, found = (x.reshape(len(x), -1).astype(np.float64) for x in (exact, found))
    scale = np.sqrt(np.mean(exact**2)) or 1.0
    return np.sqrt(np.mean((found - exact) ** 2, axis=1)) / scale


def _first_unknown(
    model: ir.Model, canonical: ir.Model, images: Array, numbers: Mapping[str, Array],
    tolerance: float,
) -> str:
    """The first tensor of the canonical graph with whose values the model has none.

    Tensors are matched by their values, whatever their order: names and layouts differ.  What has
    a match, or is made into something that has one, is right.
    """
    step = _at_once(model, 1)
    images = images[np.arange(step) % len(images)]
    numbers = {name: value[np.arange(step) % len(value)] for name, value in numbers.items()}
    typed = model.clone()
    passes.ShapeInferencePass()(typed)
    reals = [
        value.name for node in typed.graph for value in node.outputs
        if value.name and value.dtype is not None and value.dtype.is_floating_point()
    ]
    before = FloatEvaluator(typed, reals).run(feeds(model, images, numbers))
    known: dict[int, list[Array]] = {}
    for value in before.values():
        known.setdefault(value.size, []).append(np.sort(value, axis=None))
    after = FloatEvaluator(canonical).run(feeds(canonical, images.astype(np.float32), numbers))

    def matched(name: str) -> bool:
        mine = np.sort(after[name], axis=None)
        return any(
            float(deviations(other[None], mine[None])[0]) <= tolerance
            for other in known.get(mine.size, ())
        )

    right: set[str] = set()
    nodes = list(canonical.graph)
    for node in reversed(nodes):
        readers = [reader.outputs[0].name for reader in node.outputs[0].consumers()]
        if matched(node.outputs[0].name or "") or right & set(readers):
            right.add(node.outputs[0].name or "")
    names = [node.outputs[0].name or "" for node in nodes]
    return next((name for name in names if name not in right), "")


# The program -------------------------------------------------------------------------------
def check_program(program: Program, graph: QuantGraph, images: Images) -> None:
    """Compare a job of the program on golden with the integer graph, bit by bit.

    Parameters
    ----------
    images : float32 ``[N, C, H, W]``; as many are taken as the job has

    Raises
    ------
    VerificationError
        Names the first operation whose integers differ.
    """
    chosen = images[np.arange(program.batch) % len(images)]
    tasks = task_numbers(program, program.batch)
    numbers = np.array([*tasks.values()], np.int64).reshape(-1, program.batch).T
    expected = Evaluator(graph, program.arch).outputs(chosen, tasks)
    found = _outputs(program, chosen, numbers, None)
    for spec in program.outputs:
        wanted = formed(spec, expected[spec.name])
        if not np.array_equal(wanted, found[spec.name]):
            first = _first_other(program, graph, chosen, numbers, tasks)
            where = f", first those of {first!r}" if first else ""
            raise VerificationError(
                f"the program's integers for output {spec.name!r} are not those of the quantised "
                f"graph{where}. {WAY_OUT}"
            )


def task_numbers(program: Program, count: int) -> dict[str, npt.NDArray[np.int64]]:
    """Tasks in turn for ``count`` images, by the input that chooses."""
    return {task.name: np.arange(1, 1 + count) % task.count for task in program.tasks}


def _outputs(
    program: Program, images: Images, numbers: npt.NDArray[np.int64], observe: Any
) -> dict[str, Array]:
    regions = pack_input(program.arch, program.input, images)
    machine = Machine(program.arch)
    watch = None if observe is None else (lambda *step: observe(machine, *step))
    result = machine.run(
        program.image, program.instruction_count, regions.reshape(-1), program.output_bytes,
        watch, *registers(numbers, program.batch),
    ).reshape(program.batch, -1)
    return {spec.name: unpack_output(program.arch, spec, result) for spec in program.outputs}


def _first_other(
    program: Program, graph: QuantGraph, images: Images, numbers: npt.NDArray[np.int64],
    tasks: Mapping[str, Array],
) -> str:
    """The first operation of whose results a MATMUL writes other integers."""
    graph = leave_out(graph)
    expected = Evaluator(graph, program.arch).run(images, tasks=tasks)
    layers = {layer.instruction: layer for layer in program.layers}
    #: What is final of every operation: parts of attention and experts are not.
    written: dict[str, Array] = {}

    def observe(machine: Machine, number: int, op: Instruction, value: Array) -> None:
        layer = layers[number]
        name = re.sub(r"\.(values|weights|zeros)\[.*|\.fc2$", "", layer.name)
        if name not in expected or (op.expert_rows and not op.dst_list):
            return
        rows = np.arange(len(value))
        if op.dst_list:
            rows = machine.index[op.dst_list_base : op.dst_list_base + len(value)].astype(np.int64)
        whole = written.setdefault(name, np.zeros((_rows(expected[name]), 1 << 13), np.int64))
        channel = layer.tensor.first_channel + np.arange(value.shape[1])
        whole[(layer.tensor.first_row + rows)[:, None], channel] = value

    _outputs(program, images, numbers, observe)
    for op in graph.ops:
        if op.name not in written:
            continue
        value, made = expected[op.name], op.written(*expected[op.name].shape[:2])
        value = value.reshape(_rows(value), -1)[made]
        if not _same(written[op.name][made], value, program.arch.depth):
            return op.name
    return ""


def _rows(value: Array) -> int:
    return value.shape[0] * value.shape[1]


def _same(written: Array, value: Array, depth: int) -> bool:
    """Whether channels, spread over any number of heads, hold ``value``."""
    channels = value.shape[1]
    for heads in range(1, channels + 1):
        if channels % heads == 0:
            spread = Spread(channels, heads, depth)
            if spread.physical <= written.shape[1]:
                where = np.flatnonzero(spread.scatter(np.ones(channels, bool)))
                if np.array_equal(written[:, where], value):
                    return True
    return False
