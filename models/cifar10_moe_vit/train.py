"""Train a mixture of experts for two tasks on CIFAR-10 on a CPU, and export it.

Run from the repository's root, in an environment with the extras ``train`` and ``compiler``::

    python -m models.cifar10_moe_vit.train --data ../shared/data/cifar10 --minutes 62

Task 0 names the object; task 1 tells by how many quarter turns the picture has been turned
anticlockwise, 0 to 3 (the other logits stay low).  Training starts from ``cifar10_vit``, and
follows the clock; see ``models/training.py``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from models.datasets import Pictures, cifar10, quarter_turns
from models.initialise import state_of, upcycle
from models.moe import MixtureConfig, MixtureViT
from models.training import (
    arguments,
    check_onnx,
    crop_and_flip,
    drop_patches,
    fit,
    normalise,
)
from models.training import export as export_file
from models.vit import ViTConfig

HERE = Path(__file__).parent
START = HERE.parent / "cifar10_vit" / "model.onnx"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CONFIG = ViTConfig(image=32, patch=4, channels=3, classes=10, dim=96, depth=4, heads=3, pool="mean")
MIXTURE = MixtureConfig(tasks=2, experts=8, choices=2, hidden=192)
OBJECT, TURN = range(MIXTURE.tasks)
OPSET = 18

#: Pictures of a step; the second half is turned, for the second task.
BATCH = 256
LABEL_SMOOTHING = 0.1
#: Weight of the balance of each mixture: enough that no expert is idle, over both tasks together.
BALANCE = 0.02
#: Until this share of the time only KEEP of the 64 patches are shown.
FULL_FROM, KEEP = 0.6, 32
CHECKPOINT = "cifar10_moe_vit.pt"


def turn(image: Tensor, turns: Tensor) -> Tensor:
    """Turn each picture, ``[n, channels, side, side]``, by its number of quarters."""
    turned = torch.empty_like(image)
    for quarters in range(4):
        picked = turns == quarters
        turned[picked] = torch.rot90(image[picked], quarters, (2, 3))
    return turned


def train(pictures: Pictures, args: argparse.Namespace) -> None:
    """Train for ``args.minutes`` of wall time; leave the averaged weights in ``args.work``."""
    torch.manual_seed(args.seed)
    image, label = normalise(pictures.image, MEAN, STD), torch.from_numpy(pictures.label)
    model = MixtureViT(CONFIG, MIXTURE)
    upcycle(model, state_of(START))
    if args.resume:
        model.load_state_dict(torch.load(args.work / CHECKPOINT, weights_only=True))
    task = torch.arange(BATCH) * MIXTURE.tasks // BATCH

    def loss(index: Tensor, progress: float) -> Tensor:
        turns = torch.where(task == TURN, torch.randint(4, (BATCH,)), 0)
        wanted = torch.where(task == TURN, turns, label[index])
        tokens = model.embed(turn(crop_and_flip(image[index], pad=4, flip=True), turns))
        if progress < FULL_FROM:
            tokens = drop_patches(tokens, KEEP, first=0)
        logits = model.classify(tokens, task)
        balance = torch.stack([mixture.balance for mixture in model.mixtures]).sum()
        return F.cross_entropy(logits, wanted, label_smoothing=LABEL_SMOOTHING) + BALANCE * balance

    fit(model, loss, len(image), batch=BATCH, args=args, checkpoint=CHECKPOINT)


@torch.inference_mode()
def loads(model: MixtureViT, image: Tensor, task: int) -> str:
    """Tell each mixture's share of the choices of one task, expert by expert, in percent."""
    model(image, torch.full((len(image),), task))
    return "; ".join(
        " ".join(f"{100 * share:.0f}" for share in mixture.load) for mixture in model.mixtures
    )


def export(pictures: Pictures, args: argparse.Namespace) -> None:
    """Write ``model.onnx`` from the averaged weights and measure it on the test pictures."""
    model = MixtureViT(CONFIG, MIXTURE)
    model.load_state_dict(torch.load(args.work / CHECKPOINT, weights_only=True))
    model.eval()
    path = args.output / "model.onnx"
    inputs = {
        "image": torch.zeros(2, CONFIG.channels, CONFIG.image, CONFIG.image),
        "task": torch.tensor([OBJECT, TURN]),
    }
    export_file(model, inputs, path, ["logits"], opset=OPSET)
    for task, tests in ((OBJECT, pictures), (TURN, quarter_turns(pictures.image))):
        image, label = normalise(tests.image, MEAN, STD), torch.from_numpy(tests.label)
        # the model computes each expert on its own tokens, the export on all: a check of both
        top1 = check_onnx(path, model, image, label, task)
        print(f"task {task}: float top-1 {top1:.2f} % of {len(label)}")
        print(f"task {task}: choices, percent: {loads(model, image[:1000], task)}")


def main() -> None:
    """Parse the command line, train, export."""
    parser = arguments(__doc__.splitlines()[0], HERE, minutes=62)
    parser.set_defaults(muon=2e-3, adam=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.export_only:
        train(cifar10(args.data, "train"), args)
    export(cifar10(args.data, "test"), args)


if __name__ == "__main__":
    main()
