"""What access patterns, old values, products and sums compute, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from vitrify.arch import formats, isa
from vitrify.arch.isa import Opcode, Output, RowScale, Stationary, Stats, Transform
from vitrify.arch.modes import Combine
from vitrify.arch.presets import preset
from vitrify.codegen.pack import weight_words
from vitrify.golden.machine import Machine, statistics
from vitrify.golden.ops import layernorm, requantise
from vitrify.selftest.patterns import access_patterns

NANO = preset("nano")
K, C = NANO.depth, NANO.width
DST = 2 * NANO.bank_words


class Bench:
    """A core whose token memory holds a map ``[height, width, words * K]`` at word 0."""

    def __init__(self, height: int, width: int, words: int = 1) -> None:
        rng = self.rng = np.random.default_rng(height * width)
        self.machine = Machine(NANO)
        self.map = rng.integers(-20, 21, (height, width, words * K)).astype(np.int8)
        self.machine.tokens.bytes[: height * width * words] = (
            self.map.reshape(-1, K).view(np.uint8))
        self.words = words

    def run(self, weight: np.ndarray | None, columns: int, pattern: dict[str, int] | None = None,
            **fields: int) -> np.ndarray:
        """One MATMUL with multiplier 1; what it writes to ``DST``, ``[rows, columns]``."""
        code = [isa.make(Opcode.PATTERN, **pattern)] if pattern else []
        size = isa.INSTRUCTION_BYTES * (len(code) + 2)
        stream = np.zeros(0, np.uint8)
        values = {
            "src_stride": self.words, "dst_addr": DST, "dst_stride": 8,
            "c_tiles": -(-columns // C), "c_last": (columns - 1) % C + 1,
            "multiplier": 1 << 12, **fields,
        }
        if weight is not None:
            bias, one = np.zeros(columns, np.int32), np.full(columns, 1 << 12, np.uint16)
            stream = weight_words(NANO, weight.astype(np.int8), bias, one)
            depth = weight.shape[1]
            values |= {"k_tiles": -(-depth // K), "k_last": (depth - 1) % K + 1,
                       "stream_offset": size, "stream_words": len(stream) // K}
        code += [isa.make(Opcode.MATMUL, **values), isa.make(Opcode.END)]
        head = b"".join(isa.pack(op) for op in code)
        image = np.concatenate([np.frombuffer(head, np.uint8), stream])
        found: list[np.ndarray] = []
        self.machine.run(image, len(code), np.zeros(0, np.uint8), 0,
                         lambda _n, _op, written: found.append(written))
        return found[0]

    def patches(self, kernel: int, stride: int, pad: int) -> np.ndarray:
        """``[out_y, out_x, kernel * kernel, channels]`` of the padded map."""
        padded = np.pad(self.map, ((pad, pad), (pad, pad), (0, 0))).astype(np.int64)
        view = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (0, 1))
        view = view[::stride, ::stride].transpose(0, 1, 3, 4, 2)
        return view.reshape(*view.shape[:2], kernel * kernel, -1)


def taps(bench: Bench, kernel: int, stride: int, pad: int, **more: int) -> dict[str, int]:
    height, width, _ = bench.map.shape
    return {
        "tapped": 1, "taps_y": kernel, "taps_x": kernel, "tap_k": bench.words,
        "tap_stride": stride, "map_height": height, "map_width": width,
        "out_width": (width + 2 * pad - kernel) // stride + 1, "origin_y": -pad,
        "origin_x": -pad, **more,
    }


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 1, 1), (3, 2, 1), (2, 2, 0), (4, 3, 2)])
def test_convolution(kernel: int, stride: int, pad: int) -> None:
    bench = Bench(5, 6, words=2)
    weight = bench.rng.integers(-3, 4, (7, kernel * kernel * 2 * K))
    patches = bench.patches(kernel, stride, pad)
    rows = patches.shape[0] * patches.shape[1]
    found = bench.run(weight, 7, taps(bench, kernel, stride, pad), rows=rows,
                      output=Output.INT16)
    want = patches.reshape(rows, -1) @ weight.T
    assert np.array_equal(found, want)


def test_short_taps() -> None:
    """Behind the last valid byte of a tap's last word, there are zeros."""
    bench = Bench(4, 4, words=2)
    weight = bench.rng.integers(-3, 4, (4, 9 * 2 * K - K + 3))
    patches = bench.patches(3, 1, 0)
    patches[..., K + 3 :] = 0
    found = bench.run(weight, 4, taps(bench, 3, 1, 0), rows=4, output=Output.INT16)
    want = patches.reshape(4, -1)[:, : weight.shape[1]] @ weight.T
    assert np.array_equal(found, want)


