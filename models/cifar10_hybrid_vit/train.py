"""Train the hierarchical CIFAR-10 transformer on a CPU, and export it with the dynamo exporter.

Run from the repository's root, in an environment with the extras ``train`` and ``compiler``::

    python -m models.cifar10_hybrid_vit.train --data ../shared/data/cifar10 --minutes 85

Convolutions and matrix products are computed in bfloat16, which processors with AVX-512 BF16 do at
up to twice the speed. The schedule follows the clock, so that a run ends when it should on any
machine. The averaged weights are saved after every epoch; ``--export-only`` writes the ONNX file
from them, ``--resume`` trains on from them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.datasets import Pictures, cifar10
from models.hybrid import HybridConfig, HybridViT
from models.initialise import principal_patches
from models.training import (
    arguments,
    crop_and_flip,
    export_classifier,
    fit,
    normalise,
)

HERE = Path(__file__).parent
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CONFIG = HybridConfig(
    image=32, channels=3, classes=10, stem=24,
    widths=(64, 96, 128), convolutions=(1, 1, 0), blocks=(0, 2, 1),
)
OPSET = 18

BATCH = 128
LABEL_SMOOTHING = 0.1
CHECKPOINT = "cifar10_hybrid_vit.pt"


def train(pictures: Pictures, args: argparse.Namespace) -> None:
    """Train for ``args.minutes`` of wall time; leave the averaged weights in ``args.work``."""
    torch.manual_seed(args.seed)
    image, label = normalise(pictures.image, MEAN, STD), torch.from_numpy(pictures.label)
    model = HybridViT(CONFIG)
    principal_patches(model.stem.conv, image)
    if args.resume:
        model.load_state_dict(torch.load(args.work / CHECKPOINT, weights_only=True))

    def loss(index: Tensor, _progress: float) -> Tensor:
        # The fused attention's gradient takes a CPU five times as long for so few tokens.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            logits = model(crop_and_flip(image[index], pad=4, flip=True))
        return F.cross_entropy(logits.float(), label[index], label_smoothing=LABEL_SMOOTHING)

    fit(model, loss, len(image), batch=BATCH, args=args, checkpoint=CHECKPOINT)


def export(pictures: Pictures, args: argparse.Namespace) -> None:
    """Write ``model.onnx`` from the averaged weights and measure it on the test pictures."""
    image, label = normalise(pictures.image, MEAN, STD), torch.from_numpy(pictures.label)
    model = HybridViT(CONFIG)
    model.load_state_dict(torch.load(args.work / CHECKPOINT, weights_only=True))
    export_classifier(model.eval(), image, label, args.output / "model.onnx", opset=OPSET)


def main() -> None:
    """Parse the command line, train, export."""
    args = arguments(__doc__.splitlines()[0], HERE, minutes=85).parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.export_only:
        train(cifar10(args.data, "train"), args)
    export(cifar10(args.data, "test"), args)


if __name__ == "__main__":
    main()
