"""What a compilation says about itself when it has gone wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from tests.support.synthetic import Mixture, vision_transformer
from tests.unit.quant import graphs
from vitrify.arch.errors import ModelError
from vitrify.arch.presets import preset
from vitrify.cli.main import main
from vitrify.compiler import compile_graph, driver
from vitrify.compiler.quantise import quantise
from vitrify.compiler.validate import VerificationError, check_canonical, check_program
from vitrify.frontend import canonicalise, load
from vitrify.ir import array_of

NANO = preset("nano")
MODEL = Path(__file__).parents[2] / "data" / "timm_ts17.onnx"


def images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 16, 16)).astype(np.float32)


def spoil(model: ir.Model, name: str) -> None:
    """Negate a parameter of the node called ``name``."""
    node = next(node for node in model.graph if node.name == name)
    value = node.inputs[1]
    assert value is not None
    value.const_value = ir.tensor(-array_of(value), name=value.name)


@pytest.mark.parametrize("name", ["blocks.0.mlp.fc1", "blocks.1.norm1"])
def test_the_first_tensor_that_is_not_the_models_is_named(name: str) -> None:
    model = load(MODEL)
    canonical = canonicalise(model)
    check_canonical(model, canonical, images(), {})
    spoil(canonical, name)
    with pytest.raises(VerificationError, match=rf"deviates .* first in tensor '{name}'.*report"):
        check_canonical(model, canonical, images(), {})


def test_another_shape_is_no_small_deviation() -> None:
    def model(net: graphs.Net, whole: bool) -> ir.Model:
        x = net.tokens()
        out = net.norm(x if whole else net.select(x), "norm")
        out.name = "out"
        return net.model(out)

    net = graphs.Net(0)
    with pytest.raises(VerificationError, match=r"has the shape \[4, 5, 16\] in the model"):
        check_canonical(model(net, True), model(graphs.Net(0), False), net.images(4), {})


def test_a_batch_that_is_fixed_to_two() -> None:
    model = load(MODEL.with_name("timm_dynamo23_sdpa.onnx"))
    check_canonical(model, canonicalise(model), images(3), {})


@pytest.mark.parametrize("shape", [{}, {"blocks": 2, "mixture": Mixture(experts=4, tasks=2)}])
def test_the_first_operation_with_other_integers_is_named(shape: dict[str, object]) -> None:
    graph = vision_transformer(seed=2, **shape)     # pyright: ignore[reportArgumentType]
    program = compile_graph(graph, NANO, batch=2)
    pixels = np.random.default_rng(1).normal(size=(3, *graph.input.shape)).astype(np.float32)
    check_program(program, graph, pixels)
    layer = next(layer for layer in program.layers if layer.name == "blocks.0.proj")
    op = list(program.instructions())[layer.instruction]
    image = program.image.copy()
    # The last tile's weights.
    image[op.stream_offset + op.stream_words * NANO.depth - 8 :][:4] ^= 0x55
    with pytest.raises(VerificationError, match=r"first those of 'blocks\.0\.proj'"):
        check_program(replace(program, image=image), graph, pixels)


def test_a_reader_behind_its_overwriter_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrify.compiler.sequence.independent", lambda *_: True)
    net = graphs.Net(1)
    graph = quantise(net.model(graphs.MAPPINGS["two_attentions"](net)), net.images(8), arch=NANO)
    with pytest.raises(VerificationError, match="first those of 'attention1"):
        check_program(compile_graph(graph, NANO), graph, net.images(1))


def test_every_compilation_is_verified_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise VerificationError("output 'y' deviates")

    np.save(tmp_path / "calib.npy", images())
    command = ["compile", str(MODEL), "--arch", "ulx3s", "--calib", str(tmp_path / "calib.npy"),
               "-o", str(tmp_path / "out.vfy")]
    for name in ("check_canonical", "check_program"):
        with monkeypatch.context() as patch:
            patch.setattr(driver, name, fail)
            assert main(command) == 2
            assert "output 'y' deviates" in capsys.readouterr().err
            assert not (tmp_path / "out.vfy").exists()
            assert main([*command, "--no-verify"]) == 0
        (tmp_path / "out.vfy").unlink()
    assert main(command) == 0


def test_a_model_that_fails_in_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    def fail(*_: object) -> None:
        raise Fail("[ONNXRuntimeError] : 1 : FAIL : axis 0 has dimensions of 4 and 1")

    model = load(MODEL)
    canonical = canonicalise(model)
    monkeypatch.setattr("vitrify.compiler.validate.FloatEvaluator.run", fail)
    monkeypatch.setattr("vitrify.compiler.validate._Reference.run", fail)
    with pytest.raises(ModelError, match=r"cannot run the model on 4 images.*\(axis 0 has .*1\)"):
        check_canonical(model, canonical, images(), {})


def test_what_onnx_runtime_cannot_load_is_not_compared_and_our_faults_are_told(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators that other tools know have no kernel: even a wrong canonical graph passes."""
    model = load(MODEL)
    canonical = canonicalise(model)
    spoil(canonical, "blocks.1.norm1")
    other = model.clone()
    other.graph[-1].domain = "other"
    other.opset_imports["other"] = 1
    check_canonical(other, canonical, images(), {})

    def fault(*_: object) -> None:
        raise TypeError("ours")

    monkeypatch.setattr("vitrify.compiler.validate.FloatEvaluator.__init__", fault)
    with pytest.raises(TypeError, match="ours"):
        check_canonical(model, canonical, images(), {})
