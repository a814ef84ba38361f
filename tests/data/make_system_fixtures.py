"""Exports the systems of the package ``systems`` by both exporters, beside their modules.

It needs PyTorch, as ``make_fixtures.py`` says::

    torchenv/bin/python tests/data/make_system_fixtures.py [NAME...]

Every module has ``SYSTEMS``: what makes a model, by its name.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import systems
import torch
from make_token_fixtures import OPSET, SEED, perturbed, strip, write
from systems.encoder import SIZE
from torch import nn

FOLDER = Path(__file__).parent / "systems"


def every() -> dict[str, Callable[[], nn.Module]]:
    """All systems by name."""
    found: dict[str, Callable[[], nn.Module]] = {}
    for module in pkgutil.iter_modules(systems.__path__):
        found |= getattr(importlib.import_module(f"systems.{module.name}"), "SYSTEMS", {})
    return found


def build(make: Callable[[], nn.Module]) -> nn.Module:
    """A system as if it were trained."""
    torch.manual_seed(SEED)
    return perturbed(make().eval())


def shorten(file: Path) -> None:
    """Give nodes and what they make short names: those of TorchScript are most of its file."""
    model = onnx.load(file)
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    kept |= {value.name for value in model.graph.initializer}
    short: dict[str, str] = {}
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
        for place, name in enumerate(node.input):
            node.input[place] = short.get(name, name)
        for place, name in enumerate(node.output):
            if name and name not in kept:
                short[name] = f"{number}.{place}"
                node.output[place] = short[name]
    onnx.save(model, file)


def export(model: nn.Module, file: Path, *, dynamo: bool, opset: int = OPSET) -> None:
    """Write a file with any number of images; a second input is a task number."""
    inputs = list(inspect.signature(model.forward).parameters)
    feed = (torch.randn(2, 3, SIZE, SIZE), torch.tensor([0, 1]))[: len(inputs)]
    with torch.no_grad():
        found = model(*feed)
    outputs = ["logits", "boxes"][: len(found)] if isinstance(found, tuple) else ["logits"]
    batch = {"dynamic_shapes": tuple({0: torch.export.Dim("n")} for _ in inputs)} if dynamo else {
        "dynamic_axes": {name: {0: "n"} for name in (*inputs, *outputs)}
    }  # fmt: skip
    torch.onnx.export(
        model, feed, file, dynamo=dynamo, opset_version=opset, input_names=inputs,
        output_names=outputs, external_data=False, **batch,
    )  # fmt: skip
    strip(file)
    shorten(file)


def main() -> None:
    """Write the files of the systems named, of all of them without a name."""
    makers = every()
    write(
        FOLDER, sys.argv[1:] or makers,
        lambda name, file, dynamo: export(build(makers[name]), file, dynamo=dynamo),
    )  # fmt: skip


if __name__ == "__main__":
    main()
