"""Exports tiny vision transformers with random weights, in every spelling the exporters know.

The ``.onnx`` files beside this script are its output.  It needs what the tests do not: PyTorch,
timm, transformers and torchvision::

    python -m venv torchenv
    torchenv/bin/pip install torch timm transformers torchvision onnx onnxscript onnxruntime
    torchenv/bin/python tests/data/make_fixtures.py [NAME...]

Every file stays below 150 kB: 16 channels, two blocks, images of 16x16.  Mixtures of experts are
in ``mixtures.py``.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mixtures
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from torch import nn

SEED = 7
SIZE, PATCH, DIM, HEADS, DEPTH, CLASSES = 16, 4, 16, 2, 2, 5
FOLDER = Path(__file__).parent
LARGEST = 150_000


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """One file: a model, an exporter, an opset."""

    name: str
    build: Callable[[], nn.Module]
    exporter: str  # "ts", "dynamo" or "ort": TorchScript, then ONNX Runtime's fusions
    opset: int
    #: A dynamic batch, or one of this size.
    batch: int | None = None
    #: ``False``: constants are left in the graph as the exporter writes them.
    optimised: bool = True
    #: Task numbers for two pictures, where the model takes some; a single one serves both.
    task: tuple[int, ...] = ()


def mixed(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: mixtures.Mixed(getattr(mixtures, name), **options)


def tasked(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: mixtures.Tasked(getattr(mixtures, name), **options)


def heads(*shape: int, **options: Any) -> Callable[[], nn.Module]:
    return lambda: mixtures.RoutedHeads(*shape, **options)


def timm_vit(**options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from timm.layers import set_fused_attn
        from timm.models.vision_transformer import VisionTransformer

        set_fused_attn(options.pop("fused_attention", False))
        return VisionTransformer(
            img_size=SIZE, patch_size=PATCH, embed_dim=DIM, depth=DEPTH, num_heads=HEADS,
            num_classes=CLASSES, mlp_ratio=2, **options,
        )  # fmt: skip

    return build


def timm_deit_distilled() -> nn.Module:
    from timm.layers import set_fused_attn
    from timm.models.deit import VisionTransformerDistilled

    set_fused_attn(False)
    return VisionTransformerDistilled(
        img_size=SIZE, patch_size=PATCH, embed_dim=DIM, depth=DEPTH, num_heads=HEADS,
        num_classes=CLASSES, mlp_ratio=2,
    )  # fmt: skip


def torchvision_vit() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        image_size=SIZE, patch_size=PATCH, num_layers=DEPTH, num_heads=HEADS, hidden_dim=DIM,
        mlp_dim=2 * DIM, num_classes=CLASSES,
    )  # fmt: skip


class Outputs(nn.Module):
    """A Hugging Face model that returns plain tensors."""

    def __init__(self, model: nn.Module, *names: str) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.model(image)
        return tuple(getattr(found, name) for name in self.names)


def hf(model: str, config: str, *outputs: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        attention = options.pop("attention", "eager")
        sizes = {
            "hidden_size": DIM, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS,
            "image_size": SIZE, "patch_size": PATCH, "num_labels": CLASSES,
        }  # fmt: skip
        settings = getattr(transformers, config)(**sizes, **options, attn_implementation=attention)
        return Outputs(getattr(transformers, model)(settings), *outputs)

    return build


class Rearranged(nn.Module):
    """A ViT as written by hand: patches cut by reshapes, einsum, LayerNorm from its formula."""

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain, self.shift = nn.Parameter(torch.rand(DIM)), nn.Parameter(torch.rand(DIM))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            d = x - x.mean(-1, keepdim=True)
            return d / torch.sqrt((d * d).mean(-1, keepdim=True) + 1e-5) * self.gain + self.shift

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = Rearranged.Norm(), Rearranged.Norm()
            self.q, self.kv = nn.Linear(DIM, DIM, bias=False), nn.Linear(DIM, 2 * DIM, bias=False)
            self.out = nn.Linear(DIM, DIM)
            self.up, self.down = nn.Linear(DIM, 2 * DIM), nn.Linear(2 * DIM, DIM)
            self.scale = nn.Parameter(torch.rand(DIM))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, t, _ = x.shape
            y = self.norm1(x)
            k, v = self.kv(y).chunk(2, dim=-1)
            # heads are the fast axis of the channels here, unlike in timm
            q, k, v = (z.reshape(n, t, -1, HEADS).permute(0, 3, 1, 2) for z in (self.q(y), k, v))
            scores = torch.einsum("bhid,bhjd->bhij", q, k) / (DIM // HEADS) ** 0.5
            y = torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)
            x = x + self.scale * self.out(y.permute(0, 2, 1, 3).reshape(n, t, DIM))
            y = self.up(self.norm2(x))
            return self.down(torch.sigmoid(y) * y) + x

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * PATCH * PATCH, DIM)
        self.position = nn.Parameter(torch.rand(1, (SIZE // PATCH) ** 2, DIM))
        self.blocks = nn.Sequential(*(Rearranged.Block() for _ in range(DEPTH)))
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        x = (image - mean) / std
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // PATCH, PATCH, w // PATCH, PATCH)
        x = x.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, c * PATCH * PATCH)
        return self.head(self.blocks(self.embed(x) + self.position).mean(1))


class TorchEncoder(nn.Module):
    """torch.nn.TransformerEncoder, pre-norm, tokens first (not the batch)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, DIM, PATCH, PATCH)
        layer = nn.TransformerEncoderLayer(
            DIM, HEADS, 2 * DIM, dropout=0.0, activation="relu", norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, DEPTH, norm=nn.LayerNorm(DIM), enable_nested_tensor=False
        )
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.embed(image).flatten(2).permute(2, 0, 1)
        return self.head(self.encoder(x).mean(0))


