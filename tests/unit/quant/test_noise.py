"""Streams whose steps are coarse because an epsilon wants them so."""

import numpy as np
import pytest

from vitrify.arch.errors import ModelError
from vitrify.ops.norm.layer_norm import LayerNorm
from vitrify.quant.operands import check_noise
from vitrify.quant.plan import ReadNorm


def test_a_step_of_half_the_deviation_is_the_bound():
    """Its square over 12, the variance of rounding, is 2 % of the other one."""
    rows = np.random.default_rng(1).normal(size=(400, 64))
    norm = ReadNorm("norm", np.ones(64), np.zeros(64), LayerNorm(0.0))
    check_noise(norm, rows, 0.47)
    with pytest.raises(ModelError, match=r"the epsilon of 'norm' is too large .*, 0.9.* in the"):
        check_noise(norm, rows, 0.51)
