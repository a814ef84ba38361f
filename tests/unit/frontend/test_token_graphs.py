"""Operations beyond ViT blocks: the canonical graph has them, and equals the original."""

from __future__ import annotations

import re

import onnx_ir as ir
import pytest
import tiny as t
from agree import assert_agrees, kinds, within
from tiny import picture, tiny

from vitrify.arch.errors import UnsupportedOpError
from vitrify.frontend import canonicalise

#: A power of two activations: what makes the base and what makes the exponent.
POWER = (
    "um = MatMul(y, fc1.weight)  u1 = Add(um, fc1.bias)  u2 = MatMul(normal, fc1.weight)\n"
    "{}  {}  up = Pow(bs, ex)"
)
CASES: dict[str, tuple[dict[str, str], list[str]]] = {
    "position bias": (
        {"scores": "raw = MatMul(q, k)  s1 = Mul(raw, scale)  scores = Add(s1, bias_table)"},
        ["CrossAttention"],
    ),
    "a position bias that is scaled": (
        {"scores": "raw = MatMul(q, k)  s1 = Add(raw, bias_table)  scores = Mul(s1, scale)"},
        ["CrossAttention"],
    ),
    "gated unit": (
        {"activation": "s = Sigmoid(um)  active = Mul(up, s)"},
        ["Activation", "Multiply"],
    ),
    "overlapping convolution": (
        {"embed": t.EMBED.replace("[4, 4]>", "[4, 4], pads = [1, 0, 2, 3]>")},
        ["ImageConv", "Tokens"],
    ),
    "convolution of a map": (
        {
            "embed": """
            deep = Relu(image)
            grid = Conv <strides = [4, 4]> (deep, embed.weight, embed.bias)
            columns = Reshape(grid, tokens)
            patches = Transpose <perm = [0, 2, 1]> (columns)
            x = Add(patches, position)
            """
        },
        ["PatchEmbed", "Activation", "Conv"],
    ),
    "softmax over heads": (
        {"softmax": t.SOFTMAX.replace("axis = -1", "axis = 1")},
        ["Product", "Softmax", "Product"],
    ),
    "root mean square norm": (
        {
            "norm": "sq = Mul(x, x)  ms = ReduceMean <keepdims = 1> (sq, last)\n"
            "me = Add(ms, epsilon)  rt = Sqrt(me)  xn = Div(x, rt)  normal = Mul(xn, norm.weight)"
        },
        ["RMSNorm"],
    ),
    "root mean square norm by a reciprocal": (
        {
            "norm": "sq = Pow(x, two)  ms = ReduceMean <keepdims = 1> (sq, last)\n"
            "me = Add(ms, epsilon)  rt = Sqrt(me)  rc = Reciprocal(rt)  xn = Mul(x, rc)\n"
            "normal = Mul(norm.weight, xn)"
        },
        ["RMSNorm"],
    ),
    "tokens chosen by a mask": (
        {
            "out": "dm = MatMul(active, fc2.weight)\n"
            "some = Constant <value = bool[1,4,1] {1,0,0,1}> ()\n"
            "picked = Where(some, dm, y)  z = Add(y, picked)"
        },
        ["Affine", "Add"],
    ),
    "a token put to a place": (
        {
            "out": "dm = MatMul(active, fc2.weight)\n"
            "at = Constant <value_ints = [1]> ()  one_t = Gather <axis = 1> (dm, at)\n"
            "pl = Constant <value = int64[3,1,2] {0,2,1,2,2,2}> ()\n"
            "put = ScatterND(y, pl, one_t)  z = Add(put, dm)"
        },
        ["Add"],
    ),
    "a pool with a border of its own": (
        {
            "embed": """
            grid = Conv <strides = [2, 2]> (image, embed.weight, embed.bias)
            pd = Constant <value_ints = [0, 0, 1, 1, 0, 0, 0, 0]> ()
            low = Constant <value_float = -inf> ()
            wide = Pad(grid, pd, low)
            small = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (wide)
            columns = Reshape(small, tokens)
            patches = Transpose <perm = [0, 2, 1]> (columns)
            x = Add(patches, position)
            """
        },
        ["ImageConv", "Pool"],
    ),
    "an average without the border": (
        {
            "embed": """
            grid = Conv <strides = [2, 2]> (image, embed.weight, embed.bias)
            small = AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>
                (grid)
            columns = Reshape(small, tokens)
            patches = Transpose <perm = [0, 2, 1]> (columns)
            x = Add(patches, position)
            """
        },
        ["ImageConv", "Mix", "Mix"],
    ),
    "a power of two activations": (
        {"mlp": POWER.format("bs = Relu(u1)", "sp = Softplus(u2)  ex = Add(sp, one)")},
        ["Multiply", "Activation"],
    ),
    "a power of a product": (
        {"mlp": POWER.format(
            "ra = Relu(u1)  sg = Sigmoid(u2)  bs = Mul(ra, sg)", "ex = Max(u2, one)"
        )},
        ["Multiply", "Multiply", "Activation"],
    ),
    "a power of what is not zero, exponents of any sign": (
        {"mlp": POWER.format(
            "tiny9 = Constant <value_float = 1e-6> ()  bs = Max(u1, tiny9)", "ex = Tanh(u2)"
        )},
        ["Multiply", "Activation"],
    ),
    "relative positions that depend on the image": (
        {
            "scores": "tab = Constant <value = float[7,4] {"
            + ",".join(str(round(0.3 * ((5 * i) % 7 - 3), 1)) for i in range(28))
            + "}> ()\nat = Constant <value = int64[4,4] {3,2,1,0,4,3,2,1,5,4,3,2,6,5,4,3}> ()\n"
            "rel = Gather <axis = 0> (tab, at)  relt = Transpose <perm = [0, 2, 1]> (rel)\n"
            "axis3 = Constant <value_ints = [3]> ()  qe = Unsqueeze(q, axis3)\n"
            "re = MatMul(qe, relt)  rs = Squeeze(re, axis3)\n"
            "raw = MatMul(q, k)  s1 = Mul(raw, scale)  scores = Add(s1, rs)\n"
        },
        ["Product", "Add", "Softmax", "Product"],
    ),
    "a matrix for each query": (
        {
            "scores": "rel = Constant <value = float[4,4,4] {"
            + ",".join(str(round(0.1 * ((37 * i) % 61 - 30), 1)) for i in range(64))
            + "}> ()\n"
            'rs = Einsum <equation = "bhtd,tkd->bhtk"> (q, rel)\n'
            "raw = MatMul(q, k)  s1 = Mul(raw, scale)  scores = Add(s1, rs)\n"
        },
        ["ConstantRows", "Product", "Product", "Add", "Softmax", "Product"],
    ),
    "zeros of more axes than the attention weights": (
        {
            "softmax": t.SOFTMAX.replace("weights = ", "w0 = ").replace(
                "mixed = ",
                "zz = Constant <value = float[3,1,1,1,1] {0,0,0}> ()  w1 = Add(w0, zz)\n"
                "weights = Gather <axis = 0> (w1, zero_i)  mixed = ",
            )
        },
        ["CrossAttention"],
    ),
    "queries and keys of unit length": (
        {
            "scores": "qn = ReduceL2 <keepdims = 1> (q, last)  qu = Div(q, qn)\n"
            "raw = MatMul(qu, k)  scores = Mul(raw, divisor)"
        },
        ["RMSNorm"],
    ),
}


