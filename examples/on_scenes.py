"""What the examples on scenes share: painted pictures of the test half, through the core."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from models.scenes import Painter, Scenes
from models.scenes_vit.measure import compiled, model_input
from vitrify.program import Program
from vitrify.runtime import InferenceSession


def scene_parser(name: str, arch: str) -> argparse.ArgumentParser:
    """The options of an example, whose core is ``arch`` without one."""
    parser = argparse.ArgumentParser(prog=f"python -m examples.{name}")
    parser.add_argument("--arch", default=arch, metavar="PRESET", help=f"default: {arch}")
    parser.add_argument("--scenes", type=int, default=6, help="pictures to look at")
    return parser


def through_the_core(
    model: str, arch: str, count: int, outputs: Sequence[str]
) -> tuple[Scenes, list[npt.NDArray[Any]]]:
    """So many scenes, and these outputs of a model of ``models/scenes_vit`` for them."""
    scenes = Painter("test", seed=7).paint(count)
    program = compiled(model, arch)
    parts = 1 if isinstance(program, Program) else len(program.parts)
    with InferenceSession(program) as session:
        found = session.run(outputs, {"image": model_input(scenes)})
    shapes = (f"{name} {list(each.shape)}" for name, each in zip(outputs, found, strict=True))
    print(f"{parts} part{'s' * (parts > 1)} for {arch}; {', '.join(shapes)}")
    return scenes, found
