"""Train the handwritten-digits vision transformer, and export it with the TorchScript exporter.

Run from the repository's root, in an environment with the extras ``train``, ``test`` and
``compiler`` (one core, about two minutes)::

    python -m models.digits_vit.train
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn import functional as F

from models.datasets import digits
from models.training import (
    crop_and_flip,
    export_classifier,
    normalise,
    optimisers,
    trapezoid,
)
from models.vit import ViT, ViTConfig

HERE = Path(__file__).parent
MEAN, STD = (0.305,), (0.376,)
CONFIG = ViTConfig(
    image=8,
    patch=2,
    channels=1,
    classes=10,
    dim=32,
    depth=3,
    heads=2,
    activation="silu",
    pool="mean",
)
OPSET = 17
BATCH = 64
LABEL_SMOOTHING = 0.05


def train(epochs: int) -> ViT:
    """Train on the fixed training half, pictures shifted by up to one pixel."""
    pictures = digits("train")
    image, label = normalise(pictures.image, MEAN, STD), torch.from_numpy(pictures.label)
    model = ViT(CONFIG)
    opts = optimisers(model, muon=3e-3, adam=2e-3, weight_decay=0.1)
    peaks = [opt.param_groups[0]["lr"] for opt in opts]
    steps_an_epoch = len(image) // BATCH
    for step in range(epochs * steps_an_epoch):
        if step % steps_an_epoch == 0:
            order = torch.randperm(len(image))
        index = order[(step % steps_an_epoch) * BATCH :][:BATCH]
        rate = trapezoid(step / (epochs * steps_an_epoch), warm=0.05, hold=0.3)
        for opt, peak in zip(opts, peaks, strict=True):
            opt.param_groups[0]["lr"] = rate * peak
        logits = model(crop_and_flip(image[index], pad=1, flip=False))
        loss = F.cross_entropy(logits, label[index], label_smoothing=LABEL_SMOOTHING)
        loss.backward()
        for opt in opts:
            opt.step()
            opt.zero_grad()
    return model.eval()


def export(model: ViT, path: Path) -> None:
    """Write the ONNX file and measure both it and the model on the test half."""
    pictures = digits("test")
    image, label = normalise(pictures.image, MEAN, STD), torch.from_numpy(pictures.label)
    export_classifier(model, image, label, path, opset=OPSET, dynamo=False)


def main() -> None:
    """Parse the command line, train, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--output", type=Path, default=HERE, help="where model.onnx goes")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    export(train(args.epochs), args.output / "model.onnx")


if __name__ == "__main__":
    main()
