"""The committed models are what their cards say, and calibration needs no download."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from models import calibration, datasets
from vitrify import InferenceSession
from vitrify.arch.presets import preset
from vitrify.compiler import compile_model

MODELS = Path(__file__).resolve().parents[3] / "models"
FILES = sorted(MODELS.glob("*/*.onnx"))
RESULTS = map(Path.read_text, sorted((MODELS.parent / "bench/results").glob("accuracy_*.json")))
OURS = {path.parent.name for path in FILES}
MEASURED = [found for found in map(json.loads, RESULTS) if found["model"] in OURS]
BATCH = 250
LARGEST = 5 << 20  # bytes of an ONNX file that we commit


def card(name: str) -> str:
    return (MODELS / name / "README.md").read_text()


def preprocess(name: str, image: np.ndarray) -> np.ndarray:
    """uint8 NHWC to the model's input, by the SPEC in its card (no resizing: sizes match)."""
    spec = re.search(r"`(mean=[^`]*)`", card(name))[1]
    values = {
        key: np.array([float(number) for number in value.split(":")], np.float32)
        for key, value in (item.split("=") for item in spec.split(","))
    }
    scaled = (image.astype(np.float32) / 255 - values["mean"]) / values["std"]
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_onnx_is_valid_and_small(path):
    name = path.parent.name
    assert path.stat().st_size < LARGEST
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    tasks = ["task"] if "`task`" in card(name) else []
    assert [value.name for value in model.graph.input] == ["image", *tasks]
    results = [value.name for value in model.graph.output]
    assert results[0] == "logits"
    assert all(f"`{result}`" in card(name) for result in results)
    for value in model.graph.input:
        assert value.type.tensor_type.shape.dim[0].dim_param, "batch is not dynamic"


def accuracy(name: str, pictures: datasets.Pictures, task: int | None = None) -> float:
    session = onnxruntime.InferenceSession(MODELS / name / "model.onnx")
    right = 0
    # In batches: attention over ten thousand pictures at once takes gigabytes.
    for i in range(0, len(pictures.image), BATCH):
        feeds = {"image": preprocess(name, pictures.image[i : i + BATCH])}
        if task is not None:
            feeds["task"] = np.full(len(feeds["image"]), task)
        (logits,) = session.run(None, feeds)
        right += int((logits.argmax(1) == pictures.label[i : i + BATCH]).sum())
    return 100 * right / len(pictures.image)


def counted(name: str) -> int:
    """How many test pictures, the first ones, the card's accuracy is of."""
    return int(re.search(r"Test accuracy, (?:the first )?([\d,]+)", card(name))[1].replace(",", ""))


def claimed(name: str, column: int = 0, kind: str = "float") -> float:
    row = re.search(rf"\| {kind}[^|]*\|(.*)", card(name))[1]
    return float(re.findall(r"([\d.]+) %", row)[column])


def test_digits_accuracy_is_as_claimed():
    assert claimed("digits_vit") >= 97
    assert accuracy("digits_vit", datasets.digits("test")) == pytest.approx(
        claimed("digits_vit"), abs=0.01
    )


@pytest.mark.parametrize("name", ["cifar10_vit", "cifar10_hybrid_vit"])
def test_cifar10_accuracy_is_as_claimed(name):
    folder = MODELS.parent.parent / "shared" / "data" / "cifar10"
    if not folder.is_dir():
        pytest.skip("CIFAR-10 is not at ../shared/data/cifar10")
    # A rounding difference between processors may flip one picture in ten thousand.
    assert accuracy(name, datasets.cifar10(folder, "test")) == pytest.approx(
        claimed(name), abs=0.03
    )


@pytest.mark.parametrize("found", MEASURED, ids=lambda r: f"{r['model']}-{r.get('task', 0)}")
def test_cards_quote_what_was_measured(found):
    for kind in ("float", "integer"):
        assert claimed(found["model"], found.get("task", 0), kind) == pytest.approx(
            100 * found[f"{kind}_top1"], abs=0.005
        )