#: A convolutional network: no token, no attention, an image of one.
CONVOLUTIONAL = {
    "embed": "g = Conv <pads = [3, 3, 0, 0]> (image, embed.weight)",
    "out": "z = Relu(g)", "pool": "zp = GlobalAveragePool(z)  pooled = Flatten(zp)",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operation(name: str) -> None:
    slots, wanted = CASES[name]
    model = tiny(opset=18, **slots)
    found = kinds(assert_agrees(model, picture(model)))
    assert within(wanted, found), found


def test_a_layer_of_the_sum_of_an_attention_and_a_norm_is_the_sum_of_two() -> None:
    residual = t.RESIDUAL.replace("MatMul(attended,", "MatMul(both,")
    model = tiny(residual=f"both = Add(attended, normal){residual}")
    canonical = assert_agrees(model, picture(model))
    plain, found = kinds(assert_agrees(tiny(), picture(tiny()))), kinds(canonical)
    assert [found.count(kind) - plain.count(kind) for kind in ("Linear", "Add")] == [1, 1]
    for node in canonical.graph:
        makers = [value.producer() for value in node.inputs if value is not None]
        if node.op_type == "Add":
            assert [made.op_type for made in makers if made is not None].count("Linear") == 1


@pytest.mark.parametrize(
    ("base", "exponent", "words"),
    [
        ("bs = Tanh(u1)", "ex = Max(u2, one)", r"\(Pow\).*its base may be negative; .*Relu or Abs"),
        ("bs = Mul(u1, u2)", "ex = Max(u2, one)", "its base may be negative"),
        ("bs = Relu(u1)", "ex = Softplus(u2)", "its base may be 0 and its exponent less than 1;"),
        ("bs = Relu(u1)", "ex = Identity(u2)", "its base may be 0 and its exponent less than 1;"),
    ],
)
def test_powers_that_are_not_exact(base: str, exponent: str, words: str) -> None:
    with pytest.raises(UnsupportedOpError, match=words):
        canonicalise(tiny(mlp=POWER.format(base, exponent)))


def test_what_is_written_over_as_a_whole_is_not_computed() -> None:
    put = (
        "dm = MatMul(active, fc2.weight)\n"
        "at = Constant <value = int64[3,1] {2,0,1}> ()\n"
        "order = Constant <value_ints = [2,0,1]> ()\n"
        "mixed_up = Gather <axis = 0> (dm, order)  put = ScatterND(y, at, mixed_up)\n"
        "z = Add(y, put)"
    )
    model = tiny(opset=18, out=put)
    plain = tiny(opset=18, out="dm = MatMul(active, fc2.weight)  z = Add(y, dm)")
    assert kinds(assert_agrees(model, picture(model))) == kinds(canonicalise(plain))


def test_convolutional_network() -> None:
    slots = {**dict.fromkeys(t.SLOTS, ""), **CONVOLUTIONAL, "head": t.HEAD}
    model = tiny(opset=18, image="float[1,3,8,8]", output="float[1,4]", task="", **slots)
    found = kinds(assert_agrees(model, picture(model)))
    assert found == ["ImageConv", "Activation", "MeanPool", "Linear"]


#: Weights of a depthwise convolution are a map that another convolution makes.
DYNAMIC = {
    "embed": "g = Conv <strides = [2, 2]> (image, embed.weight, embed.bias)\n"
    "form = Constant <value_ints = [8, 1, 3, 3]> ()  own = Reshape(g, form)",
    "out": "z = Conv <group = 8, {}> (g, own)",
    "pool": CONVOLUTIONAL["pool"],
}


def _dynamic(more: str, own: str = "8, 1, 3, 3") -> ir.Model:
    slots = {**dict.fromkeys(t.SLOTS, ""), **DYNAMIC, "head": t.HEAD}
    slots["embed"] = slots["embed"].replace("8, 1, 3, 3", own)
    slots["out"] = slots["out"].format(more)
    return tiny(opset=18, image="float[1,3,8,8]", output="float[1,4]", task="", **slots)


@pytest.mark.parametrize(
    "more", ["pads = [1, 1, 1, 1]", "pads = [1, 1, 1, 1], strides = [2, 1]", "pads = [1, 2, 0, 3]"]
)
def test_weights_of_a_convolution_from_the_image(more: str) -> None:
    model = _dynamic(more)
    assert "Multiply" in kinds(assert_agrees(model, picture(model)))


@pytest.mark.parametrize(
    ("more", "own", "words"),
    [("pads = [1, 1, 1, 1], dilations = [2, 2]", "8, 1, 3, 3", "several images, or is dilated"),
     ("pads = [1, 1, 1, 1]", "24, 1, 3, 1", "and it is not depthwise")],
)  # fmt: skip
def test_weights_from_the_image_that_are_refused(more: str, own: str, words: str) -> None:
    with pytest.raises(UnsupportedOpError, match=rf"\(Conv\).*{words}"):
        canonicalise(_dynamic(more, own))


def test_weights_from_the_image_beside_a_bias() -> None:
    model = _dynamic("pads = [1, 1, 1, 1]")
    (conv,) = [node for node in model.graph if len(node.inputs) == 2 and node.op_type == "Conv"]
    conv.resize_inputs(3)
    conv.replace_input_with(2, model.graph.initializers["embed.bias"])
    with pytest.raises(UnsupportedOpError, match=r"\(Conv\).*it has a bias"):
        canonicalise(model)


#: Channels of a head that turn, attributes, whether operands are [N, T, D], positions are given.
ROTARY = {
    "halves": (4, "", False, True),
    "pairs": (4, "interleaved = 1", False, True),
    "without positions": (4, "", False, False),
    "a part of each head": (2, "rotary_embedding_dim = 2, num_heads = 2", False, True),
    "heads side by side": (4, "num_heads = 2", True, True),
    "pairs of heads side by side": (4, "num_heads = 2, interleaved = 1", True, True),
}


def _rotary(width: int, attributes: str, flat: bool, given: bool) -> ir.Model:
    """Queries and keys turned by the operator of opset 23, before or after their heads are cut."""
    angles = [0.3 * place / (pair + 1) for place in range(t.T) for pair in range(width // 2)]
    form = [t.T, width // 2] if given else [t.N, t.T, width // 2]
    angles = angles if given else angles * t.N
    text = f"an = Constant <value = float{form} {{{', '.join(f'{a:.3f}' for a in angles)}}}> ()\n"
    text += "cs = Cos(an)  sn = Sin(an)\n"
    places = [*range(t.T)] * t.N
    text += f"ps = Constant <value = int64[{t.N}, {t.T}] {{{str(places)[1:-1]}}}> ()\n"
    project = t.PROJECT.replace("perm = [0, 2, 3, 1]", "perm = [0, 2, 1, 3]")
    for part in "qk":
        result = f"{part}3" if flat else part
        formals = f"<{attributes}>" if attributes else ""
        turn = f"{result} = RotaryEmbedding {formals} ({part}0, cs, sn{', ps' * given})\n"
        project = project.replace(f" {result} = ", f" {part}0 = ")
        made = re.search(rf"{part}0 = .*?\)", project)
        assert made is not None
        project = project.replace(made[0], f"{made[0]}\n{turn}")
    scores = "kt = Transpose <perm = [0, 1, 3, 2]> (k)  products = MatMul(q, kt)\n"
    scores += "scores = Mul(products, scale)"
    return tiny(opset=23, project=text + project, scores=scores)


@pytest.mark.parametrize("name", ROTARY)
def test_rotary_embedding(name: str) -> None:
    model = _rotary(*ROTARY[name])
    found = kinds(assert_agrees(model, picture(model)))
    assert within(["Rotary", "Rotary", "Attention"], found), found


@pytest.mark.parametrize(
    ("width", "attributes", "flat", "words"),
    [(2, "", False, r"cosines \[3, 4, 1\] do not fit 4 channels"),
     (4, "", True, "number of heads does not divide")],
)  # fmt: skip
def test_rotary_embedding_that_does_not_fit(
    width: int, attributes: str, flat: bool, words: str
) -> None:
    with pytest.raises(UnsupportedOpError, match=rf"\(RotaryEmbedding\).*{words}"):
        canonicalise(_rotary(width, attributes, flat, given=True))
