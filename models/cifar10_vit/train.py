"""Train the CIFAR-10 vision transformer on a CPU, and export it with torch's dynamo exporter.

Run from the repository's root, in an environment with the extras ``train`` and ``compiler``::

    python -m models.cifar10_vit.train --data ../shared/data/cifar10 --minutes 65

The schedule follows the clock, so that a run ends when it should on any machine. The averaged
weights are saved after every epoch; ``--export-only`` writes the ONNX file from them, ``--resume``
trains on from them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from models.datasets import Pictures, cifar10
from models.initialise import mimetic
from models.training import (
    arguments,
    crop_and_flip,
    drop_patches,
    export_classifier,
    fit,
    normalise,
)
from models.vit import ViT, ViTConfig

HERE = Path(__file__).parent
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CONFIG = ViTConfig(image=32, patch=4, channels=3, classes=10, dim=96, depth=4, heads=3)
OPSET = 18

BATCH = 128
LABEL_SMOOTHING = 0.1
#: Until this share of the time only KEEP of the 64 patches are shown: twice the epochs, and the
#: dropping augments. The remaining time is for the network as it will be used.
FULL_FROM, KEEP = 0.7, 32
CHECKPOINT = "cifar10_vit.pt"


def train(pictures: Pictures, args: argparse.Namespace) -> None:
    """Train for ``args.minutes`` of wall time; leave the averaged weights in ``args.work``."""
    torch.manual_seed(args.seed)
    image, label = normalise(pictures.image, MEAN, STD), torch.from_numpy(pictures.label)
    model = ViT(CONFIG)
    mimetic(model)
    if args.resume:
        model.load_state_dict(torch.load(args.work / CHECKPOINT, weights_only=True))

    def loss(index: Tensor, progress: float) -> Tensor:
        tokens = model.embed(crop_and_flip(image[index], pad=4, flip=True))
        if progress < FULL_FROM:
            tokens = drop_patches(tokens, KEEP)
        logits = model.classify(tokens)
        return F.cross_entropy(logits, label[index], label_smoothing=LABEL_SMOOTHING)

    fit(model, loss, len(image), batch=BATCH, args=args, checkpoint=CHECKPOINT)


def export(pictures: Pictures, args: argparse.Namespace) -> None:
    """Write ``model.onnx`` from the averaged weights and measure it on the test pictures."""
    image, label = normalise(pictures.image, MEAN, STD), torch.from_numpy(pictures.label)
    model = ViT(CONFIG)
    model.load_state_dict(torch.load(args.work / CHECKPOINT, weights_only=True))
    export_classifier(model.eval(), image, label, args.output / "model.onnx", opset=OPSET)


def main() -> None:
    """Parse the command line, train, export."""
    args = arguments(__doc__.splitlines()[0], HERE, minutes=65).parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.export_only:
        train(cifar10(args.data, "train"), args)
    export(cifar10(args.data, "test"), args)


if __name__ == "__main__":
    main()
