"""Published networks with random weights to ONNX, for :mod:`bench.networks`.

``python bench/export.py FOLDER [NAME ...]``, in a Python with timm and PyTorch: they are no part of
this repository's.  Parameters of one dimension are changed a little, and the statistics of
BatchNorm, because much of an untrained network hides behind zeros and ones.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

#: timm's names, by those of the results; pictures of 224 x 224, whole networks but for `STAGES`.
NETWORKS = {
    "swin_t": "swin_tiny_patch4_window7_224",
    "pvt_v2_b0": "pvt_v2_b0",
    "caformer_s18": "caformer_s18",
    "convnext_atto": "convnext_atto",
    "mixer_s32": "mixer_s32_224",
    "poolformer_s12": "poolformer_s12",
    "maxvit_tiny_stages": "maxvit_tiny_tf_224",
}
#: Networks of which the last stages are exported, with the head: the first of these stages, and
#: the map that goes in.  MaxViT's first two stages do not fit the token memory of `kv260`.
STAGES = {"maxvit_tiny_stages": (2, (128, 28, 28))}
_SPREAD = 0.02
_OPSET = 17


def input_shape(name: str) -> tuple[int, int, int]:
    """Channels, height and width of what goes into a network."""
    return STAGES[name][1] if name in STAGES else (3, 224, 224)


def export(name: str, path: Path) -> None:
    """Write the network to ``path`` with torch's TorchScript exporter."""
    # By name: type checkers do not find them in this repository's environment.
    timm, torch, layers = map(import_module, ("timm", "torch", "timm.layers"))
    layers.set_exportable(True)
    torch.manual_seed(0)
    model = timm.create_model(NETWORKS[name], pretrained=False)
    shape = input_shape(name)
    if name in STAGES:
        first, _ = STAGES[name]
        model = torch.nn.Sequential(*model.stages[first:], model.norm, model.head)
    with torch.no_grad():
        for label, values in model.named_buffers():
            if "running_var" in label:
                values.uniform_(0.5, 1.5)
            elif "running_mean" in label:
                values.normal_(0, 0.1)
        for _, values in model.named_parameters():
            if values.ndim == 1:
                values.add_(torch.randn_like(values) * _SPREAD)
        torch.onnx.export(
            model.eval(), (torch.randn(2, *shape),), str(path), input_names=["image"],
            dynamic_axes={"image": {0: "N"}}, opset_version=_OPSET, dynamo=False,
        )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for chosen in sys.argv[2:] or NETWORKS:
        export(chosen, folder / f"{chosen}.onnx")
        print(folder / f"{chosen}.onnx")
