"""A one-block vision transformer in ONNX text, with a slot for every part that has spellings."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

SEED = 11
N, C, SIZE, PATCH, D, HEADS, CLASSES = 3, 3, 8, 4, 8, 2, 4
T = (SIZE // PATCH) ** 2
EXPERTS, HIDDEN, TASKS = 4, 6, 3

PARAMETERS: dict[str, tuple[int, ...]] = {
    "embed.weight": (D, C, PATCH, PATCH),
    "embed.bias": (D,),
    "position": (1, T, D),
    "cls": (1, 1, D),
    "norm.weight": (D,),
    "norm.bias": (D,),
    "q.weight": (D, D),
    "q.bias": (D,),
    "k.weight": (D, D),
    "k.bias": (D,),
    "v.weight": (D, D),
    "v.bias": (D,),
    "qkv.weight": (D, 3 * D),
    "qkv.bias": (3 * D,),
    "proj.weight": (D, D),
    "proj.bias": (D,),
    "fc1.weight": (D, 2 * D),
    "fc1.bias": (2 * D,),
    "fc2.weight": (2 * D, D),
    "fc2.bias": (D,),
    "gain": (D,),
    "head.weight": (D, CLASSES),
    "head.bias": (CLASSES,),
    "gate.weight": (D, EXPERTS),
    "experts.fc1": (EXPERTS, HIDDEN, D),
    "experts.bias1": (EXPERTS, HIDDEN),
    "experts.fc2": (EXPERTS, D, HIDDEN),
    "experts.bias2": (EXPERTS, D),
    "experts.scale1": (EXPERTS, HIDDEN),
    "experts.scale2": (EXPERTS, D),
    "experts.w1": (EXPERTS, D, HIDDEN),
    "experts.b1": (EXPERTS, 1, HIDDEN),
    "experts.w2": (EXPERTS, HIDDEN, D),
    "experts.b2": (EXPERTS, 1, D),
    "square": (EXPERTS, D, D),
    "gates": (TASKS, D, EXPERTS),
    "gains": (TASKS, D),
}
CONSTANTS: dict[str, np.ndarray | np.generic] = {
    "half": np.float32(0.5),
    "one": np.float32(1.0),
    "two": np.float32(2.0),
    "root": np.float32(np.sqrt(2.0)),
    "scale": np.float32((D // HEADS) ** -0.5),
    "divisor": np.float32((D // HEADS) ** 0.5),
    "quarter": np.float32((D // HEADS) ** -0.25),
    "epsilon": np.float32(1e-5),
    "zero_i": np.int64(0),
    "first": np.array([0]),
    "axis1": np.array([1]),
    "axis2": np.array([2]),
    "last": np.array([-1]),
    "tokens": np.array([N, D, T]),
    "heads_form": np.array([N, T, HEADS, D // HEADS]),
    "packed_form": np.array([N, T, 3, HEADS, D // HEADS]),
    "mha_form": np.array([N, T, HEADS, 3, D // HEADS]),
    "joined": np.array([N, T, D]),
    "thirds": np.array([D, D, D]),
    "ones3": np.array([1, 1, 1]),
    "variance": np.linspace(0.5, 2.0, D, dtype=np.float32),
    "mask": np.zeros((1, 1, 1, T), np.float32),
    "bias_table": np.arange(T * T, dtype=np.float32).reshape(1, 1, T, T),
    "mean": np.array([0.4, 0.5, 0.6], np.float32).reshape(1, C, 1, 1),
    "std": np.array([0.2, 0.3, 0.4], np.float32).reshape(1, C, 1, 1),
    "scale255": np.float32(255.0),
    "one_i": np.int64(1),
    "two_i": np.array([2]),
    "wide_form": np.array([N, EXPERTS, T, D]),
    "flat_experts": np.array([N * T, EXPERTS]),
    "no_weights": np.zeros((N, T, EXPERTS), np.float32),
    "bytes1": np.arange(EXPERTS * HIDDEN * D).reshape(EXPERTS, HIDDEN, D).astype(np.uint8),
    "bytes2": np.arange(7, 7 + EXPERTS * HIDDEN * D).reshape(EXPERTS, D, HIDDEN).astype(np.uint8),
    "zero1": np.arange(EXPERTS * HIDDEN).reshape(EXPERTS, HIDDEN).astype(np.uint8),
    "zero2": np.arange(EXPERTS * D).reshape(EXPERTS, D).astype(np.uint8),
}

EMBED = """
    grid = Conv <strides = [4, 4]> (image, embed.weight, embed.bias)
    columns = Reshape(grid, tokens)
    patches = Transpose <perm = [0, 2, 1]> (columns)
    x = Add(patches, position)
