"""Compiled kernels give the integers of the NumPy functions that define them."""

from __future__ import annotations

import os
import sys
import types

import numpy as np
import pytest

from vitrify.arch import formats
from vitrify.golden import numerics
from vitrify.golden.ops import layernorm, requantise, softmax

RNG = np.random.default_rng(7)
ROWS, COLUMNS = 13, 37
#: Around everything that rounds and saturates.
EDGES = np.array([
    *(sign * (2**n + step) for n in range(28) for sign in (-1, 1) for step in (-1, 0, 1)),
    0, formats.ACC.min, formats.ACC.max,
]).clip(formats.ACC.min, formats.ACC.max)


@pytest.fixture(scope="module")
def compiled():
    pytest.importorskip("numba", reason="the extra `fast` is not installed")
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        pytest.skip("NUMBA_DISABLE_JIT is set: nothing is compiled, by the user's own wish")
    found = numerics.compiled()
    assert found is not None, "Numba is there, and its kernels are not"
    return found


def accumulators(largest: int) -> np.ndarray:
    random = RNG.integers(-largest, largest, (ROWS, COLUMNS))
    random[:3] = RNG.choice(EDGES[abs(EDGES) <= largest], (3, COLUMNS))
    random[3] = 0
    return random


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("old", [None, "add", "largest"])
@pytest.mark.parametrize("scaling", ["columns", "one", "rows", "gates"])
@pytest.mark.parametrize("post_shift", formats.POST_SHIFTS)
def test_epilogues(compiled, narrow, old, scaling, post_shift):
    dtype = np.int8 if narrow else np.int16
    most = np.iinfo(dtype)
    multiplier = RNG.integers(0, 1 << 16, {
        "columns": COLUMNS, "one": (), "rows": (ROWS, 1), "gates": (ROWS, COLUMNS)}[scaling])
    multiplier.flat[0] = 65535
    for acc, pre_shift in (
        (accumulators(1 << 24).astype(np.float32), 0),
        (accumulators(1 << 27).astype(np.int32), 5),
        (accumulators(1 << 27).astype(np.int32)[:, ::-1], RNG.integers(0, 16, (ROWS, 1))),
        (np.zeros((0, COLUMNS), np.float32), 1),
    ):
        if len(acc) == 0 and scaling in ("rows", "gates"):
            multiplier = multiplier[:0]
        values = RNG.integers(most.min, most.max, acc.shape, dtype, endpoint=True)
        options = {
            "bias": RNG.integers(-(1 << 20), 1 << 20, COLUMNS).astype(np.int32),
            "pre_shift": pre_shift, "multiplier": multiplier, "post_shift": post_shift,
            "requant_bits": 18, "narrow": narrow, "old": None if old is None else values,
            "largest": old == "largest",
        }
        for more in (
            {}, {"bias": 0, "requant_bits": 24},
            *([{"table": RNG.integers(-128, 128, 256).astype(np.int8)}] if narrow else []),
        ):
            want = requantise.finish.__wrapped__(acc, **options | more)
            found = compiled.finish(acc, **options | more)
            assert found.dtype == want.dtype == dtype
            np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("dim", [1, 3, 16, 33, 192, 4096])
def test_normalisations(compiled, dim):
    x = RNG.integers(-32768, 32768, (40, dim)).astype(np.int16)
    x[:4] = np.array([-32768, 32767, 0, 1])[:, None]
    x[4:20] = RNG.normal(5, 2.0 ** np.arange(16)[:, None], (16, dim)).clip(-32768, 32767)
    for centred in (True, False):
        for epsilon in (0, 1, (1 << 20) + 1):
            options = {"epsilon": epsilon, "centred": centred,
                       **dict(zip(("inv_dim", "inv_shift"), formats.inv_dim(dim), strict=True))}
            want = layernorm.statistics.__wrapped__(x, **options)
            found = compiled.statistics(x, **options)
            np.testing.assert_array_equal(found, want)
            gain = RNG.integers(0, 256, dim).astype(np.uint8)
            for own in (gain, RNG.integers(0, 256, x.shape)):
                np.testing.assert_array_equal(
                    compiled.apply(x, *found, own), layernorm.apply.__wrapped__(x, *want, own))


def test_rows_with_the_statistics_of_something_else(compiled):
    x = RNG.integers(-32768, 32768, (300, 50)).astype(np.int16)
    of = (RNG.integers(-(1 << 17), 1 << 17, 300), RNG.integers(0, 19, 300),
          RNG.integers(256, 512, 300), RNG.integers(0, 256, 50))
    np.testing.assert_array_equal(
        compiled.apply(x, *of), layernorm.apply.__wrapped__(x, *of))


def test_softmax_weights(compiled):
    maximum = np.concatenate([np.arange(-70, 70), [1000, -1000, 1 << 40, -(1 << 40)]])
    logits = np.tile(np.arange(-128, 128), (len(maximum), 1)).astype(np.int8)
    want = softmax.exp2.__wrapped__(logits, maximum)
    found = compiled.exp2(logits, maximum)
    assert found.dtype == want.dtype == np.uint8
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(compiled.exp2(logits[:, ::2], maximum), want[:, ::2])


def test_kernels_are_loaded_when_they_pay(monkeypatch):
    monkeypatch.setattr(numerics, "_done", 0)
    asked = []
    monkeypatch.setattr(numerics, "compiled", lambda: asked.append(1))
    few = np.zeros((2, 2), np.int8)
    assert softmax.exp2(few, np.zeros(2, np.int64)).tolist() == [[128, 128]] * 2
    assert not asked
    monkeypatch.setattr(numerics, "_done", 1 << 40)
    assert softmax.exp2(few, np.zeros(2, np.int64)).tolist() == [[128, 128]] * 2
    assert asked


@pytest.mark.parametrize("how", ["absent", "disabled", "no cache"])
def test_without_numba_numpy_does_it(monkeypatch, how):
    def refuse(_function):
        raise RuntimeError("cannot cache function: no locator available")

    if how == "disabled":
        monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    else:
        monkeypatch.delitem(sys.modules, "vitrify.golden.compiled", raising=False)
        monkeypatch.delattr("vitrify.golden.compiled", raising=False)
        numba = None if how == "absent" else types.SimpleNamespace(njit=lambda **_: refuse)
        monkeypatch.setitem(sys.modules, "numba", numba)
    assert numerics.compiled.__wrapped__() is None
