"""Which roundings of a quantised file make its result, and what the program has instead of them.

ONNX Runtime runs the file (static QDQ, 8 bits, weights per tensor) without one kind of rounding at
a time, and is compared with itself on the file as it is; so is the program, with the formats of the
file and with its own.  All of them, and the float model, are judged by the labels of the pictures.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from bench.cases import Case, Float32, Labels
from bench.measure import RESULTS, machine
from bench.quantised_models import VARIANTS, quantise_file
from vitrify.arch.presets import preset
from vitrify.compiler.means import with_means_of
from vitrify.compiler.quantise import quantise
from vitrify.frontend import canonicalise, load, rounded
from vitrify.ir.quantisers import QUANTISERS
from vitrify.ir.run import Evaluator as FloatEvaluator
from vitrify.program import preprocess
from vitrify.quant.evaluate import Evaluator

#: Pictures that calibrate the program; twice as many calibrate the file.
CALIBRATION = 64
#: Where the results are, by the model.
FOLDER = RESULTS / "quantised" / "study"
_AT_ONCE = 50
WEIGHTS, INPUT = "weights", "input"
#: Kinds whose roundings no choice of formats puts in their places on the core.
ELSEWHERE = ("LayerNormalization", "Softmax")

Array = np.ndarray


def logits(judge: FloatEvaluator, images: Array, tasks: int) -> Array:
    """Logits ``[N, C]`` by ONNX Runtime, of task 0."""
    parts = []
    for at in range(0, len(images), _AT_ONCE):
        some = images[at : at + _AT_ONCE]
        feed = {"image": some}
        if tasks > 1:
            feed["task"] = np.zeros(len(some), np.int64)
        parts.append(judge.run(feed)["logits"])
    return np.concatenate(parts).astype(np.float64)


def decibel(wanted: Array, found: Array) -> float | None:
    """Signal-to-noise ratio; ``None`` where both are equal."""
    noise = np.sum((wanted - found) ** 2)
    return float(10 * np.log10(np.sum(wanted**2) / noise)) if noise else None


def same_labels(wanted: Array, found: Array) -> float:
    """Pictures with the same largest logit, in percent."""
    return 100 * float(np.mean(wanted.argmax(1) == found.argmax(1)))


def kinds(file: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """The dequantisers of a QDQ file by what makes the tensor before them.

    The operator, the input, or weights and biases.
    """
    makers = {name: node for node in file.graph.node for name in node.output}
    inputs = {value.name for value in file.graph.input}
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in file.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        quantiser = makers.get(node.input[0])
        source = quantiser.input[0] if quantiser is not None else ""
        maker = makers.get(source)
        kind = WEIGHTS if quantiser is None else maker.op_type if maker is not None else (
            INPUT if source in inputs else WEIGHTS)
        found.setdefault(kind, []).append(node)
    return found


def without(file: onnx.ModelProto, parent: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    """A copy of ``file`` in which one kind of tensors is not rounded; weights are the parent's."""
    made = onnx.ModelProto()
    made.CopyFrom(file)
    stored = {tensor.name: tensor for tensor in parent.graph.initializer}
    present = {tensor.name for tensor in made.graph.initializer}
    makers = {name: node for node in made.graph.node for name in node.output}
    gone = {node.name for node in kinds(made)[kind]}
    for node in made.graph.node:
        if node.name not in gone:
            continue
        quantiser = makers.get(node.input[0])
        if quantiser is not None:
            source = quantiser.input[0]
        else:
            weight = stored[node.input[0].removesuffix("_quantized")]
            source = f"{weight.name}.float"
            if source not in present:
                made.graph.initializer.append(weight)
                made.graph.initializer[-1].name = source
                present.add(source)
        node.op_type = "Identity"
        node.input[:] = [source]
        del node.attribute[:]
    return made


