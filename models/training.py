"""What the training scripts share: optimisers, augmentation, measuring, checking an export."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

__all__ = [
    "accuracy",
    "arguments",
    "check_onnx",
    "crop_and_flip",
    "drop_patches",
    "export",
    "export_classifier",
    "fit",
    "normalise",
    "optimisers",
    "strip_metadata",
    "trapezoid",
]

EMA_DECAY = 0.998


def arguments(
    description: str, output: Path, minutes: float, *, data: bool = True
) -> argparse.ArgumentParser:
    """Build the options that the scripts training by the clock have in common.

    Parameters
    ----------
    data : bool
        Whether there is a folder of pictures to be named, CIFAR-10.
    """
    parser = argparse.ArgumentParser(description=description)
    if data:
        parser.add_argument("--data", type=Path, default=Path("../shared/data/cifar10"))
    parser.add_argument("--minutes", type=float, default=minutes, help="wall time for the training")
    parser.add_argument("--work", type=Path, default=Path("build/models"), help="checkpoints")
    parser.add_argument("--output", type=Path, default=output, help="where model.onnx goes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--muon", type=float, default=3e-3, help="Muon's peak learning rate")
    parser.add_argument("--adam", type=float, default=2e-3, help="AdamW's peak learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--resume", action="store_true", help="start from the saved weights")
    parser.add_argument("--export-only", action="store_true")
    return parser


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


def drop_patches(tokens: Tensor, keep: int, *, first: int = 1) -> Tensor:
    """Keep the class token and ``keep`` random patches, the same places over the batch.

    Parameters
    ----------
    tokens : Tensor
        ``[batch, first + patches, dim]``.
    keep : int
        Number of patches left.
    first : int
        Number of tokens in front that all stay: 1, or 0 without a class token.
    """
    patches = torch.randperm(tokens.shape[1] - first)[:keep].sort().values + first
    return tokens[:, torch.cat([torch.arange(first), patches])]


def optimisers(
    model: nn.Module, *, muon: float, adam: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Split the parameters: Muon for the matrices of blocks and stages, AdamW for all else.

    Muon's orthogonalised steps learn a small transformer in about half the epochs, and spread
    the weights evenly, which quantisation likes.  A convolution's kernel is a matrix as well, with
    a row for each output channel.

    Parameters
    ----------
    muon, adam : float
        Peak learning rates.
    weight_decay : float
        Decoupled decay of the matrices; vectors and embeddings are not decayed.
    """
    inner = [
        p for n, p in model.named_parameters()
        if n.startswith(("blocks.", "stages.")) and p.ndim in (2, 4)
    ]
    taken = {id(p) for p in inner}
    others = [p for p in model.parameters() if id(p) not in taken]
    return [
        torch.optim.Muon(
            [p if p.ndim == 2 else _as_matrix(p) for p in inner],
            lr=muon, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=adam, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _as_matrix(kernel: nn.Parameter) -> nn.Parameter:
    """The same memory as ``[outputs, inputs * height * width]``, which the gradient moves to."""
    matrix = nn.Parameter(kernel.detach().view(len(kernel), -1))

    def hand_over(parameter: Tensor) -> None:
        assert parameter.grad is not None
        matrix.grad, parameter.grad = parameter.grad.flatten(1), None

    kernel.register_post_accumulate_grad_hook(hand_over)
    return matrix


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


def _moving_average(average: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
    """Average exponentially, forgetting faster at first so that the start leaves no trace."""
    if not new.is_floating_point():  # how many batches a norm has seen
        return new
    decay = min(EMA_DECAY, (1 + int(updates)) / (10 + int(updates)))
    return average.lerp(new, 1 - decay)


def fit(
    model: nn.Module,
    loss: Callable[[Tensor, float], Tensor],
    count: int,
    *,
    batch: int,
    args: argparse.Namespace,
    checkpoint: str,
) -> None:
    """Train for ``args.minutes`` of wall time, whatever the machine; save after every epoch.

    Parameters
    ----------
    loss : callable
        From the numbers of a batch's pictures, and the share of the time that is over.
    count : int
        Pictures in an epoch.
    batch : int
        Pictures in a step.
    args : Namespace
        Of :func:`arguments`.
    checkpoint : str
        File in ``args.work`` that the averaged weights go to.
    """
    average = AveragedModel(model, avg_fn=_moving_average, use_buffers=True)
    opts = optimisers(model, muon=args.muon, adam=args.adam, weight_decay=args.weight_decay)
    peaks = [opt.param_groups[0]["lr"] for opt in opts]
    start, budget, epoch, progress = time.monotonic(), 60 * args.minutes, 0, 0.0
    while progress < 1:
        losses = []
        for index in torch.randperm(count).split(batch)[:-1]:
            progress = (time.monotonic() - start) / budget
            if progress >= 1:
                break
            rate = trapezoid(progress, warm=0.05, hold=0.3)
            for opt, peak in zip(opts, peaks, strict=True):
                opt.param_groups[0]["lr"] = rate * peak
            value = loss(index, progress)
            value.backward()
            for opt in opts:
                opt.step()
                opt.zero_grad()
            average.update_parameters(model)
            losses.append(value.item())
        epoch += 1
        torch.save(average.module.state_dict(), args.work / checkpoint)
        minutes = (time.monotonic() - start) / 60
        mean, shown = sum(losses) / max(1, len(losses)), batch * len(losses)
        print(
            f"epoch {epoch}: {minutes:.1f} min, {time.process_time() / 60:.1f} CPU min, "
            f"{shown} pictures, loss {mean:.4f}",
            flush=True,
        )


@torch.inference_mode()
def accuracy(
    model: Callable[[Tensor], Tensor], image: Tensor, label: Tensor, batch: int = 500
) -> float:
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


def export(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    path: Path,
    outputs: Sequence[str],
    *,
    opset: int,
    dynamo: bool = True,
) -> None:
    """Write a model as ONNX, with a dynamic batch, and check the file against the model.

    Parameters
    ----------
    inputs : mapping of str to Tensor
        Arguments of ``model.forward`` by their names, for which the file has to give what the model
        gives; the first two of the batch are those that the exporter traces.
    outputs : sequence of str
        Names of what the model returns.
    dynamo : bool
        Whether the dynamo exporter writes the file, or the older one, TorchScript's.

    Raises
    ------
    ValueError
        If the file's outputs are not the model's.
    """
    traced = tuple(value[:2] for value in inputs.values())
    names: dict[str, Any] = {"input_names": [*inputs], "output_names": outputs}
    if dynamo:
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            model, traced, path, **names, opset_version=opset, dynamo=True, external_data=False,
            dynamic_shapes={name: {0: batch} for name in inputs},
        )
    else:
        torch.onnx.export(
            model, traced, path, **names, opset_version=opset, dynamo=False,
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
        )
    strip_metadata(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    _compare(session, model, [*inputs.values()])


def export_classifier(
    model: nn.Module, image: Tensor, label: Tensor, path: Path, *, opset: int, dynamo: bool = True
) -> None:
    """Write a classifier with :func:`export`; print what model and file have of test pictures."""
    print(f"float top-1 (torch): {accuracy(model, image, label):.2f} % of {len(label)}")
    export(model, {"image": image[:2]}, path, ["logits"], opset=opset, dynamo=dynamo)
    print(f"float top-1 (ONNX Runtime): {check_onnx(path, model, image, label):.2f} %")


@torch.inference_mode()
def _compare(
    session: onnxruntime.InferenceSession, model: Callable[..., Any], operands: Sequence[Tensor]
) -> list[npt.NDArray[np.float32]]:
    """Return a file's outputs if they are the model's.

    Raises
    ------
    ValueError
        If a value differs by more than float32 rounding explains.
    """
    names = [value.name for value in session.get_inputs()]
    feeds = {name: value.numpy() for name, value in zip(names, operands, strict=True)}
    found, wanted = session.run(None, feeds), model(*operands)
    for value, one, other in zip(
        session.get_outputs(), found, wanted if isinstance(wanted, tuple) else (wanted,),
        strict=True,
    ):
        difference = float(np.abs(one - other.numpy()).max())
        if difference > 1e-3:
            raise ValueError(f"The export differs from the model by {difference} in {value.name}")
    return found


def check_onnx(
    path: Path, model: Callable[..., Tensor], image: Tensor, label: Tensor, task: int | None = None
) -> float:
    """Compare an export with its model on real pictures; return ONNX Runtime's top-1, percent.

    Parameters
    ----------
    task : int, optional
        Of all the pictures, for a model that has such an input.

    Raises
    ------
    ValueError
        If a logit differs by more than float32 rounding explains.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    right = 0
    for x, y in zip(image.split(500), label.split(500), strict=True):
        operands = (x,) if task is None else (x, torch.full((len(x),), task))
        (logits,) = _compare(session, model, operands)
        right += int((logits.argmax(1) == y.numpy()).sum())
    return 100 * right / len(label)
