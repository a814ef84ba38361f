"""A board that is small enough to simulate often."""

from __future__ import annotations

import dataclasses

import numpy as np

from tests.support.synthetic import vision_transformer
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.runtime import InferenceSession

#: The nano core behind a 16-bit memory.
ARCH = dataclasses.replace(preset("nano"), name="nano16", bus_bytes=2, burst_beats=64)


def small_program(arch=ARCH):
    """A tiny vision transformer, three images, and golden's logits."""
    program = compile_graph(vision_transformer(seed=1), arch)
    shape = (3, *program.input.shape)
    images = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    feed = {program.input.name: images}
    return program, feed, InferenceSession(program).run(None, feed)[0]
