"""Random canonical networks and random cores, each from its own seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tests.fuzz.branches import choose, mixture, mlp, single, stage
from tests.fuzz.pieces import Pieces, channels, rows
from vitrify.arch.config import MECHANISMS, ArchConfig
from vitrify.arch.presets import preset


class Network(Pieces):
    """A network of random shape and structure: stem, blocks in up to two stages, outputs."""

    def __init__(self, rng: np.random.Generator, experts: int) -> None:
        super().__init__(rng, experts)
        x = self.stem()
        taps = [x]
        for _ in range(self.pick(1, 1, 1, 2)):
            for _ in range(self.pick(0, 1, 1, 2)):
                x = self.block(x)
                taps.append(x)
            if self.chance(0.25):
                x = stage(self, x)
                taps.append(x)
        outputs = self.outputs(x, taps)
        self.model = self.builder.model(outputs)
        RemoveUnusedNodesPass()(self.model)  # as the front end does
        if self.task.consumers():
            self.model.graph.inputs.append(self.task)

    def stem(self) -> ir.Value:
        """Patches, or a convolution whose windows overlap; then perhaps positions."""
        # A LayerNorm of one channel has nothing to say.
        dim = max(2, self.heads * int(self.rng.integers(1, 13)))
        if self.chance(0.75):
            inner = self.size[0] * self.patch[0] * self.patch[1]
            x = self.emit("PatchEmbed", self.image, self.normal(dim, inner) / np.sqrt(inner),
                          0.3 * self.normal(dim), patch=[*self.patch])
        else:
            kernel = [self.pick(1, 2, 3), self.pick(1, 2, 3)]
            pads = [int(self.rng.integers(size)) for size in kernel * 2]
            for axis, size in enumerate(kernel):
                pads[axis] = max(pads[axis], size - self.size[1 + axis])
            weight = self.normal(dim, self.size[0], *kernel)
            x = self.emit("ImageConv", self.image, weight / np.sqrt(weight[0].size),
                          0.3 * self.normal(dim), strides=[*self.patch], pads=pads)
        if self.chance(0.7):
            prefix = self.pick(0, 1, 1, 2, 3)
            x = self.emit("Tokens", x, self.normal(prefix, dim),
                          self.normal(prefix + rows(x), dim))
        return self.norm(x) if self.chance(0.15) else x

    def block(self, x: ir.Value) -> ir.Value:
        """One of the ways to add to the residual stream."""
        normal = self.norm(x) if self.chance(0.85) else x
        kind = self.rng.choice(
            ["usual", "parallel", "skip", "past", "mixture", "shared"],
            p=[0.45, 0.2, 0.1, 0.05, 0.12, 0.08])
        if kind in ("mixture", "shared") and self.experts < 2:
            kind = "usual"
        if kind == "parallel":  # of different kinds, or twins
            way, twins = choose(self), self.chance(0.4)
            for _ in range(self.pick(2, 2, 3)):
                x = self.add(x, way(self, normal))
                way = way if twins else choose(self)
            return x
        if kind == "skip":
            return self.add(self.add(x, choose(self)(self, normal)), single(self, x))
        if kind == "past":
            return self.add(self.add(x, choose(self)(self, normal)), x)
        if kind == "mixture":
            return self.add(x, mixture(self, self.norm(x)))
        if kind == "shared":
            normal = self.norm(x)
            return self.add(x, self.add(mixture(self, normal), mlp(self, normal)))
        x = self.add(x, choose(self)(self, normal))
        return self.add(x, choose(self)(self, self.norm(x))) if self.chance(0.7) else x

    def outputs(self, x: ir.Value, taps: list[ir.Value]) -> list[ir.Value]:
        """One to three: heads of single tokens, of means and of sums, rows, and earlier tokens."""
        normal = self.norm(x) if self.chance(0.8) else x
        found: list[ir.Value] = []
        for _ in range(self.pick(1, 1, 2, 3)):
            kind = self.rng.choice(["token", "mean", "sum", "rows", "all", "tap", "form"])
            classes = int(self.rng.integers(1, 24))
            if kind == "mean":
                start = int(self.rng.integers(rows(x)))
                mean = self.emit("MeanPool", normal, start=start,
                                 end=int(self.rng.integers(start + 1, rows(x) + 1)))
                found.append(self.linear(mean, classes))
            elif kind == "all":
                found.append(self.linear(normal, classes) if self.chance(0.5) else self.norm(x))
            elif kind == "rows":
                some = self.rng.integers(rows(x), size=int(self.rng.integers(1, 9)))
                found.append(self.linear(self.rows(normal, some), classes))
            elif kind == "tap":
                early = taps[int(self.rng.integers(len(taps)))]
                found.append(self.linear(early, classes) if self.chance(0.7) else early)
            elif kind == "form":
                found.append(self.arranged(self.linear(normal, classes)))
            elif kind == "sum":
                found.append(self.emit("Add", *(
                    self.linear(self.select(normal), classes) for _ in range(2))))
            else:
                found.append(self.linear(self.select(normal), classes))
        return list(dict.fromkeys(found))

    def arranged(self, x: ir.Value) -> ir.Value:
        """Some elements of ``x``, rows and channels in turn, with a scale and a shift."""
        count, dim = rows(x), channels(x)
        index = np.arange(count * dim).reshape(count, dim)
        index = index[self.pick(0, count - 1) :: self.pick(1, 2), :: self.pick(1, 2)]
        if self.chance(0.5):
            index = index.T
        return self.emit("Arrange", x, self.normal(dim), self.normal(dim),
                         index=index.ravel().tolist(), form=[*index.shape])


def core(rng: np.random.Generator) -> ArchConfig:
    """A valid core near the edges: narrow, wide, short of memory, with and without everything."""

    def power(low: int, high: int) -> int:
        return 1 << int(rng.integers(low, high + 1))

    depth, width = power(2, 5), power(1, 6)
    lanes = min(power(0, 4), depth, width)
    return dataclasses.replace(
        preset("nano"), name="fuzz", depth=depth, width=width, lanes=lanes,
        max_rows=power(4, 6), banks=2 * int(rng.integers(2, 7)), bank_words=power(6, 10),
        stat_rows=power(6, 9), index_entries=power(6, 8), bus_bytes=min(depth, power(0, 3)),
        experts=int(rng.choice([0, 4, 8])), requant_bits=int(rng.choice([18, 24])),
        burst_beats=256, **{name: bool(rng.random() < 0.9) for name in MECHANISMS},
    )


def _nano(name: str, **settings: int | bool) -> ArchConfig:
    return dataclasses.replace(preset("nano"), name=f"fuzz-{name}", **settings)


#: Cores that are built for simulation: few, as building one takes a minute, and unlike each other.
BUILT = (
    preset("nano"),
    _nano("narrow", depth=4, width=2, lanes=1, bus_bytes=1, bank_words=512, burst_beats=4,
          weight_fifo_words=16, outstanding=1),
    _nano("wide", depth=8, width=32, lanes=8, bus_bytes=8, ports=2, banks=4, bank_words=512,
          packing=True, burst_beats=8),
    _nano("deep", depth=32, width=4, lanes=4, bus_bytes=16, requant_bits=24, max_rows=16,
          experts=5, outstanding=2, trellis=False),
    _nano("plain", depth=16, width=8, lanes=8, bus_bytes=2, experts=0, burst_beats=256,
          **dict.fromkeys(MECHANISMS, False)),
)