def study(case: Case, images: Float32, labels: Labels) -> dict[str, Any]:
    """Of one model: the file without each kind of rounding, the program, and top-1 of all."""
    calibration, tasks = case.calibration(), 1 + len(case.more_tasks)
    parent = onnx.load(case.model)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder) / "model.onnx", Path(folder) / "other.onnx"
        quantise_file(case.model, path, VARIANTS[0], calibration[: 2 * CALIBRATION], tasks)
        file = onnx.load(path)

        def run(model: Path) -> Array:
            return logits(FloatEvaluator(load(model), ["logits"]), images, tasks)

        whole, floats = run(path), run(case.model)

        def add(what: str, found: Array, **more: Any) -> None:
            rows.append({
                "what": what, **more, "snr": decibel(whole, found),
                "labels": same_labels(whole, found), "snr_float": decibel(floats, found),
                "top1": 100 * float(np.mean(found.argmax(1) == labels)),
            })  # fmt: skip

        add("float model", floats)
        add("file", whole)
        roundings, stripped = kinds(file), file
        for kind in sorted(roundings):
            onnx.save(without(file, parent, kind), other)
            add(f"file without {kind}", run(other), tensors=len(roundings[kind]))
            if kind != WEIGHTS:
                stripped = without(stripped, parent, kind)
        few = file
        for kind in ELSEWHERE:
            few = without(few, parent, kind)
        onnx.save(few, other)
        add(f"file without {' and '.join(ELSEWHERE)}", run(other))
        onnx.save(stripped, other)
        add("file with its weights alone rounded", run(other))
        program = _program(case, path, images)
        add("program", program(_all))
        add("program, no --preprocess", program(_all, pixels=False))
        add("program, means of its own", program(_all, means=False))
        for name, kept in KEPT.items():
            add(f"program, formats of {name} alone kept", program(kept))
        add("program with formats of its own", program(_none))
    return {"model": case.name, "arch": case.presets[-1], "images": len(images),
            "file": VARIANTS[0].name, "rows": rows, "machine": machine()}


def _all(_tensor: ir.Value | None) -> bool:
    return True


def _none(_tensor: ir.Value | None) -> bool:
    return False


def _read_by(op_type: str) -> Callable[[ir.Value | None], bool]:
    return lambda tensor: tensor is not None and any(
        use.node.op_type == op_type for use in tensor.uses()
    )


def _of_activations(tensor: ir.Value | None) -> bool:
    maker = None if tensor is None else tensor.producer()
    return maker is not None and maker.op_type == "Activation"


#: Formats that are kept alone, by what tells the tensor of the canonical graph.
KEPT = {
    "queries, keys and values": _read_by("Attention"),
    "what tables read": _read_by("Activation"),
    "results of tables": _of_activations,
}


def _program(case: Case, path: Path, images: Float32) -> Callable[..., Array]:
    """The logits of the integer graph, by what is kept of the file."""
    arch, calibration = preset(case.presets[-1]), case.calibration()[:CALIBRATION]
    file = load(path)
    canonical = canonicalise(file, images=calibration)
    file, said = rounded(file), canonical.meta[QUANTISERS]
    tensors = {value.name: value for node in canonical.graph for value in node.outputs}

    def run(
        kept: Callable[[ir.Value | None], bool], *, pixels: bool = True, means: bool = True
    ) -> Array:
        model = canonical.clone()
        model.meta[QUANTISERS] = [told for told in said if kept(tensors.get(told.value))]
        spec = preprocess.parse(case.preprocess) if pixels else None
        graph = quantise(model, calibration, arch=arch, preprocess=spec)
        if means:
            with_means_of(file, said, graph, arch, calibration)
        return Evaluator(graph, arch).outputs(images)["logits"][:, 0]

    return run


def write(found: dict[str, Any]) -> None:
    """Put a result on file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{found['model']}.json").write_text(json.dumps(found, indent=1) + "\n")


def on_file(name: str) -> str:
    """The table of a model, from its result on file."""
    return table(json.loads((FOLDER / f"{name}.json").read_text()))


def table(found: dict[str, Any]) -> str:
    """A result as Markdown, without what changes nothing."""
    def number(value: float | None, unit: str) -> str:
        return "" if value is None else f"{value:.1f} {unit}"

    head = f"{found['model']}, `{found['arch']}`, {found['images']:,} pictures"
    lines = [
        f"| {head} | tensors | from the file | its labels | from the float model | top-1 |",
        f"|{'---|' * 6}",
    ]
    for row in found["rows"]:
        if row["snr"] is None and row["what"] != "file":
            continue
        lines.append(
            f"| {row['what']} | {row.get('tensors', '')} | {number(row['snr'], 'dB')} "
            f"| {number(row['labels'], '%')} | {number(row['snr_float'], 'dB')} "
            f"| {number(row['top1'], '%')} |"
        )
    return "\n".join(lines)
