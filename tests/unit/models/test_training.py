"""What the training scripts share does what it says; without the extra ``train`` nothing runs."""

import argparse
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra `train` is not installed")

import torch

from models import hybrid, initialise, training

torch.set_num_threads(1)  # the tensors are too small to share

CONFIG = hybrid.HybridConfig(
    image=16, channels=3, classes=10, stem=8,
    widths=(8, 32, 32), convolutions=(1, 0, 0), blocks=(0, 1, 1),
)


def test_muon_moves_kernels_by_orthogonal_matrices():
    model = torch.nn.Module()
    model.blocks = torch.nn.Sequential(torch.nn.Conv2d(4, 3, 3))
    kernel = model.blocks[0].weight
    muon, _ = training.optimisers(model, muon=0.1, adam=0.0, weight_decay=0.0)
    before = kernel.detach().clone()
    model.blocks(torch.randn(2, 4, 8, 8)).square().mean().backward()
    muon.step()
    step = (before - kernel.detach()).flatten(1)
    gram = (step @ step.T).numpy()
    # Muon's five Newton-Schulz steps bring the singular values near one, and no nearer.
    np.testing.assert_allclose(gram / gram.trace() * 3, np.eye(3), atol=0.5)


def test_gradients_of_kernels_do_not_add_up():
    model = hybrid.HybridViT(CONFIG)
    opts = training.optimisers(model, muon=0.0, adam=0.0, weight_decay=0.0)
    kernel = opts[0].param_groups[0]["params"]
    image = torch.randn(4, 3, 16, 16)
    seen = []
    for _ in range(2):
        model(image).square().mean().backward()
        seen.append([matrix.grad.clone() for matrix in kernel])
        for opt in opts:
            opt.zero_grad()
    for first, second in zip(*seen, strict=True):
        torch.testing.assert_close(first, second)


def test_fit_trains_every_parameter_and_averages_what_norms_have_seen(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = hybrid.HybridViT(CONFIG)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    image, label = torch.randn(64, 3, 16, 16), torch.arange(64) % 10
    seconds = SimpleNamespace(monotonic=itertools.count().__next__, process_time=lambda: 0)
    monkeypatch.setattr(training, "time", seconds)
    args = argparse.Namespace(
        minutes=0.5, muon=1e-2, adam=1e-2, weight_decay=0.0, work=tmp_path
    )
    losses = []

    def loss(index, _progress):
        value = torch.nn.functional.cross_entropy(model(image[index]), label[index])
        losses.append(value.item())
        return value

    training.fit(model, loss, len(image), batch=16, args=args, checkpoint="model.pt")
    assert min(losses) < losses[0]
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert saved.keys() == start.keys()
    same = [name for name in saved if (saved[name] == start[name]).all()]
    assert not same, "not trained, or not averaged"
    hybrid.HybridViT(CONFIG).load_state_dict(saved)


def test_principal_patches_are_uncorrelated_and_come_with_both_signs():
    conv = torch.nn.Conv2d(3, 24, 3, padding=1, bias=False)
    noise = torch.randn(200, 3, 16, 16)
    image = noise + torch.nn.functional.avg_pool2d(noise, 5, 1, 2) * 5
    initialise.principal_patches(conv, image)
    seen = torch.nn.functional.conv2d(image, conv.weight).transpose(0, 1).flatten(1)
    torch.testing.assert_close(seen[:12], -seen[12:])
    torch.testing.assert_close(torch.cov(seen[:12]), torch.eye(12), atol=1e-3, rtol=0)
