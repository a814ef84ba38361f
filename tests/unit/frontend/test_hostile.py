"""Models that ask for too much, lie about files or hold no numbers; and bugs, which show."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.external_data_helper
import onnx.parser
import onnx_ir as ir
import pytest
import tiny as t
from test_errors import one_sentence
from tiny import tiny

from vitrify.arch.errors import ModelError, UnsupportedOpError
from vitrify.frontend import ExternalDataError, ModelFileError, canonicalise, limits, load
from vitrify.frontend.trace import HANDLERS

#: Address space that a refusal may take: the libraries' own and a little more.
ROOM = 3 << 30


@pytest.fixture
def little_memory() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def doubled(times: int, name: str = "x") -> str:
    names = [name, *(f"d{place}" for place in range(times))]
    return "\n".join(
        f"{after} = Concat <axis = 1> ({before}, {before})"
        for before, after in itertools.pairwise(names)
    )


BOMBS = {
    "doubled activations": {"mlp": doubled(31, "y") + "\n" + t.MLP.replace("(y,", "(d30,")},
    "doubled constants": {
        "pool": doubled(31, "position") + "\nsu = ReduceMean <keepdims = 0> (d30, axis1)\n"
        "p0 = Gather <axis = 1> (z, zero_i)  pooled = Add(p0, su)"
    },
    "expanded": {
        "pool": "fo = Constant <value_ints = [1073741824, 3, 1, 1]> ()  ee = Expand(z, fo)\n"
        "pooled = Gather <axis = 1> (ee, zero_i)"
    },
    "constant of a shape": {
        "pool": "fo = Constant <value_ints = [1000000, 1000000]> ()  c = ConstantOfShape(fo)\n"
        "su = ReduceSum <keepdims = 0> (c)  p0 = Gather <axis = 1> (z, zero_i)\n"
        "pooled = Add(p0, su)"
    },
    "tiled": {
        "pool": "fo = Constant <value_ints = [1, 100000000, 1]> ()  ee = Tile(z, fo)\n"
        "pooled = Gather <axis = 1> (ee, zero_i)"
    },
    "range": {
        "pool": "n = Constant <value_int = 100000000000> ()  o = Constant <value_int = 1> ()\n"
        "r = Range(zero_i, n, o)  m = ReduceMax <keepdims = 0> (r)  mf = Cast <to = 1> (m)\n"
        "p0 = Gather <axis = 1> (z, zero_i)  pooled = Add(p0, mf)"
    },
    "broadcast": {
        "pool": "fo = Constant <value_ints = [900000, 1, 1, 1, 1]> ()\n"
        "o1 = Constant <value = float[1] {1.5}> ()  ee = Expand(o1, fo)  b = Mul(z, ee)\n"
        "b0 = Gather <axis = 0> (b, zero_i)  b1 = Gather <axis = 0> (b0, zero_i)\n"
        "pooled = Gather <axis = 1> (b1, zero_i)"
    },
}  # fmt: skip


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", BOMBS)
def test_sizes_are_bounded_before_anything_is_allocated(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "doubled" in name:
        monkeypatch.setattr(limits, "LARGEST_BYTES", 1 << 24)  # the real bound takes seconds
    with pytest.raises(ModelError, match=r"(512|16) MiB are the most allowed") as caught:
        canonicalise(tiny(opset=18, **BOMBS[name]))
    one_sentence(caught.value)


def _functions(*calls: str) -> ir.Model:
    """A function for each text; each may call the others as ``d.f0`` and so on."""
    model = ir.to_proto(tiny(activation="active = Relu(up)"))
    for number, text in enumerate(calls):
        model.functions.append(
            onnx.parser.parse_function(
                f'<domain: "d", opset_import: ["": 18, "d": 1]> f{number} (x) => (y) {{ {text} }}'
            )
        )
    (node,) = [node for node in model.graph.node if node.op_type == "Relu"]
    node.domain, node.op_type = "d", "f0"
    model.opset_import.append(onnx.helper.make_opsetid("d", 1))
    return ir.from_proto(model)


def test_functions_that_call_each_other_too_often() -> None:
    chain = [f"a = d.f{n + 1}(x)  y = d.f{n + 1}(a)" for n in range(40)]
    for calls in ([*chain, "y = Relu(x)"], ["a = d.f0(x)  y = Relu(a)"]):
        with pytest.raises(ModelError, match="more than 200000 nodes") as caught:
            canonicalise(_functions(*calls))
        one_sentence(caught.value)
    canonicalise(_functions("a = d.f1(x)  y = d.f1(a)", "y = Relu(x)"))


def test_loops_are_not_executed() -> None:
    text = """
        many = Constant <value_int = 1000000000000> ()  yes = Constant <value = bool {1}> ()
        start = Constant <value = float {0.0}> ()
        shift = Loop (many, yes, start) <body = b (int64 i, bool c, float v) => (bool c2, float w) {
            c2 = Identity(c)  w = Add(v, v) }>
        p0 = Gather <axis = 1> (z, zero_i)  pooled = Add(p0, shift)
    """
    with pytest.raises(UnsupportedOpError, match=r"\(Loop\).*a branch or a loop"):
        canonicalise(tiny(opset=18, pool=text))


def test_circle(tmp_path: Path) -> None:
    model = ir.to_proto(tiny())
    (first,) = [node for node in model.graph.node if "z" in node.output]
    first.input[0] = "logits"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match=r"Node 'node\d+_\w+' \(\w+\).*own result") as caught:
        load(tmp_path / "model.onnx")
    one_sentence(caught.value)


@pytest.mark.parametrize("place", ["../secret", "{}/secret", "inner/../../secret", ".."])
@pytest.mark.parametrize("bare", [True, False])
def test_external_data_outside_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, bare: bool
) -> None:
    (tmp_path / "secret").write_bytes(bytes(4096))
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    model = ir.to_proto(tiny())
    (weight,) = [value for value in model.graph.initializer if value.name == "fc1.weight"]
    onnx.external_data_helper.set_external_data(weight, place.format(tmp_path))
    kept = weight.raw_data
    weight.ClearField("raw_data")
    onnx.save(model, folder / "model.onnx")
    monkeypatch.chdir(folder)
    with pytest.raises(ExternalDataError, match=r"'fc1\.weight'.*outside the model's") as caught:
        load("model.onnx" if bare else folder / "model.onnx")
    one_sentence(caught.value)
    (folder / "link").symlink_to(tmp_path / "secret")
    weight.raw_data = kept
    onnx.external_data_helper.set_external_data(weight, "link")
    weight.ClearField("raw_data")
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(ExternalDataError, match="a link to a file elsewhere"):
        load("model.onnx" if bare else folder / "model.onnx")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("name", ["fc1.weight", "norm.bias", "position"])
def test_weights_that_are_no_numbers(name: str, number: float) -> None:
    model = tiny()
    value = model.graph.initializers[name]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array.flat[3] = number
    value.const_value = ir.tensor(array, name=name)
    with pytest.raises(ModelError, match=f"Weight '{name}'.*from sound weights") as caught:
        canonicalise(model)
    one_sentence(caught.value)


def test_a_bug_in_a_handler_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list:
        raise AttributeError("a bug of ours")

    monkeypatch.setitem(HANDLERS, ("", "Erf", None), broken)
    with pytest.raises(AttributeError, match="a bug of ours"):
        canonicalise(tiny())


def test_a_node_that_breaks_onnx_is_the_models_fault() -> None:
    model = tiny(mlp="um = Add(y, fc1.bias)  up = Add(um, fc1.bias)")
    with pytest.raises(UnsupportedOpError, match="damaged, export or download it again"):
        canonicalise(model)


def test_a_second_output_that_is_not_read() -> None:
    norm = (
        "normal, centre = LayerNormalization <axis = -1, epsilon = 1e-5> "
        "(x, norm.weight, norm.bias)"
    )
    with pytest.raises(UnsupportedOpError, match="reads 'centre', output 1 of a Layer") as caught:
        canonicalise(tiny(norm=norm, mlp="um = Add(y, centre)  up = MatMul(um, fc1.weight)"))
    one_sentence(caught.value)
