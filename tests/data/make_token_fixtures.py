"""Exports the blocks of ``blocks.py`` by both exporters; the files in ``tokens`` are its output.

It needs PyTorch, as ``make_fixtures.py`` says::

    torchenv/bin/python tests/data/make_token_fixtures.py [NAME...]
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import onnx
import torch
from blocks import BLOCKS, SIZE, Net
from torch import nn

SEED = 13
FOLDER = Path(__file__).parent / "tokens"
LARGEST = 40_000
OPSET = 18


def perturbed(model: nn.Module) -> nn.Module:
    """With parameters and statistics that all differ from what they are before training."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.2 * torch.randn_like(parameter))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model


def build(name: str) -> nn.Module:
    """A block; those whose size the image says have seen one."""
    torch.manual_seed(SEED)
    model = Net(BLOCKS[name]()).eval()
    with torch.no_grad():
        model(torch.randn(2, 3, SIZE, SIZE))
    return perturbed(model)


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


def export(name: str, file: Path, *, dynamo: bool) -> None:
    """Write a block with any number of images."""
    batch = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if dynamo else {
        "dynamic_axes": {"image": {0: "n"}, "logits": {0: "n"}}
    }  # fmt: skip
    images = torch.randn(2, 3, SIZE, SIZE)
    torch.onnx.export(
        build(name), (images,), file, dynamo=dynamo, opset_version=OPSET,
        input_names=["image"], output_names=["logits"], external_data=False, **batch,
    )  # fmt: skip
    strip(file)


def write(folder: Path, names: Iterable[str], export: Callable[..., None]) -> None:
    """A file of each name by either exporter: ``export(name, file, dynamo=...)``."""
    warnings.simplefilter("ignore")
    for name in names:
        for exporter in ("ts", "dynamo"):
            file = folder / f"{name}_{exporter}.onnx"
            export(name, file, dynamo=exporter == "dynamo")
            size = file.stat().st_size
            if size > LARGEST:
                raise SystemExit(f"{file} has {size} bytes, more than {LARGEST}")
            print(file.name, size, flush=True)


def main() -> None:
    """Write the files of the blocks named, of all of them without a name."""
    FOLDER.mkdir(exist_ok=True)
    write(FOLDER, sys.argv[1:] or BLOCKS, export)


if __name__ == "__main__":
    main()
