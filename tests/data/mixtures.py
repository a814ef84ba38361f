"""Mixtures of experts as people write them in PyTorch, for ``make_fixtures.py``.

Every model is one dense and one mixture block around the same parts; only gate, routing and the
experts' arithmetic differ.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE, PATCH, DIM, HEADS, CLASSES = 16, 4, 16, 2, 5
EXPERTS, CHOICES, HIDDEN, TASKS = 5, 2, 18, 3


class Expert(nn.Sequential):
    def __init__(self, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__(nn.Linear(DIM, HIDDEN), act(), nn.Linear(HIDDEN, DIM))


class Separate(nn.Module):
    """Experts are modules of their own."""

    def __init__(self, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Expert(act) for _ in range(EXPERTS))


class Masked(Separate):
    """Every expert on every token; a comparison leaves the weight of those that were chosen."""

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        weight, chosen = logits.softmax(-1).topk(CHOICES)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            share = (weight * (chosen == number)).sum(-1, keepdim=True)
            y = y + share * expert(x)
        return y


class OneHot(Separate):
    """Weights renormalised, spread by one_hot; results stacked, then one product."""

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        weight, chosen = torch.topk(functional.softmax(logits, dim=-1), CHOICES, dim=-1)
        weight = weight / weight.sum(dim=-1, keepdim=True)
        combine = (functional.one_hot(chosen, EXPERTS) * weight[..., None]).sum(2)
        results = torch.stack([expert(x) for expert in self.experts], dim=2)
        return torch.einsum("nte,nted->ntd", combine, results)


class Scattered(Separate):
    """The softmax of the chosen logits, scattered into a table of zeros; a where per expert."""

    def __init__(self) -> None:
        super().__init__(nn.SiLU)

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        best, chosen = logits.topk(CHOICES, dim=-1)
        table = torch.zeros_like(logits).scatter(-1, chosen, best.softmax(-1))
        y = 0
        for number, expert in enumerate(self.experts):
            share = table[..., number : number + 1]
            y = y + torch.where(share > 0, expert(x), 0.0) * share
        return y


class Stacked(nn.Module):
    """Weights of all experts in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(EXPERTS, DIM, HIDDEN) * DIM**-0.5)
        self.b1 = nn.Parameter(torch.randn(EXPERTS, HIDDEN))
        self.w2 = nn.Parameter(torch.randn(EXPERTS, HIDDEN, DIM) * HIDDEN**-0.5)
        self.b2 = nn.Parameter(torch.randn(EXPERTS, DIM))


class Einsum(Stacked):
    """All experts in two einsums; the logits of the others are masked away before the softmax."""

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        least = logits.topk(CHOICES, dim=-1).values[..., -1:]
        combine = logits.masked_fill(logits < least, float("-inf")).softmax(-1)
        hidden = functional.relu(torch.einsum("ntd,edh->nteh", x, self.w1) + self.b1)
        results = torch.einsum("nteh,ehd->nted", hidden, self.w2) + self.b2
        return (combine.unsqueeze(-1) * results).sum(2)


class Batched(Stacked):
    """All experts in two broadcast products, the expert before the token; flat tokens."""

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        n, t, d = x.shape
        rows, logits = x.reshape(-1, d), logits.reshape(n * t, -1)
        shares = logits.softmax(dim=1)
        _, chosen = shares.topk(CHOICES, dim=1)
        mask = torch.zeros_like(shares).scatter_(1, chosen, 1.0)
        hidden = functional.gelu(
            rows.unsqueeze(0) @ self.w1 + self.b1.unsqueeze(1), approximate="tanh"
        )
        results = hidden @ self.w2 + self.b2.unsqueeze(1)
        y = (results * (shares * mask).t().unsqueeze(-1)).sum(0)
        return y.reshape(n, t, d)


class Picked(Separate):
    """Each expert on its own tokens only: the loop of Mixtral and many others."""

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        shares = functional.softmax(logits.reshape(-1, EXPERTS), dim=1)
        weight, chosen = torch.topk(shares, CHOICES, dim=-1)
        weight = weight / weight.sum(dim=-1, keepdim=True)
        y = torch.zeros_like(rows)
        mask = functional.one_hot(chosen, num_classes=EXPERTS).permute(2, 1, 0)
        for number, expert in enumerate(self.experts):
            rank, row = torch.where(mask[number])
            result = expert(rows[row]) * weight[row, rank, None]
            y.index_add_(0, row, result)
        return y.reshape(x.shape)


class Assigned(Separate):
    """Each expert on its own tokens, by a boolean index, written back by one."""

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        weight, chosen = torch.topk(logits.softmax(-1).reshape(-1, EXPERTS), 1, dim=-1)
        y = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            own = chosen[:, 0] == number
            y[own] = expert(rows[own]) * weight[own]
        return y.reshape(x.shape)