def test_depthwise_convolution() -> None:
    bench = Bench(4, 5, words=2)
    kernel = bench.rng.integers(-3, 4, (9, 2 * K))
    weight = np.zeros((2 * K, 9, K), np.int64)
    channels = np.arange(2 * K)
    weight[channels, :, channels % K] = kernel.T
    own = {"k_step": 1, "c_group": K // C, "tap_k": 1}
    found = bench.run(weight.reshape(2 * K, -1), 2 * K, taps(bench, 3, 1, 1) | own, rows=20,
                      output=Output.INT16)
    want = (bench.patches(3, 1, 1) * kernel).sum(axis=2)
    assert np.array_equal(found, want.reshape(20, -1))


def test_maximum_over_taps() -> None:
    bench, identity = Bench(4, 4), np.eye(K, dtype=np.int64)
    for tap in range(4):
        pattern = taps(bench, 1, 2, 0, origin_y=tap // 2, origin_x=tap % 2, combine=Combine.MAX,
                       out_width=2)
        found = bench.run(identity, K, pattern, rows=4,
                          output=Output.ADD8 if tap else Output.INT8)
    assert np.array_equal(found, bench.patches(2, 2, 0).max(axis=2).reshape(4, K))


def test_old_values_are_added_before_the_rounding_of_a_byte() -> None:
    bench = Bench(2, 2)
    weight = bench.rng.integers(-9, 10, (K, K))
    pattern = {"add_source": 1, "add_stride": 1}
    found = bench.run(weight, K, pattern, rows=4, output=Output.ADD8, add_addr=0)
    x = bench.map.reshape(4, K).astype(np.int64)
    assert np.array_equal(found, np.clip(x @ weight.T + x, -127, 127))


def test_rows_divided_by_sums() -> None:
    bench = Bench(3, 4)
    bench.machine.tokens.bytes[:12] = np.abs(bench.map.reshape(12, K)).astype(np.uint8) * 6
    weights = bench.machine.tokens.bytes[:12].astype(np.int64)
    values = bench.rng.integers(-100, 101, (K, K)).astype(np.int8)
    bench.machine.tokens.bytes[NANO.bank_words :][:K] = values.view(np.uint8)
    fields = {"rows": 12, "stationary": Stationary.COLUMNS, "st_addr": NANO.bank_words,
              "st_stride": 1, "k_last": K}
    found = bench.run(None, K, row_scale=RowScale.OPERAND, **fields)
    exact = weights @ values.astype(np.int64) / np.maximum(weights.sum(axis=1), 128)[:, None]
    assert np.abs(found - exact).max() < 1
    bench.machine.stats[30:42, 0] = 4 * np.maximum(weights.sum(axis=1), 128)
    found = bench.run(None, K, row_scale=RowScale.STATISTIC, stat_src=30, **fields)
    assert np.abs(found - exact / 4).max() < 1


def test_attention_in_windows_is_two_instructions() -> None:
    """Scores and weighted values of three windows, as one by one."""
    bench = Bench(3, 4)
    fields = {"rows": 4, "k_last": K, "st_stride": 1, "pre_shift": 5, "multiplier": 1 << 14}
    scores = {"stationary": Stationary.ROWS, "stats": Stats.MAX, "dst_stride": 1, **fields}
    values = {"stationary": Stationary.COLUMNS, "transform": Transform.EXP2, "src_stride": 1,
              "row_scale": RowScale.OPERAND, **fields, "k_last": 4}
    at = NANO.bank_words
    alone = []
    for i in range(3):
        bench.run(None, 4, src_addr=4 * i, st_addr=4 * i, stat_dst=4 * i,
                  **{**scores, "dst_addr": at + 4 * i})
        alone.append(bench.run(None, K, src_addr=at + 4 * i, st_addr=4 * i, stat_src=4 * i,
                               **values))
    bench.machine.tokens.bytes[at:] = 0
    bench.machine.stats[:] = 0
    steps = {"repeats": 2, "src_step": 4, "st_step": 4, "dst_step": 4}
    bench.run(None, 4, {**steps, "stat_dst_step": 4}, **{**scores, "dst_addr": at})
    found = bench.run(None, K, {**steps, "stat_src_step": 4}, src_addr=at, **values)
    assert np.array_equal(found, np.concatenate(alone))
    assert found.any()


@pytest.mark.parametrize("high", [-128, -127, -3, 0, 5, 127])
def test_product(high: int) -> None:
    low = np.arange(-128, 128)[None]
    found = layernorm.product(low.astype(np.int8), np.full((1, 256), high, np.int8), 7, 256)
    exact = np.clip(low * high / 128, -128, 127)
    assert np.abs(found - exact).max() <= 0.65


def test_statistics() -> None:
    rows = np.random.default_rng(0).integers(-300, 3000, (5, 40)).astype(np.int16)
    dim = dict(zip(("inv_dim", "inv_shift"), formats.inv_dim(40), strict=True))
    mean, shift, mantissa = statistics(
        isa.make(Opcode.MATMUL, stats=Stats.RMS, epsilon=0, **dim), rows).T
    assert not mean.any()
    found = mantissa / 2.0 ** (formats.RSQRT_FRAC + shift - formats.MEAN_FRAC)
    want = 1 / np.sqrt((rows.astype(float) ** 2).mean(axis=1))
    assert np.allclose(found, want, rtol=0.005)
    total = statistics(isa.make(Opcode.MATMUL, stats=Stats.SUM), rows)[:, 0]
    assert np.array_equal(total, rows.sum(axis=1))
    rows[0] = -1
    assert statistics(isa.make(Opcode.MATMUL, stats=Stats.SUM), rows)[0, 0] == 0


def test_largest_of_int16() -> None:
    value, old = np.array([[40000, 5, -7]]), np.array([[1, 9, -40]], np.int16)
    assert requantise.to_int16(value, old, largest=True).tolist() == [[32767, 9, -7]]


def test_programs_of_every_kind_run() -> None:
    job = access_patterns(NANO, 5)
    assert job.output_known.any()


def test_a_product_is_refused_where_there_is_none() -> None:
    op = isa.make(Opcode.MATMUL, transform=Transform.PRODUCT)
    image = np.frombuffer(isa.pack(op), np.uint8)
    with pytest.raises(isa.ProgramError, match="without 'products'"):
        Machine(preset("ulx3s")).run(image, 1, np.zeros(0, np.uint8), 0)
