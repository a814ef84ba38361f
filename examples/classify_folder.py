# %% [markdown]
# # Classify a folder of pictures, with words and probabilities
#
# Softmax and top-k are no work for a matrix unit: they become a part of the host, in the same
# program and the same `run` (docs/partition.md).
#
#     python -m examples.classify_folder

# %%
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from models import datasets
from vitrify.arch.presets import preset
from vitrify.compiler import compile_application
from vitrify.program import Application, preprocess
from vitrify.runtime import InferenceSession

ROOT = Path(datasets.__file__).resolve().parent.parent
OUT = ROOT / "build" / "examples"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PREPROCESS = "mean=0.305,std=0.376"
BEST = 3
FOLDER: Path | None = None  # of your pictures; None: of some digits, in build/examples

# %% [markdown]
# ## The model: probabilities and the best three, not logits

# %%
model = onnx.load(ROOT / "models" / "digits_vit" / "model.onnx")
logits = model.graph.output[0].name
model.graph.initializer.append(numpy_helper.from_array(np.array([BEST], np.int64), "best"))
model.graph.node.extend([
    helper.make_node("Softmax", [logits], ["probabilities"], axis=-1),
    helper.make_node("TopK", ["probabilities", "best"], ["probability", "class"], axis=-1),
])
del model.graph.output[:]
model.graph.output.extend([
    helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", BEST]),
    helper.make_tensor_value_info("class", TensorProto.INT64, ["N", BEST]),
])
OUT.mkdir(parents=True, exist_ok=True)
onnx.save(model, OUT / "digits_top3.onnx")

calibration = preprocess.parse(PREPROCESS).normalise(
    np.ascontiguousarray(datasets.digits("train").image[:64].transpose(0, 3, 1, 2))
)
application = compile_application(
    OUT / "digits_top3.onnx", preset("nano"), calibration, preprocess=PREPROCESS
)
assert isinstance(application, Application)  # a Program, had the core run all of it
for number, part in enumerate(application.parts):
    print(f"part {number}: {type(part).__name__}")

# %% [markdown]
# ## The folder

# %%
folder = FOLDER
if folder is None:
    folder, test = OUT / "digits", datasets.digits("test")
    folder.mkdir(exist_ok=True)
    for number in range(8):
        picture, word = Image.fromarray(test.image[number, :, :, 0]), WORDS[test.label[number]]
        picture.resize((64, 64), Image.Resampling.BOX).save(folder / f"{number}_{word}.png")
files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg"))

# %% [markdown]
# ## The answers

# %%
channels, height, width = (int(size) for size in application.input.shape)
images = preprocess.parse(PREPROCESS).apply(
    [Image.open(file) for file in files], (channels, height, width)
)
session = InferenceSession(application)
probability, best = session.run(["probability", "class"], {application.input.name: images})
for file, shares, classes in zip(files, probability, best, strict=True):
    print(f"{file.name:16}" + "  ".join(
        f"{WORDS[int(label)]} {share:.1%}" for share, label in zip(shares, classes, strict=True)
    ))
