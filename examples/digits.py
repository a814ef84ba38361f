# %% [markdown]
# # Handwritten digits on a core of 32 multipliers
#
# From an ONNX file to the simulated hardware: compile, ask for accuracy and cycles, simulate the
# Verilog and look at what its engines do.  The model and the pictures come with the repository.
#
#     python -m examples.digits

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from models import datasets
from vitrify.arch.presets import preset
from vitrify.compiler import compile_model
from vitrify.estimate import estimate
from vitrify.program import preprocess
from vitrify.report.chrome import WAITS
from vitrify.runtime import InferenceSession
from vitrify.runtime.activity import ENGINES

ROOT = Path(datasets.__file__).resolve().parent.parent
OUT = ROOT / "build" / "examples"
OUT.mkdir(parents=True, exist_ok=True)
SIMULATE = True  # needs a C++ compiler

# %% [markdown]
# ## Compile
#
# The calibration pictures decide how wide the integers' ranges are.  `preprocess` is stored in the
# program, so that it takes pixels.

# %%
MODEL = ROOT / "models" / "digits_vit" / "model.onnx"
PREPROCESS = "mean=0.305,std=0.376"
train, test = datasets.digits("train"), datasets.digits("test")
calibration = preprocess.parse(PREPROCESS).normalise(train.image[:64].transpose(0, 3, 1, 2))
program = compile_model(MODEL, preset("nano"), calibration, preprocess=PREPROCESS)
print(f"{program.instruction_count} instructions, {len(program.image):,} bytes")

# %% [markdown]
# ## How accurate are the integers?
#
# The golden machine executes the instructions in NumPy, with the integers of the hardware.

# %%
session = InferenceSession(program)
name = program.input.name
golden, = session.run(None, {name: test.image})
pixels = test.image.transpose(0, 3, 1, 2)
float_logits, = InferenceSession(MODEL, "float", preprocess=PREPROCESS).run(None, {name: pixels})
for title, logits in (("ONNX Runtime, float", float_logits), ("golden, integers", golden)):
    print(f"{title}: {np.mean(logits.argmax(1) == test.label):.2%} of {len(test.label)} right")

# %% [markdown]
# ## How fast would it be?

# %%
estimated = estimate(program, trace=True)
print(f"{estimated.cycles:,} cycles, {estimated.milliseconds:.2f} ms at "
      f"{program.arch.clock_mhz:g} MHz; {estimated.conditions}")

# %% [markdown]
# ## The hardware, simulated
#
# `check` compares every tensor of every layer with golden; one bit that differs is an error.  The
# simulator is built once, in about half a minute, and kept.

# %%
assert estimated.activity is not None
activities = {"estimate": estimated.activity}
if SIMULATE:
    with InferenceSession(program, "rtl", check=True, activity=True) as simulated:
        rtl, = simulated.run(None, {name: test.image[:1]})
        statistics = simulated.statistics
    assert statistics is not None
    assert statistics.activity is not None
    assert (rtl == golden[:1]).all()
    print(f"RTL: {statistics.cycles:,} cycles, every tensor equal to golden's")
    activities["RTL"] = statistics.activity

# %% [markdown]
# ## What its engines do
#
# One line an engine, one bar a span of work, grey where it waits; `vitrify trace` writes the same
# for ui.perfetto.dev.

# %%
figure, panels = plt.subplots(
    len(activities), figsize=(11, 2.6 * len(activities)), sharex=True, squeeze=False,
    layout="constrained",
)
for axes, (title, activity) in zip(panels[:, 0], activities.items(), strict=True):
    for row, engine in enumerate(ENGINES):
        for waits, colour in ((False, f"C{row}"), (True, "lightgrey")):
            spans = [(span.begin, span.cycles) for span in activity.spans
                     if span.engine == engine and (span.state in WAITS) == waits]
            axes.broken_barh(spans, (row - 0.4, 0.8), color=colour)
    axes.set(yticks=range(len(ENGINES)), yticklabels=ENGINES,
             title=f"{title}: {activity.cycles:,} cycles")
panels[-1, 0].set_xlabel("cycle")
figure.savefig(OUT / "digits_trace.png", dpi=110)
print(f"picture: {(OUT / 'digits_trace.png').relative_to(ROOT)}")
