"""Programs with access patterns, old values from anywhere, products and sums of rows."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Opcode, Output, Region, RowScale, Stationary, Stats, Transform
from vitrify.arch.modes import Combine

from .programs import Assembler, Job


class _Maps(Assembler):
    """Keeps results apart: every tensor has a place of its own in the banks that are given."""

    def __init__(self, arch: ArchConfig, seed: int) -> None:
        super().__init__(arch, seed)
        self._free = [bank * arch.bank_words for bank in range(arch.banks)]

    def place(self, bank: int, words: int) -> int:
        """Words of a bank; ``wide`` tensors take the even bank's address divided by two."""
        at = self._free[bank]
        self._free[bank] += words
        self._check(self._free[bank] - bank * self.arch.bank_words)
        return at

    def _check(self, words: int) -> None:
        if words > self.arch.bank_words:
            raise CapacityError(
                f"arch {self.arch.name!r} has {self.arch.bank_words} words a bank; the program "
                f"needs more"
            )

    def pair(self, pair: int, words: int) -> int:
        """The same words of both banks of a pair: its pair address."""
        size = self.arch.bank_words
        offset = max(self._free[bank] % size for bank in (2 * pair, 2 * pair + 1))
        for bank in (2 * pair, 2 * pair + 1):
            self._free[bank] = bank * size + offset + words
        self._check(offset + words)
        return pair * size + offset

    def keep(self, address: int, rows: int, words: int, *, wide: bool = False) -> None:
        """STORE a tensor that the last MATMUL wrote."""
        self.store(addr=address, stride=words, rows=rows, words=words, wide=int(wide),
                   wait_distance=1)


def _geometry(a: _Maps, rows: int) -> dict[str, int]:
    """A random map's taps, strides and padding, whose output has at most ``rows`` pixels."""
    rng = a.rng
    height, width = (int(v) for v in rng.integers(2, 7, 2))
    taps_y, taps_x, stride = (int(v) for v in rng.integers(1, 4, 3))
    out_width = int(rng.integers(1, 6))
    return {
        "tapped": 1, "taps_y": taps_y, "taps_x": taps_x, "tap_stride": stride,
        "map_height": height, "map_width": width, "out_width": out_width,
        "origin_y": int(rng.integers(-taps_y, 2)), "origin_x": int(rng.integers(-taps_x, 2)),
        "rows": int(rng.integers(1, rows + 1)),
    }


def access_patterns(arch: ArchConfig, seed: int) -> Job:
    """Convolutions of every kind from one map, each stored; maxima, lists, sums, products."""
    a = _Maps(arch, seed)
    k, pixels, last = arch.depth, 36, 3
    dim = k + last
    words = 2
    x = a.place(0, pixels * words)
    data = a.rng.integers(-128, 128, (words, pixels, k)).astype(np.int8).view(np.uint8)
    a.op(Opcode.LOAD, region=Region.INPUT, addr=x, stride=words, rows=pixels, words=words)
    source = {"src_addr": x, "src_stride": words}
    # Dense, of any geometry; the last words of taps are short.
    for wait in (1, 0, 0):
        shape = _geometry(a, 20)
        rows, depth = shape.pop("rows"), shape["taps_y"] * shape["taps_x"] * words * k - k + last
        out = a.place(1, rows * words)
        a.op(Opcode.PATTERN, tap_k=words, **shape)
        a.matmul(depth, dim, rows=rows, dst_addr=out, dst_stride=words, load_distance=wait,
                 nibbles=int(a.arch.nibbles and a.rng.integers(2)), **source)
        a.keep(out, rows, words)
    _through_a_list(a, source, pixels)
    _depthwise(a, source, pixels)
    _pool(a, source)
    _normalised(a, source)
    _products(a)
    _sums(a, source)
    _windows(a, source)
    return a.build(data.reshape(-1))


