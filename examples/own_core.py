# %% [markdown]
# # A core of your own
#
# An architecture is a preset with other settings.  Which settings suit a model and a part, a search
# says: here six cores for the digits model on an ECP5.
#
#     python -m examples.own_core

# %%
import dataclasses
from pathlib import Path

import numpy as np

from models import datasets
from vitrify.arch.presets import preset
from vitrify.compiler import compile_model
from vitrify.compiler.driver import quantise_model
from vitrify.estimate import estimate
from vitrify.explore import Space, Study, explore, front, share_of
from vitrify.program import preprocess

ROOT = Path(datasets.__file__).resolve().parent.parent
MODEL = ROOT / "models" / "digits_vit" / "model.onnx"
PREPROCESS = "mean=0.305,std=0.376"
images = np.ascontiguousarray(datasets.digits("train").image[:64].transpose(0, 3, 1, 2))
calibration = preprocess.parse(PREPROCESS).normalise(images)

# %% [markdown]
# ## By hand
#
# Twice the columns of `nano`, and what that costs and brings.  A file does the same:
# `vitrify arch new mine.yaml --from nano`.

# %%
nano = preset("nano")
wide = dataclasses.replace(nano, name="wide", width=8)
for arch in (nano, wide):
    program = compile_model(MODEL, arch, calibration, verify=False)
    print(f"{arch.name}: {arch.width} × {arch.depth}, {estimate(program).cycles:,} cycles, "
          + ", ".join(f"{share:.0%} {kind}" for kind, share in share_of(arch).items()))

# %% [markdown]
# ## By search
#
# The designs that no other beats in time and in share of the part, the fastest first.
# `Study(path)` would keep them in a file and go on from there.

# %%
space = Space.of("ulx3s", sweep={"depth": (8, 16), "width": (4, 8), "lanes": (2, 4)})
with Study(None, {}) as study:
    designs = explore(
        space.designs({"lut": 0.6}, limit=6),
        {"digits": lambda arch: quantise_model(MODEL, arch, calibration)[1]}, study, jobs=1,
    )
for design in front(designs):
    print(f"{design.arch.name}: {design.milliseconds:.2f} ms, {design.share:.0%} of the part")
