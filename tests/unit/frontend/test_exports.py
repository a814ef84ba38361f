"""Every exporter's spelling of every architecture: same numbers, same canonical operations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from agree import assert_agrees, kinds

from vitrify.frontend import STAGES, canonicalise, load
from vitrify.ir import attributes_of, evaluate, verify

ROOT = Path(__file__).parents[3]
FIXTURES = sorted(
    path for path in (ROOT / "tests" / "data").glob("*.onnx") if path.stem[:3] not in ("moe", "moh")
)
REAL = ROOT.parent / "shared" / "data" / "vit_tiny_imagenet"
SEED = 5
BLOCKS, HEADS, HEAD_DIM = 2, 2, 8


def images(model: ir.Model, count: int = 3) -> dict[str, np.ndarray]:
    value = model.graph.inputs[0]
    assert value.shape is not None
    shape = [size if isinstance(size, int) else count for size in value.shape]
    return {value.name or "": np.random.default_rng(SEED).standard_normal(shape, np.float32)}


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_export_agrees(path: Path) -> None:
    model = load(path)
    canonical = assert_agrees(model, images(model))
    operations = kinds(canonical)
    assert operations.count("PatchEmbed") == 1
    assert operations.count("Attention") == BLOCKS
    assert operations.count("LayerNorm") >= 2 * BLOCKS
    # q, k, v, projection and two layers of the MLP a block, then heads or none
    assert 6 * BLOCKS <= operations.count("Linear") <= 6 * BLOCKS + 2
    assert operations.count("Add") in (2 * BLOCKS, 2 * BLOCKS + 1)
    for node in canonical.graph:
        if node.op_type == "Attention":
            found = attributes_of(node)
            assert found["heads"] == HEADS
            assert found["scale"] == pytest.approx(HEAD_DIM**-0.5, rel=1e-5)


def test_fixtures_exist() -> None:
    names = {path.stem.split("_")[0] for path in FIXTURES}
    assert {"timm", "deit", "hf", "torchvision", "rearranged", "torch"} <= names


@pytest.mark.parametrize("name", ["timm_ts13", "hf_vit_dynamo20_sdpa_pooler", "timm_ort_fused"])
def test_every_stage_runs(name: str) -> None:
    model = load(ROOT / "tests" / "data" / f"{name}.onnx")
    outputs = [value.name or "" for value in model.graph.outputs]
    feeds = images(model)
    results = {}

    def keep(stage: str, staged: ir.Model) -> None:
        results[stage] = evaluate(staged, feeds, outputs)[outputs[0]]

    canonicalise(model, keep)
    assert tuple(results) == STAGES
    for stage, result in results.items():
        np.testing.assert_allclose(result, results["original"], rtol=1e-4, atol=1e-4, err_msg=stage)


def test_static_batch_becomes_dynamic() -> None:
    model = load(ROOT / "tests" / "data" / "timm_ts13.onnx")
    canonical = canonicalise(model)
    one = images(model, 1)["image"]
    output = canonical.graph.outputs[0].name or ""
    many = np.concatenate([one, 2 * one, -one])
    found = evaluate(canonical, {"image": many}, [output])[output]
    for place, image in enumerate(many):
        wanted = evaluate(model, {"image": image[None]}, [output])[output]
        np.testing.assert_allclose(found[place : place + 1], wanted, rtol=1e-4, atol=1e-5)


def test_original_is_left_alone() -> None:
    model = load(ROOT / "tests" / "data" / "timm_ts17.onnx")
    before = [(node.op_type, node.name) for node in model.graph]
    canonicalise(model)
    assert [(node.op_type, node.name) for node in model.graph] == before


def test_saved_graph_runs(tmp_path: Path) -> None:
    model = load(ROOT / "tests" / "data" / "timm_ts17.onnx")
    canonical = canonicalise(model)
    ir.save(canonical, tmp_path / "canonical.onnx")
    again = ir.load(tmp_path / "canonical.onnx")
    verify(again)
    feeds, output = images(model), model.graph.outputs[0].name or ""
    np.testing.assert_array_equal(
        evaluate(again, feeds, [output])[output], evaluate(canonical, feeds, [output])[output]
    )


@pytest.mark.parametrize("name", ["timm_ts13", "timm_ts17", "timm_dynamo18", "timm_ort_fused"])
def test_names_are_those_of_the_modules(name: str) -> None:
    canonical = canonicalise(load(ROOT / "tests" / "data" / f"{name}.onnx"))
    names = [node.name for node in canonical.graph]
    block = [
        "norm1", "attn.q", "attn.k", "attn.v", "attn.attention", "attn.proj", "attn.add",
        "norm2", "mlp.fc1", "mlp.act", "mlp.fc2", "mlp.add",
    ]  # fmt: skip
    blocks = [f"blocks.{place}.{leaf}" for place in range(BLOCKS) for leaf in block]
    assert names == ["patch_embed.proj", "tokens", *blocks, "norm", "select_token", "head"]
    for node in list(canonical.graph)[:-1]:
        assert node.outputs[0].name == node.name
    assert "blocks.1.mlp.fc1.weight" in canonical.graph.initializers


def test_canonical_graphs_of_two_exporters_are_equal() -> None:
    one, other = (
        canonicalise(load(ROOT / "tests" / "data" / f"{name}.onnx"))
        for name in ("timm_ts17", "timm_dynamo20_sdpa")
    )
    assert kinds(one) == kinds(other)
    for name, value in one.graph.initializers.items():
        assert value.const_value is not None
        twin = other.graph.initializers[name].const_value
        assert twin is not None
        np.testing.assert_allclose(value.const_value.numpy(), twin.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not REAL.is_dir(), reason="the pretrained models are not at hand")
@pytest.mark.parametrize("exporter", ["opset17_ts", "opset18_dynamo"])
def test_pretrained_model_agrees(exporter: str) -> None:
    model = load(REAL / f"vit_tiny_patch16_224_{exporter}.onnx")
    value = model.graph.inputs[0]
    image = np.random.default_rng(SEED).uniform(-1, 1, (3, 1, 3, 224, 224)).astype(np.float32)
    canonical = canonicalise(model)
    assert len(canonical.graph) == 2 + 12 * 12 + 3
    found = evaluate(canonical, {value.name or "": image[:, 0]}, ["logits"])["logits"]
    for place in range(3):
        wanted = evaluate(model, {value.name or "": image[place]}, ["logits"])["logits"]
        np.testing.assert_allclose(
            found[place : place + 1], wanted, atol=1e-4 * np.abs(wanted).max()
        )


def test_shared_tensor_is_computed_once() -> None:
    """Class and distillation token come out of one final norm."""
    for name in ("deit_distilled_ts13", "deit_distilled_dynamo20"):
        operations = kinds(canonicalise(load(ROOT / "tests" / "data" / f"{name}.onnx")))
        assert operations[-6:] == [
            "LayerNorm",
            "SelectToken",
            "SelectToken",
            "Linear",
            "Linear",
            "Add",
        ]
        assert operations.count("LayerNorm") == 2 * BLOCKS + 1
