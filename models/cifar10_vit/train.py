"""Train the CIFAR-10 vision transformer on a CPU, and export it with torch's dynamo exporter.

Run from the repository's root, in an environment with the extras ``train`` and ``compiler``::

    python -m models.cifar10_vit.train --data ../shared/data/cifar10 --minutes 65

The schedule follows the clock, so that a run ends when it should on any machine. The averaged
weights are saved after every epoch; ``--export-only`` writes the ONNX file from them, ``--resume``
trains on from them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from models.datasets import Pictures, cifar10
from models.initialise import mimetic
from models.training import (
    accuracy,
    check_onnx,
    crop_and_flip,
    drop_patches,
    normalise,
    optimisers,
    strip_metadata,
    trapezoid,
)
from models.vit import ViT, ViTConfig

HERE = Path(__file__).parent
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CONFIG = ViTConfig(image=32, patch=4, channels=3, classes=10, dim=96, depth=4, heads=3)
OPSET = 18

BATCH = 128
LABEL_SMOOTHING = 0.1
EMA_DECAY = 0.998
#: Until this share of the time only KEEP of the 64 patches are shown: twice the epochs, and the
#: dropping augments. The remaining time is for the network as it will be used.
FULL_FROM, KEEP = 0.7, 32
CHECKPOINT = "cifar10_vit.pt"


def _moving_average(average: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
    """Average exponentially, forgetting faster at first so that the start leaves no trace."""
    decay = min(EMA_DECAY, (1 + int(updates)) / (10 + int(updates)))
    return average.lerp(new, 1 - decay)


def train(pictures: Pictures, args: argparse.Namespace) -> None:
    """Train for ``args.minutes`` of wall time; leave the averaged weights in ``args.work``."""
    torch.manual_seed(args.seed)
    image, label = normalise(pictures.image, MEAN, STD), torch.from_numpy(pictures.label)
    model = ViT(CONFIG)
    mimetic(model)
    if args.resume:
        model.load_state_dict(torch.load(args.work / CHECKPOINT, weights_only=True))
    average = AveragedModel(model, avg_fn=_moving_average)
    opts = optimisers(model, muon=args.muon, adam=args.adam, weight_decay=args.weight_decay)
    peaks = [opt.param_groups[0]["lr"] for opt in opts]
    start, budget, epoch, progress = time.monotonic(), 60 * args.minutes, 0, 0.0
    while progress < 1:
        losses = []
        for index in torch.randperm(len(image)).split(BATCH)[:-1]:
            progress = (time.monotonic() - start) / budget
            if progress >= 1:
                break
            rate = trapezoid(progress, warm=0.05, hold=0.3)
            for opt, peak in zip(opts, peaks, strict=True):
                opt.param_groups[0]["lr"] = rate * peak
            batch = crop_and_flip(image[index], pad=4, flip=True)
            tokens = model.embed(batch)
            if progress < FULL_FROM:
                tokens = drop_patches(tokens, KEEP)
            logits = model.classify(tokens)
            loss = F.cross_entropy(logits, label[index], label_smoothing=LABEL_SMOOTHING)
            loss.backward()
            for opt in opts:
                opt.step()
                opt.zero_grad()
            average.update_parameters(model)
            losses.append(loss.item())
        epoch += 1
        torch.save(average.module.state_dict(), args.work / CHECKPOINT)
        minutes = (time.monotonic() - start) / 60
        mean = sum(losses) / max(1, len(losses))
        shown = BATCH * len(losses)
        print(f"epoch {epoch}: {minutes:.1f} min, {shown} pictures, loss {mean:.4f}", flush=True)


def export(pictures: Pictures, args: argparse.Namespace) -> None:
    """Write ``model.onnx`` from the averaged weights and measure it on the test pictures."""
    image, label = normalise(pictures.image, MEAN, STD), torch.from_numpy(pictures.label)
    model = ViT(CONFIG)
    model.load_state_dict(torch.load(args.work / CHECKPOINT, weights_only=True))
    model.eval()
    print(f"float top-1 (torch): {accuracy(model, image, label):.2f} % of {len(label)}")
    path = args.output / "model.onnx"
    torch.onnx.export(
        model,
        (image[:2],),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
    )
    strip_metadata(path)
    print(f"float top-1 (ONNX Runtime): {check_onnx(path, model, image, label):.2f} %")


def main() -> None:
    """Parse the command line, train, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cifar10"))
    parser.add_argument("--minutes", type=float, default=65, help="wall time for the training")
    parser.add_argument("--work", type=Path, default=Path("build/models"), help="checkpoints")
    parser.add_argument("--output", type=Path, default=HERE, help="where model.onnx goes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--muon", type=float, default=3e-3, help="Muon's peak learning rate")
    parser.add_argument("--adam", type=float, default=2e-3, help="AdamW's peak learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--resume", action="store_true", help="start from the saved weights")
    parser.add_argument("--export-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.export_only:
        train(cifar10(args.data, "train"), args)
    export(cifar10(args.data, "test"), args)


if __name__ == "__main__":
    main()