def _through_a_list(a: _Maps, source: dict[str, int], pixels: int) -> None:
    """The map's pixels lie in another order."""
    order = a.rng.permutation(pixels).astype("<u2")
    a.op(Opcode.LOAD_INDEX, region=Region.PROGRAM, offset=a.data(order), base=7, count=pixels)
    out = a.place(1, 9)
    a.op(Opcode.PATTERN, tapped=1, taps_y=3, taps_x=3, tap_stride=2, map_height=6, map_width=6,
         out_width=3, origin_y=-1, origin_x=-1, tap_k=1)
    a.matmul(9 * a.arch.depth, a.arch.depth, rows=9, src_list=1, src_list_base=7, load_distance=1,
             dst_addr=out, dst_stride=1, **source)
    a.keep(out, 9, 1)


def _by_words(arch: ArchConfig) -> dict[str, int]:
    """A c tile streams the words of its own columns only."""
    return {"k_step": max(1, arch.width // arch.depth),
            "c_group": max(1, arch.depth // arch.width),
            "tap_k": max(1, arch.width // arch.depth)}


def _depthwise(a: _Maps, source: dict[str, int], pixels: int) -> None:
    """3 x 3, channel groups of a tile; the input is added."""
    arch, own = a.arch, _by_words(a.arch)
    rows, words = min(pixels, arch.max_rows) // 6 * 6, 2
    out = a.place(2, rows * words)
    a.op(Opcode.PATTERN, tapped=1, taps_y=3, taps_x=3, map_height=6, map_width=6, out_width=6,
         origin_y=-1, origin_x=-1, add_source=1, add_stride=words, **own)
    a.matmul(9 * own["tap_k"] * arch.depth, 2 * arch.depth, rows=rows, output=Output.ADD8,
             table=True, dst_addr=out, dst_stride=words, add_addr=source["src_addr"], **source)
    a.keep(out, rows, words)


def _pool(a: _Maps, source: dict[str, int]) -> None:
    """Maxima over 2 x 2 pixels: a MATMUL for each tap, over what the first one wrote."""
    arch, own = a.arch, _by_words(a.arch)
    out = a.place(3, 18)
    for tap in range(4):
        a.op(Opcode.PATTERN, tapped=1, tap_stride=2, map_height=6, map_width=6, out_width=3,
             origin_y=tap // 2, origin_x=tap % 2, combine=Combine.MAX, **own)
        a.matmul(own["tap_k"] * arch.depth, 2 * arch.depth, rows=9, dst_addr=out, dst_stride=2,
                 output=Output.ADD8 if tap else Output.INT8, **source)
    a.keep(out, 9, 2)


def _normalised(a: _Maps, source: dict[str, int]) -> None:
    """int16 from elsewhere is added, RMS of the sum; taps of the normalised map."""
    k = a.arch.depth
    dim, rows, words = k + 2, 16, 2
    first, second = a.pair(2, rows * words), a.pair(2, rows * words)
    norm = dict(zip(("inv_dim", "inv_shift"), formats.inv_dim(dim), strict=True))
    for output, out, pattern in (
        (Output.INT16, first, {}), (Output.ADD16, second, {"add_source": 1, "add_stride": words}),
    ):
        if pattern:
            a.op(Opcode.PATTERN, **pattern)
        a.matmul(2 * k, dim, rows=rows, output=output, dst_addr=out, dst_stride=words,
                 add_addr=first, stats=Stats.RMS if pattern else Stats.NORM, stat_dst=3,
                 epsilon=3, post_shift=1, **norm, **source)
    a.keep(second, rows, words, wide=True)
    out = a.place(3, 4 * words)
    a.op(Opcode.PATTERN, tapped=1, taps_y=3, taps_x=3, tap_stride=2, map_height=4, map_width=4,
         out_width=2, origin_y=-1, origin_x=-1, tap_k=words, gain_words=words)
    gain = a.rng.integers(1, 256, 2 * k).astype(np.uint8)
    a.matmul(9 * words * k - k + 2, dim, gain=gain, rows=4, src_addr=second, src_stride=words,
             transform=Transform.NORM, stat_src=3, dst_addr=out, dst_stride=words, dep_distance=1)
    a.keep(out, 4, words)


def _products(a: _Maps) -> None:
    """Two int8 planes of a pair are multiplied on the way to the tile."""
    rows, words = 16, 2
    pair = a.pair(1, rows * words)
    out = a.place(1, rows * words)
    a.op(Opcode.LOAD, region=Region.INPUT, addr=pair, stride=words, rows=rows, words=words, wide=1)
    a.matmul(2 * a.arch.depth, a.arch.depth + 1, rows=rows, src_addr=pair, src_stride=words,
             transform=Transform.PRODUCT, norm_shift=7, norm_mantissa=300, dst_addr=out,
             dst_stride=words, load_distance=1)
    a.keep(out, rows, words)


def _sums(a: _Maps, source: dict[str, int]) -> None:
    """Rows divided by their own sum, and by one of the statistics memory."""
    k, rows = a.arch.depth, 12
    positive = a.rng.integers(0, 128, 256).astype(np.int8)
    weights, total = a.place(4, 2 * rows), a.place(5, 3 * rows)
    out, both = a.place(4, rows), a.place(4, rows)
    a.matmul(2 * k, 2 * k, table=positive, rows=rows, dst_addr=weights, dst_stride=2, **source)
    values = {"stationary": Stationary.COLUMNS, "st_addr": source["src_addr"], "st_stride": 2}
    a.matmul(2 * k, k, rows=rows, src_addr=weights, src_stride=2, row_scale=RowScale.OPERAND,
             dst_addr=out, dst_stride=1, dep_distance=1, **values)
    a.keep(out, rows, 1)
    a.matmul(2 * k, 3 * k, table=positive, rows=rows, dst_addr=total, dst_stride=3,
             stats=Stats.SUM, stat_dst=20, **source)
    a.op(Opcode.PATTERN, add_source=1, add_stride=1)
    a.matmul(2 * k, k, rows=rows, src_addr=weights, src_stride=2, stat_src=20,
             row_scale=RowScale.STATISTIC, output=Output.ADD8, add_addr=out, dst_addr=both,
             dst_stride=1, dep_distance=1, **values)
    a.keep(both, rows, 1)


def _windows(a: _Maps, source: dict[str, int]) -> None:
    """Attention in windows of six rows, all of them in two instructions, with one bias."""
    size, count, words = 6, 5, 2
    width = -(-size // a.arch.depth)
    scores, bias = a.place(5, width * size * count), a.place(4, width * size)
    out = a.place(3, words * size * count)
    table = a.rng.integers(-40, 41, (width, size, a.arch.depth)).astype(np.int8)
    a.op(Opcode.LOAD, region=Region.PROGRAM, offset=a.data(table), addr=bias, stride=width,
         rows=size, words=width)
    again = {"repeats": count - 1}
    step, row = words * size, width * size
    a.op(Opcode.PATTERN, **again, src_step=step, st_step=step, dst_step=row, stat_dst_step=size,
         add_source=1, add_stride=width)
    a.matmul(words * a.arch.depth, size, rows=size, stationary=Stationary.ROWS,
             st_addr=source["src_addr"], st_stride=words, output=Output.ADD8, add_addr=bias,
             epi_load_distance=1, dst_addr=scores, dst_stride=width, stats=Stats.MAX, stat_dst=40,
             pre_shift=7, **source)
    a.op(Opcode.PATTERN, **again, src_step=row, st_step=step, dst_step=step, stat_src_step=size)
    a.matmul(size, words * a.arch.depth, rows=size, src_addr=scores, src_stride=width,
             transform=Transform.EXP2, stat_src=40, stationary=Stationary.COLUMNS,
             st_addr=source["src_addr"], st_stride=words, row_scale=RowScale.OPERAND,
             dst_addr=out, dst_stride=words, dep_distance=1)
    a.keep(out, size * count, words)
