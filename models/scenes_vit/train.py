"""Train a transformer that segments scenes and detects what is in them; export one file for each.

Both tasks share the trunk while they are learned, each has its heads.  Run from the repository's
root, in an environment with the extras ``train``, ``test`` and ``compiler``::

    python -m models.scenes_vit.train
    python -m models.scenes_vit.train --scenes 16000 --minutes 8 --seed 2 --resume
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.initialise import sinusoids
from models.scenes import CLASSES, NOTHING, SIDE, Painter
from models.training import arguments, export, fit, normalise
from models.vit import ViT, ViTConfig

HERE = Path(__file__).parent
MEAN, STD = (0.2,), (0.25,)
PATCH = 8
CONFIG = ViTConfig(
    image=SIDE,
    patch=PATCH,
    overlap=4,
    channels=1,
    classes=len(CLASSES),
    dim=48,
    depth=3,
    heads=3,
    activation="relu",
    pool="none",
)
OPSET = 18
BATCH = 64
CHECKPOINT = "scenes_vit.pt"
#: Weights of a patch that is no digit's centre, and of the losses beside that of the names.
BACKGROUND, MASKS, L1, GIOU = 0.3, 20.0, 5.0, 2.0


class SceneViT(ViT):
    """A :class:`ViT` without a pool, whose patches say what their pixels are and what is there."""

    def __init__(self, cfg: ViTConfig) -> None:
        super().__init__(cfg)
        self.pixels = nn.Linear(cfg.dim, cfg.classes * cfg.patch**2)
        self.box = nn.Sequential(nn.Linear(cfg.dim, cfg.dim), nn.ReLU(), nn.Linear(cfg.dim, 4))
        with torch.no_grad():
            self.pos_embed[0] = 0.5 * sinusoids(cfg.image // cfg.patch, cfg.dim)

    def masks(self, tokens: Tensor) -> Tensor:
        """Logits of every pixel, ``[n, classes, image, image]``."""
        rows = self.cfg.image // self.cfg.patch
        patches = self.pixels(tokens).transpose(1, 2).unflatten(2, (rows, rows))
        return F.pixel_shuffle(patches, self.cfg.patch)

    def objects(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """For every patch the logits of what has its centre there, and its box.

        Returns
        -------
        tuple of Tensor
            ``[n, patches, classes]``, and centre and extent (x, y, width, height) as shares of
            the picture, ``[n, patches, 4]``.
        """
        return self.head(tokens), self.box(tokens).sigmoid()


class Segment(nn.Module):
    """What is exported for segmentation."""

    def __init__(self, model: SceneViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """See :meth:`SceneViT.masks`."""
        return self.model.masks(self.model.features(self.model.embed(image)))


class Detect(nn.Module):
    """What is exported for detection."""

    def __init__(self, model: SceneViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`SceneViT.objects`."""
        return self.model.objects(self.model.features(self.model.embed(image)))


def targets(label: Tensor, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What each patch is to say of objects.

    Parameters
    ----------
    label, box : Tensor
        As in :class:`models.scenes.Scenes`.

    Returns
    -------
    tuple of Tensor
        The class of the digit whose centre is in the patch, ``[n, patches]``; the box of the digit
        that the patch belongs to, ``[n, patches, 4]``; whether there is one.
    """
    rows = SIDE // PATCH
    place = (torch.arange(rows) + 0.5) / rows
    y, x = torch.meshgrid(place, place, indexing="ij")
    at = torch.stack([x.flatten(), y.flatten()], dim=1)
    away = (at[None, :, None] - box[:, None, :, :2]).abs()  # [n, patches, digits, 2]
    there = (label != NOTHING)[:, None]
    central = there & (away < 0.5 / rows).all(dim=3)
    named = torch.where(central, label[:, None], NOTHING).amin(dim=2)
    covers = there & (away < (box[:, None, :, 2:] / 2).clamp(min=0.5 / rows)).all(dim=3)
    nearest = torch.where(covers, away.amax(dim=3), 2.0).argmin(dim=2)
    return named, box.gather(1, nearest[..., None].expand(-1, -1, 4)), covers.any(dim=2)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Of boxes ``[..., 4]`` (centre and extent), one by one (Rezatofighi et al., CVPR 2019)."""
    (low_a, high_a), (low_b, high_b) = (
        (x[..., :2] - x[..., 2:] / 2, x[..., :2] + x[..., 2:] / 2) for x in (a, b)
    )
    common = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(-1)
    around = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - common
    return common / union - (around - union) / around


def train(model: SceneViT, args: argparse.Namespace) -> None:
    """Train both tasks together, on scenes that are painted once."""
    scenes = Painter("train", args.seed).paint(args.scenes)
    image, mask = normalise(scenes.image, MEAN, STD), torch.from_numpy(scenes.mask)
    named, boxes, covered = targets(torch.from_numpy(scenes.label), torch.from_numpy(scenes.box))
    weight = torch.ones(len(CLASSES))
    weight[NOTHING] = BACKGROUND

    def loss(index: Tensor, _: float) -> Tensor:
        tokens = model.features(model.embed(image[index]))
        logits, found = model.objects(tokens)
        names, where = named[index].flatten(), covered[index]
        found, wanted = found[where], boxes[index][where]
        return (
            MASKS * F.cross_entropy(model.masks(tokens), mask[index].long())
            + F.cross_entropy(logits.flatten(0, 1), names, weight, reduction="sum")
            / (names != NOTHING).sum()
            + L1 * F.l1_loss(found, wanted)
            + GIOU * (1 - generalised_iou(found, wanted)).mean()
        )

    fit(model, loss, args.scenes, batch=BATCH, args=args, checkpoint=CHECKPOINT)


def main() -> None:
    """Parse the command line, train, export."""
    parser = arguments(__doc__.splitlines()[0], HERE, minutes=38, data=False)
    parser.add_argument("--scenes", type=int, default=8000, help="how many, by the seed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    model, saved = SceneViT(CONFIG), args.work / CHECKPOINT
    if args.resume:
        model.load_state_dict(torch.load(saved, weights_only=True))
    if not args.export_only:
        train(model, args)
    model.load_state_dict(torch.load(saved, weights_only=True))
    tests = normalise(Painter("test").paint(100).image, MEAN, STD)
    for exported, name, outputs in (
        (Segment(model), "segment.onnx", ["logits"]),
        (Detect(model), "detect.onnx", ["logits", "boxes"]),
    ):
        export(exported.eval(), {"image": tests}, args.output / name, outputs, opset=OPSET)


if __name__ == "__main__":
    main()
