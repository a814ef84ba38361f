"""A small exported transformer with operators before, inside and behind it that no core has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: [batch, 3, 16, 16] to [batch, 5]; two blocks of width 16, 17 tokens.
MODEL = Path(__file__).parents[1] / "data" / "timm_ts17.onnx"
#: Nodes that read the hidden layer of a block, what its attention gives, the stream before it.
HIDDEN = "/blocks/blocks.0/mlp/fc2/MatMul"
CONTEXT = "/blocks/blocks.1/attn/proj/MatMul"
BLOCK = "/blocks/blocks.1/norm1/LayerNormalization"

Node = tuple[str, Sequence[str], Sequence[str], dict[str, object]]
K = ("k", np.array([2]))


def exported(*, batch: int | None = None) -> onnx.ModelProto:
    """The model, for any number of images or for a fixed one."""
    model = onnx.load(MODEL)
    if batch is not None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    return model


def with_tail(
    nodes: Sequence[Node], outputs: Sequence[tuple[str, int]],
    constants: Sequence[tuple[str, np.ndarray]] = (), *, batch: int | None = None,
) -> onnx.ModelProto:
    """With nodes behind it, which call its output ``logits``."""
    model = exported(batch=batch)
    graph = model.graph
    last = graph.output[0].name
    for op_type, reads, results, attributes in nodes:
        reads = [last if name == "logits" else name for name in reads]
        graph.node.append(helper.make_node(op_type, reads, results, results[0], **attributes))
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants)
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name, kind in outputs)
    return model


def with_before(op_types: Sequence[str], before: str | None = None) -> onnx.ModelProto:
    """With operators of one tensor before the image or what the node ``before`` reads."""
    model = exported()
    graph = model.graph
    where = 0
    name = graph.input[0].name
    if before is not None:
        where = next(i for i, node in enumerate(graph.node) if node.name == before)
        name = graph.node[where].input[0]
    new = name
    made = []
    for op_type in op_types:
        reads, new = new, f"{op_type}.of.{name}"
        extra = ["axis"] if op_type == "CumSum" else []
        made.append(helper.make_node(op_type, [reads, *extra], [new], new))
    for node in graph.node[where:]:
        for place, read in enumerate(node.input):
            if read == name:
                node.input[place] = new
    for place, node in enumerate(made):
        graph.node.insert(where + place, node)
    graph.initializer.append(numpy_helper.from_array(np.array(1), "axis"))
    return model


#: Operators behind the logits, by a name: nodes, outputs, constants.
TAILS: dict[str, tuple[list[Node], list[tuple[str, int]], list[tuple[str, np.ndarray]]]] = {
    "argmax": (
        [("ArgMax", ["logits"], ["y"], {"axis": 1, "keepdims": 0})], [("y", TensorProto.INT64)], [],
    ),
    "softmax, top-k": (
        [("Softmax", ["logits"], ["p"], {"axis": -1}), ("TopK", ["p", "k"], ["v", "i"], {})],
        [("v", TensorProto.FLOAT), ("i", TensorProto.INT64)], [K],
    ),
    "L2-normalise, less the largest": (
        [("LpNormalization", ["logits"], ["n"], {}),
         ("ReduceMax", ["logits"], ["r"], {"axes": [1]}),
         ("Sub", ["n", "r"], ["y"], {})],
        [("y", TensorProto.FLOAT)], [],
    ),
    "two outputs": (
        [("LogSoftmax", ["logits"], ["y"], {}), ("Sigmoid", ["logits"], ["z"], {})],
        [("y", TensorProto.FLOAT), ("z", TensorProto.FLOAT)], [],
    ),
    "resize, pixel shuffle": (
        [("Slice", ["logits", "zero", "four", "one"], ["c"], {}),
         ("Reshape", ["c", "form"], ["m"], {}), ("DepthToSpace", ["m"], ["d"], {"blocksize": 2}),
         ("Resize", ["d", "", "scales"], ["r"], {"mode": "linear"}),
         ("CumSum", ["r", "one"], ["y"], {})],
        [("y", TensorProto.FLOAT)],
        [("zero", np.array([0])), ("four", np.array([4])), ("one", np.array([1])),
         ("form", np.array([-1, 4, 1, 1])), ("scales", np.array([1, 1, 2.5, 3.5], np.float32))],
    ),
    "non-maximum suppression": (
        [("Reshape", ["logits", "scores_form"], ["s"], {}),
         ("NonMaxSuppression", ["boxes", "s", "most", "overlap"], ["y"], {}),
         ("NonMaxSuppression", ["boxes", "s", "most", "overlap", "score"], ["none"], {}),
         ("Cast", ["none"], ["reals"], {"to": TensorProto.FLOAT})],
        [("y", TensorProto.INT64), ("none", TensorProto.INT64), ("reals", TensorProto.FLOAT)],
        [("scores_form", np.array([1, 1, 5])), ("most", np.array([3])),
         ("overlap", np.array([0.5], np.float32)), ("score", np.array([1e6], np.float32)),
         ("boxes", np.array([[[0, i / 9, 1, i / 9 + 0.3] for i in range(5)]], np.float32))],
    ),
}  # fmt: skip