_HF_MLP = {"intermediate_size": 2 * DIM}
FIXTURES = (
    Fixture(name="timm_ts13", build=timm_vit(), exporter="ts", opset=13, batch=1),
    Fixture(name="timm_ts17", build=timm_vit(), exporter="ts", opset=17),
    Fixture(name="timm_ts20_raw", build=timm_vit(), exporter="ts", opset=20, optimised=False),
    Fixture(name="timm_dynamo18", build=timm_vit(), exporter="dynamo", opset=18),
    Fixture(
        name="timm_dynamo20_sdpa", build=timm_vit(fused_attention=True), exporter="dynamo", opset=20
    ),
    Fixture(
        name="timm_dynamo23_sdpa", build=timm_vit(fused_attention=True), exporter="dynamo",
        opset=23, batch=2,
    ),
    Fixture(
        name="timm_ts14_sdpa_registers_layerscale", exporter="ts", opset=14,
        build=timm_vit(fused_attention=True, init_values=0.1, reg_tokens=3, no_embed_class=True),
    ),
    Fixture(
        name="timm_dynamo18_avg_noclass_tanh_prenorm", exporter="dynamo", opset=18,
        build=timm_vit(class_token=False, global_pool="avg", act_layer="gelu_tanh", pre_norm=True),
    ),
    Fixture(
        name="timm_ts17_avg_class_quickgelu", exporter="ts", opset=17,
        build=timm_vit(global_pool="avg", act_layer="quick_gelu", qkv_bias=False),
    ),
    Fixture(name="deit_distilled_ts13", build=timm_deit_distilled, exporter="ts", opset=13),
    Fixture(
        name="deit_distilled_dynamo20", build=timm_deit_distilled, exporter="dynamo", opset=20
    ),
    Fixture(name="torchvision_ts17", build=torchvision_vit, exporter="ts", opset=17),
    Fixture(name="torchvision_dynamo18", build=torchvision_vit, exporter="dynamo", opset=18),
    Fixture(
        name="hf_vit_ts13", exporter="ts", opset=13,
        build=hf("ViTForImageClassification", "ViTConfig", "logits", **_HF_MLP),
    ),
    Fixture(
        name="hf_vit_dynamo20_sdpa_pooler", exporter="dynamo", opset=20,
        build=hf(
            "ViTModel", "ViTConfig", "last_hidden_state", "pooler_output", attention="sdpa",
            **_HF_MLP,
        ),
    ),
    Fixture(
        name="hf_deit_ts17", exporter="ts", opset=17,
        build=hf("DeiTForImageClassificationWithTeacher", "DeiTConfig", "logits", **_HF_MLP),
    ),
    Fixture(
        name="hf_dinov2_ts17", exporter="ts", opset=17,
        build=hf(
            "Dinov2Model", "Dinov2Config", "last_hidden_state", "pooler_output", mlp_ratio=2
        ),
    ),
    Fixture(
        name="hf_clip_ts18", exporter="ts", opset=18,
        build=hf("CLIPVisionModel", "CLIPVisionConfig", "pooler_output", **_HF_MLP),
    ),
    Fixture(
        name="hf_siglip_dynamo18", exporter="dynamo", opset=18,
        build=hf(
            "SiglipVisionModel", "SiglipVisionConfig", "last_hidden_state",
            vision_use_head=False, **_HF_MLP,
        ),
    ),
    Fixture(name="rearranged_ts13", build=Rearranged, exporter="ts", opset=13),
    Fixture(name="rearranged_dynamo18", build=Rearranged, exporter="dynamo", opset=18, batch=1),
    Fixture(name="torch_encoder_ts17", build=TorchEncoder, exporter="ts", opset=17),
    Fixture(name="timm_ort_fused", build=timm_vit(), exporter="ort", opset=17),
    Fixture(
        name="hf_vit_ort_fused", exporter="ort", opset=17,
        build=hf("ViTForImageClassification", "ViTConfig", "logits", **_HF_MLP),
    ),
    Fixture(name="moe_masked_ts13", build=mixed("Masked", shared=True), exporter="ts", opset=13),
    Fixture(name="moe_masked_ort17", build=mixed("Masked", shared=True), exporter="ort", opset=17),
    Fixture(name="moe_one_hot_ts17", build=mixed("OneHot"), exporter="ts", opset=17),
    Fixture(name="moe_one_hot_dynamo20", build=mixed("OneHot"), exporter="dynamo", opset=20),
    Fixture(
        name="moe_scattered_dynamo18", build=mixed("Scattered"), exporter="dynamo", opset=18,
        batch=1,
    ),
    Fixture(name="moe_einsum_ts17", build=mixed("Einsum"), exporter="ts", opset=17),
    Fixture(name="moe_einsum_dynamo18", build=mixed("Einsum"), exporter="dynamo", opset=18),
    Fixture(name="moe_batched_ts13", build=mixed("Batched"), exporter="ts", opset=13),
    Fixture(name="moe_batched_dynamo20", build=mixed("Batched"), exporter="dynamo", opset=20),
    Fixture(name="moe_chosen_dynamo20", build=mixed("Chosen"), exporter="dynamo", opset=20),
    Fixture(name="moe_picked_ts17", build=mixed("Picked"), exporter="ts", opset=17),
    Fixture(name="moe_picked_dynamo18", build=mixed("Picked"), exporter="dynamo", opset=18),
    Fixture(name="moe_assigned_dynamo20", build=mixed("Assigned"), exporter="dynamo", opset=20),
    Fixture(
        name="moe_tasks_ts17", build=tasked("Masked", head="einsum"), exporter="ts", opset=17,
        task=(0, 2),
    ),
    Fixture(
        name="moe_tasks_dynamo18", build=tasked("Masked", head="bmm"), exporter="dynamo",
        opset=18, task=(0, 2),
    ),
    Fixture(
        name="moe_task_for_all_dynamo20", build=tasked("OneHot", head="index_select"),
        exporter="dynamo", opset=20, task=(1,),
    ),
    Fixture(name="moh_balanced_ts17", build=heads(8, 3, 2), exporter="ts", opset=17),
    Fixture(name="moh_balanced_dynamo18", build=heads(8, 3, 2), exporter="dynamo", opset=18),
    Fixture(name="moh_one_shared_dynamo20", build=heads(4, 1, 2), exporter="dynamo", opset=20),
    Fixture(name="moh_plain_ts14", build=heads(4, 0, 2, plain=True), exporter="ts", opset=14),
    Fixture(
        name="moh_plain_shared_dynamo18", build=heads(8, 3, 4, plain=True), exporter="dynamo",
        opset=18, batch=1,
    ),
)  # fmt: skip