"""
NORM = "normal = LayerNormalization <axis = -1, epsilon = 1e-5> (x, norm.weight, norm.bias)"
PROJECT = """
    qm = MatMul(normal, q.weight)  q3 = Add(qm, q.bias)
    km = MatMul(normal, k.weight)  k3 = Add(km, k.bias)
    vm = MatMul(normal, v.weight)  v3 = Add(vm, v.bias)
    q4 = Reshape(q3, heads_form)   q = Transpose <perm = [0, 2, 1, 3]> (q4)
    k4 = Reshape(k3, heads_form)   k = Transpose <perm = [0, 2, 3, 1]> (k4)
    v4 = Reshape(v3, heads_form)   v = Transpose <perm = [0, 2, 1, 3]> (v4)
"""
SCORES = "products = MatMul(q, k)  scores = Mul(products, scale)"
SOFTMAX = """
    weights = Softmax <axis = -1> (scores)
    mixed = MatMul(weights, v)
    mixed_t = Transpose <perm = [0, 2, 1, 3]> (mixed)
    attended = Reshape(mixed_t, joined)
"""
RESIDUAL = """
    pm = MatMul(attended, proj.weight)
    projected = Add(pm, proj.bias)
    y = Add(x, projected)
"""
MLP = "um = MatMul(y, fc1.weight)  up = Add(um, fc1.bias)"
ACTIVATION = """
    s = Div(up, root)  e = Erf(s)  f = Add(e, one)  g = Mul(up, f)  active = Mul(g, half)
"""
OUT = """
    dm = MatMul(active, fc2.weight)
    down = Add(dm, fc2.bias)
    z = Add(y, down)
"""
POOL = "pooled = Gather <axis = 1> (z, zero_i)"
HEAD = "logits = Gemm(pooled, head.weight, head.bias)"

SLOTS = {
    "embed": EMBED, "norm": NORM, "project": PROJECT, "scores": SCORES, "softmax": SOFTMAX,
    "residual": RESIDUAL, "mlp": MLP, "activation": ACTIVATION, "out": OUT, "pool": POOL,
    "head": HEAD,
}  # fmt: skip


def tiny(
    *, opset: int = 18, image: str = f"float[{N},{C},{SIZE},{SIZE}]",
    output: str = f"float[{N},{CLASSES}]", task: str = "", **slots: str,
) -> ir.Model:  # fmt: skip
    """The model, with other text in the named slots (an empty string drops a slot).

    ``task`` is the type of an input of that name, when the model is to have one.
    """
    unknown = set(slots) - set(SLOTS)
    if unknown:
        raise ValueError(f"no slot {unknown}")
    body = "\n".join({**SLOTS, **slots}.values())
    # dots are fine in names but not in the text format
    text = body.replace("'", "")
    for name in sorted(PARAMETERS, key=len, reverse=True):
        text = text.replace(name, name.replace(".", "__"))
    proto = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": {opset}, "com.microsoft": 1]>\n'
        f"tiny ({image} image{f', {task} task' * bool(task)}) => ({output} logits) {{\n{text}\n}}"
    )
    rng = np.random.default_rng(SEED)
    arrays = {
        name.replace(".", "__"): rng.normal(0.1, 0.4, shape).astype(np.float32)
        for name, shape in PARAMETERS.items()
    }
    made = {name for node in proto.graph.node for name in node.output}
    used = {name for node in proto.graph.node for name in node.input}
    for name, array in {**arrays, **CONSTANTS}.items():
        if name in used and name not in made:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    model = ir.from_proto(proto)
    for value in list(model.graph.initializers.values()):
        if value.name and value.name.replace("__", ".") in PARAMETERS:
            value.name = value.name.replace("__", ".")
    for place, node in enumerate(model.graph):
        node.name = node.name or f"node{place}_{node.op_type}"
    return model


def picture(model: ir.Model) -> dict[str, np.ndarray]:
    """A random batch for the model."""
    image = model.graph.inputs[0]
    assert image.shape is not None
    shape = [size if isinstance(size, int) else N for size in image.shape]
    rng = np.random.default_rng(SEED)
    if image.dtype == ir.DataType.UINT8:
        array = rng.integers(0, 256, shape).astype(np.uint8)
    else:
        array = rng.standard_normal(shape).astype(np.float32)
    return {image.name or "": array}
