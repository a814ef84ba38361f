"""Our segmentation and detection models on the simulated core: every tensor is golden's."""

from __future__ import annotations

import numpy as np
import pytest

from models.scenes import Painter
from models.scenes_vit.measure import compiled, model_input
from vitrify.program import Program
from vitrify.runtime import InferenceSession

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["segment", "detect"])
def test_nano(name):
    program, feed = compiled(name, "nano"), {"image": model_input(Painter("test").paint(1))}
    with InferenceSession(program, "golden") as session:
        wanted = session.run(None, feed)
    with InferenceSession(program, "rtl", check=True, stall=0.1, seed=1) as session:
        found = session.run(None, feed)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    # The logits of the pixels have no room in the smallest core: that layer is the host's there.
    assert isinstance(program, Program) == (name == "detect")