class Chosen(Separate):
    """The results of the chosen experts, gathered from a stack of all."""

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        weight, chosen = logits.softmax(-1).topk(CHOICES, dim=-1)
        results = torch.stack([expert(x) for expert in self.experts], dim=-2)
        index = chosen.unsqueeze(-1).expand(-1, -1, -1, x.shape[-1])
        return (results.gather(2, index) * weight.unsqueeze(-1)).sum(dim=-2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1) * (d // HEADS) ** -0.5).softmax(-1)
        return self.proj((scores @ v).transpose(1, 2).reshape(n, t, d))


class RoutedAttention(nn.Module):
    """Mixture-of-head attention: shared heads, the best of the others, and a balance of the two.

    Parameters
    ----------
    heads, shared, choices:
        All heads, those in front that every token uses, and how many others it chooses.
    """

    def __init__(self, heads: int, shared: int, choices: int, *, plain: bool = False) -> None:
        super().__init__()
        self.heads, self.shared, self.choices, self.plain = heads, shared, choices, plain
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.route = nn.Linear(DIM, heads - shared, bias=False)
        if not plain:
            self.balance = nn.Linear(DIM, 2, bias=False)
            self.share = nn.Linear(DIM, shared, bias=False) if shared > 1 else None

    def weights(self, x: Tensor) -> Tensor:
        gates = functional.softmax(self.route(x), dim=-1)
        chosen = torch.topk(gates, self.choices, dim=-1).indices
        gates = gates * functional.one_hot(chosen, gates.shape[-1]).sum(-2)
        gates = gates / gates.sum(-1, keepdim=True).clamp(min=1e-7) * self.choices
        ones = torch.ones_like(x[..., : self.shared])
        if self.plain:
            return torch.cat([ones, gates], dim=-1)
        stage = self.balance(x).softmax(-1) * 2
        shared = ones if self.share is None else self.share(x).softmax(-1) * self.shared
        return torch.cat([shared * stage[..., :1], gates * stage[..., 1:]], dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        weights = self.weights(x)
        if self.plain:
            return self.proj((y * weights[..., None]).reshape(n, t, d))
        return self.proj(torch.einsum("nth,nthd->nthd", weights, y).reshape(n, t, d))


class RoutedHeads(nn.Module):
    """A vision transformer of mixture-of-head attention, without MLPs."""

    def __init__(self, *shape: int, plain: bool = False) -> None:
        super().__init__()
        self.tokens = Tokens()
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(2))
        self.attn = nn.ModuleList(RoutedAttention(*shape, plain=plain) for _ in range(2))
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.tokens(image)
        for norm, attn in zip(self.norms, self.attn, strict=True):
            x = x + attn(norm(x))
        return self.head(x.mean(1))


class Block(nn.Module):
    """Attention and a mixture; a shared MLP beside the experts, where there is one."""

    def __init__(self, mixture: nn.Module, *, tasks: int = 0, shared: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.attn, self.mixture = Attention(), mixture
        self.shared = Expert() if shared else None
        if tasks:
            self.gates = nn.Parameter(torch.randn(tasks, DIM, EXPERTS))
        else:
            self.gate = nn.Linear(DIM, EXPERTS, bias=False)

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y = self.norm2(x)
        logits = self.gate(y) if task is None else y @ self.gates[task]
        mixed = self.mixture(y, logits)
        if self.shared is not None:
            mixed = mixed + self.shared(y)
        return x + mixed


class Tokens(nn.Module):
    """Patches and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, DIM, PATCH, PATCH)
        self.position = nn.Parameter(torch.randn(1, (SIZE // PATCH) ** 2, DIM))

    def forward(self, image: Tensor) -> Tensor:
        return self.embed(image).flatten(2).transpose(1, 2) + self.position


class Mixed(nn.Module):
    """A vision transformer of one task."""

    def __init__(self, mixture: Callable[[], nn.Module], *, shared: bool = False) -> None:
        super().__init__()
        self.tokens = Tokens()
        self.blocks = nn.ModuleList(Block(mixture(), shared=shared) for _ in range(2))
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.tokens(image)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class Tasked(nn.Module):
    """A vision transformer whose gates and heads belong to tasks.

    Parameters
    ----------
    head:
        How the head of a picture's task is applied: "bmm", "einsum" or "index_select".
    """

    def __init__(self, mixture: Callable[[], nn.Module], *, head: str = "bmm") -> None:
        super().__init__()
        self.tokens, self.head = Tokens(), head
        self.blocks = nn.ModuleList(Block(mixture(), tasks=TASKS) for _ in range(2))
        self.norm = nn.LayerNorm(DIM)
        self.weight = nn.Parameter(torch.randn(TASKS, DIM, CLASSES))
        self.bias = nn.Parameter(torch.randn(TASKS, CLASSES))

    def forward(self, image: Tensor, task: Tensor) -> Tensor:
        x = self.tokens(image)
        for block in self.blocks:
            x = block(x, task)
        x = self.norm(x).mean(1)
        match self.head:
            case "bmm":
                return torch.bmm(x.unsqueeze(1), self.weight[task]).squeeze(1) + self.bias[task]
            case "einsum":
                return torch.einsum("nd,ndc->nc", x, self.weight[task]) + self.bias[task]
        # one task for all the pictures
        weight = self.weight.index_select(0, task).squeeze(0)
        return functional.linear(x, weight.t(), self.bias.index_select(0, task).squeeze(0))