def randomise(model: nn.Module) -> None:
    """Weights of ordinary size everywhere: initial zeros and ones would hide mistakes."""
    for parameter in model.parameters():
        with torch.no_grad():
            noise = torch.randn_like(parameter)
            parameter.add_(noise * (0.2 if parameter.ndim < 3 else 0.05))


def ort_fuse(source: Path, target: Path) -> None:
    """ONNX Runtime's transformer optimizer."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("vit")
    options.enable_gelu_approximation = target.stem.startswith("hf")
    fused = optimizer.optimize_model(
        str(source), model_type="vit", num_heads=HEADS, hidden_size=DIM, opt_level=0,
        optimization_options=options,
    )  # fmt: skip
    print("   ", fused.get_fused_operator_statistics())
    fused.save_model_to_file(str(target))


def export(fixture: Fixture) -> None:
    """Write one file."""
    torch.manual_seed(SEED)
    model = fixture.build().eval()
    randomise(model)
    image = torch.randn(fixture.batch or 2, 3, SIZE, SIZE)
    target = FOLDER / f"{fixture.name}.onnx"
    args, names = (image,), ["image"]
    axes: dict[str, dict[int, Any]] = {"image": {} if fixture.batch else {0: "batch"}}
    if fixture.task:
        args, names = (image, torch.tensor(fixture.task)), ["image", "task"]
        axes["task"] = {0: "batch"} if len(fixture.task) > 1 else {}
    common: dict[str, Any] = {"input_names": names, "opset_version": fixture.opset}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        draft = Path(folder) / "draft.onnx"
        if fixture.exporter == "dynamo":
            batch = torch.export.Dim("batch")
            shapes = tuple(dict.fromkeys(axes[name], batch) for name in names)
            torch.onnx.export(
                model, args, draft, dynamo=True, external_data=False,
                optimize=fixture.optimised, dynamic_shapes=shapes, verbose=False, **common,
            )  # fmt: skip
        else:
            torch.onnx.export(
                model, args, str(draft), dynamo=False, dynamic_axes=axes,
                do_constant_folding=fixture.optimised, **common,
            )  # fmt: skip
        if fixture.exporter == "ort":
            ort_fuse(draft, target)
        else:
            exported = ir.load(draft)
            passes.ClearMetadataAndDocStringPass()(exported)
            ir.save(exported, target)
    onnx.checker.check_model(str(target))
    size = target.stat().st_size
    print(f"{fixture.name:40} {size:7} bytes")
    if size > LARGEST:
        raise SystemExit(f"{target} has {size} bytes, more than {LARGEST}")


def main() -> None:
    """Export the named fixtures, or all."""
    warnings.simplefilter("ignore")
    # its fused kernel has no ONNX spelling
    torch.backends.mha.set_fastpath_enabled(False)
    names = sys.argv[1:]
    for fixture in FIXTURES:
        if not names or fixture.name in names:
            export(fixture)


if __name__ == "__main__":
    main()
