"""The small inputs of ``../shared/cases`` that concern the front end: each gives what is right."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.compiled import compiled
from tests.support.shared import case
from vitrify.arch.errors import VitrifyError
from vitrify.arch.presets import preset
from vitrify.compiler.driver import compile_model

#: Case, architecture, least signal-to-noise ratio in dB against ONNX Runtime on the same file.
RIGHT = {
    "base": ("nano", 33),
}
#: Case and what its sentence says.
REFUSED = {
    "nan_weight": r"Weight 'fc1\.weight' holds 1 NaN",
    "w_1e38": r"Weight 'fc2\.weight'.*1e\+12 is the most",
    "bomb_concat": r"Node 'cn\d+' \(Concat\).*512 MiB are the most allowed",
    "cycle": r"Node '.*' \(\w+\).*needs its own result",
}


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    arch, least = RIGHT[name]
    result = compiled(case(f"{name}.onnx"), arch=arch)
    for output in result.wanted:
        assert result.found[output].dtype == result.wanted[output].dtype
        assert result.snr(output) >= least


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    images = np.random.default_rng(0).standard_normal((4, 3, 8, 8), np.float32)
    with pytest.raises(VitrifyError, match=REFUSED[name]) as caught:
        compile_model(case(f"{name}.onnx"), preset("nano"), images)
    assert "\n" not in str(caught.value)