def test_the_hybrid_loses_little_in_integers():
    rows = [claimed("cifar10_hybrid_vit", kind=kind) for kind in ("float", "integer")]
    assert rows[0] >= 86
    assert rows[0] - rows[1] <= 0.5


def test_the_hybrid_answers_alike_in_integers():
    images = preprocess("cifar10_hybrid_vit", calibration.photo_crops(72, 32))
    path = MODELS / "cifar10_hybrid_vit" / "model.onnx"
    program = compile_model(path, preset("reference"), images[:64], verify=False)
    real, integer = (
        InferenceSession(model, backend).run(None, {"image": images[64:]})[0]
        for model, backend in ((path, "float"), (program, "golden"))
    )
    assert np.square(real).sum() > 100 * np.square(real - integer).sum(), "below 20 dB"


@pytest.mark.slow
@pytest.mark.parametrize("task", [0, 1])
def test_accuracy_of_each_task_is_as_claimed(task):
    folder = MODELS.parent.parent / "shared" / "data" / "cifar10"
    if not folder.is_dir():
        pytest.skip("CIFAR-10 is not at ../shared/data/cifar10")
    tests = datasets.cifar10(folder, "test")
    count = counted("cifar10_moe_vit")
    tests = datasets.Pictures(tests.image[:count], tests.label[:count], tests.classes)
    if task == 1:
        tests = datasets.quarter_turns(tests.image)
    assert accuracy("cifar10_moe_vit", tests, task) == pytest.approx(
        claimed("cifar10_moe_vit", task), abs=0.03
    )


def test_quarter_turns_are_anticlockwise():
    image = np.arange(5 * 4 * 4 * 1, dtype=np.uint8).reshape(5, 4, 4, 1)
    turned = datasets.quarter_turns(image)
    np.testing.assert_array_equal(turned.label, [0, 1, 2, 3, 0])
    np.testing.assert_array_equal(turned.image[1, 3, 0], image[1, 0, 0])
    np.testing.assert_array_equal(turned.image[2], image[2, ::-1, ::-1])
    np.testing.assert_array_equal(turned.image[4], image[4])
    np.testing.assert_array_equal(datasets.half_turned(image)[[0, 2, 4]], image[[0, 2, 4]])
    np.testing.assert_array_equal(datasets.half_turned(image)[3], np.rot90(image[3]))


def test_digits_halves_are_fixed_and_disjoint():
    train, test = datasets.digits("train"), datasets.digits("test")
    assert (len(train.image), len(test.image)) == (1348, 449)
    np.testing.assert_array_equal(test.image, datasets.digits("test").image)
    np.testing.assert_array_equal(np.bincount(train.label) + np.bincount(test.label), COUNTS)


#: How often each digit occurs in scikit-learn's set.
COUNTS = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])


def test_cifar10_names_the_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"CIFAR-10 file .*test\.npz does not exist"):
        datasets.cifar10(tmp_path, "test")


def test_digits_calibration_is_from_the_training_half():
    crops = calibration.digits_calibration(64)
    assert crops.dtype == np.uint8
    assert crops.shape == (64, 8, 8, 1)
    np.testing.assert_array_equal(crops, datasets.digits("train").image[:64])


def test_photo_crops():
    crops = calibration.photo_crops(24, 32)
    assert crops.dtype == np.uint8
    assert crops.shape == (24, 32, 32, 3)
    np.testing.assert_array_equal(crops, calibration.photo_crops(24, 32))
    assert (crops != calibration.photo_crops(24, 32, seed=1)).any()
    assert all(crop.std() > 1 for crop in crops), "a crop is one flat colour"


def test_photographs_are_colour():
    photos = calibration.photographs()
    assert len(photos) == len(calibration.PHOTOGRAPHS)
    assert {photo.mode for photo in photos} == {"RGB"}
