"""What the training scripts share: optimisers, augmentation, measuring, checking an export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "accuracy",
    "check_onnx",
    "crop_and_flip",
    "drop_patches",
    "normalise",
    "optimisers",
    "strip_metadata",
    "trapezoid",
]


def normalise(image: npt.NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn uint8 NHWC pictures into the network's float32 NCHW input.

    Parameters
    ----------
    image : ndarray
        uint8 ``[n, height, width, channels]``.
    mean, std : sequence of float
        Per channel, for pixels scaled to 0..1.
    """
    x = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


def crop_and_flip(image: Tensor, *, pad: int, flip: bool) -> Tensor:
    """Shift each picture by up to ``pad`` pixels (reflecting borders), mirror every second one.

    Parameters
    ----------
    image : Tensor
        ``[n, channels, side, side]``.
    pad : int
        Largest shift, pixels.
    flip : bool
        Whether left and right may be exchanged (digits are not the same mirrored).
    """
    n, _, side, _ = image.shape
    padded = F.pad(image, (pad,) * 4, mode="reflect")
    corner = torch.randint(0, 2 * pad + 1, (2, n, 1))
    rows, columns = corner + torch.arange(side)
    if flip:
        columns = torch.where(torch.rand(n, 1) < 0.5, columns.flip(1), columns)
    picture = torch.arange(n)[:, None, None]
    # Advanced indices around the channel slice put it last: NHWC, turned back into NCHW.
    return padded[picture, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def drop_patches(tokens: Tensor, keep: int) -> Tensor:
    """Keep the class token and ``keep`` random patches, the same places over the batch.

    Parameters
    ----------
    tokens : Tensor
        ``[batch, 1 + patches, dim]``.
    keep : int
        Number of patches left.
    """
    patches = torch.randperm(tokens.shape[1] - 1)[:keep].sort().values + 1
    return tokens[:, torch.cat([torch.zeros(1, dtype=torch.int64), patches])]


def optimisers(
    model: nn.Module, *, muon: float, adam: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Split the parameters: Muon for the blocks' matrices, AdamW for everything else.

    Muon's orthogonalised steps learn a small transformer in about half the epochs, and spread
    the weights evenly, which quantisation likes.

    Parameters
    ----------
    muon, adam : float
        Peak learning rates.
    weight_decay : float
        Decoupled decay of the matrices; vectors and embeddings are not decayed.
    """
    matrices = [p for n, p in model.named_parameters() if n.startswith("blocks.") and p.ndim == 2]
    taken = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in taken]
    return [
        torch.optim.Muon(
            matrices, lr=muon, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=adam, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def trapezoid(progress: float, *, warm: float, hold: float) -> float:
    """Learning rate as a share of its peak: rise, hold, fall linearly to zero.

    Parameters
    ----------
    progress : float
        Share of the training done, 0 to 1.
    warm, hold : float
        Progress at which the rise ends, and at which the fall begins.
    """
    return max(0.0, min(1.0, progress / warm, (1 - progress) / (1 - hold)))


@torch.inference_mode()
def accuracy(model: nn.Module, image: Tensor, label: Tensor, batch: int = 500) -> float:
    """Top-1 accuracy, in percent, of ``model``, in evaluation mode, on normalised pictures."""
    right = sum(
        int((model(x).argmax(1) == y).sum())
        for x, y in zip(image.split(batch), label.split(batch), strict=True)
    )
    return 100 * right / len(label)


def strip_metadata(path: Path) -> None:
    """Remove what an exporter noted about its own run: stack traces, names of local files."""
    model = onnx.load(path)
    for message in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del message.metadata_props[:]
        message.ClearField("doc_string")
    onnx.save(model, path)


@torch.inference_mode()
def check_onnx(path: Path, model: nn.Module, image: Tensor, label: Tensor) -> float:
    """Compare an export with its model on real pictures; return ONNX Runtime's top-1, percent.

    Raises
    ------
    ValueError
        If a logit differs by more than float32 rounding explains.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model.eval()
    right = 0
    for x, y in zip(image.split(500), label.split(500), strict=True):
        (logits,) = session.run(None, {"image": x.numpy()})
        difference = float(np.abs(logits - model(x).numpy()).max())
        if difference > 1e-3:
            raise ValueError(f"{path} differs from the model by {difference} in a logit")
        right += int((logits.argmax(1) == y.numpy()).sum())
    return 100 * right / len(label)
