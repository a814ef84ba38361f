"""Exports the blocks of ``blocks.py`` by both exporters; the files in ``tokens`` are its output.

It needs PyTorch, as ``make_fixtures.py`` says::

    torchenv/bin/python tests/data/make_token_fixtures.py [NAME...]
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import onnx
import torch
from blocks import BLOCKS, SIZE, Net
from torch import nn

SEED = 13
FOLDER = Path(__file__).parent / "tokens"
LARGEST = 40_000
OPSET = 18


def build(name: str) -> nn.Module:
    """A block with parameters that all differ from what they are before training."""
    torch.manual_seed(SEED)
    model = Net(BLOCKS[name]())
    model.eval()
    with torch.no_grad():
        model(torch.randn(2, 3, SIZE, SIZE))
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.2 * torch.randn_like(parameter))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model


def strip(file: Path) -> None:
    """Drop what dynamo notes about where everything came from."""
    model = onnx.load(file)
    del model.metadata_props[:]
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input,
                 *model.graph.output, *model.graph.initializer):  # fmt: skip
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    del model.graph.value_info[:]
    onnx.save(model, file)


def main() -> None:
    """Write the files of the blocks named, of all of them without a name."""
    warnings.simplefilter("ignore")
    FOLDER.mkdir(exist_ok=True)
    images = torch.randn(2, 3, SIZE, SIZE)
    for name in sys.argv[1:] or BLOCKS:
        for exporter in ("ts", "dynamo"):
            file = FOLDER / f"{name}_{exporter}.onnx"
            dynamo = exporter == "dynamo"
            batch = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if dynamo else {
                "dynamic_axes": {"image": {0: "n"}, "logits": {0: "n"}}
            }  # fmt: skip
            torch.onnx.export(
                build(name), (images,), file, dynamo=dynamo, opset_version=OPSET,
                input_names=["image"], output_names=["logits"], external_data=False, **batch,
            )  # fmt: skip
            strip(file)
            size = file.stat().st_size
            if size > LARGEST:
                raise SystemExit(f"{file} has {size} bytes, more than {LARGEST}")
            print(file.name, size, flush=True)


if __name__ == "__main__":
    main()
