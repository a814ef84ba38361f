import numpy as np
import pytest
from PIL import Image

from vitrify.arch.errors import InputError
from vitrify.program import preprocess
from vitrify.program.preprocess import Preprocess, parse


@pytest.mark.parametrize(
    "text",
    [
        "imagenet",
        "none",
        "crop_pct=0.9,mean=0.5,std=0.5",
        "size=224:192,interpolation=bilinear",
        "mean=0.1:0.2:0.3,std=1",
    ],
)
def test_format_round_trip(text):
    spec = parse(text)
    assert parse(preprocess.format(spec)) == spec


def test_imagenet_is_what_torchvision_calls_it():
    spec = parse("imagenet")
    assert (spec.crop_pct, spec.mean, spec.std, spec.interpolation) == (
        0.875,
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        "bicubic",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crop=0.9", "'crop=0.9' is not known; the settings are size=, crop_pct="),
        ("", "is not known"),
        ("mean", "'mean' is not known"),
        ("mean=a", "mean='a' is not a number"),
        ("mean=nan", "mean='nan' must be from -1000000 to 1000000"),
        ("std=0", "std='0' must be at least 1e-06"),
        ("crop_pct=1.5", "crop_pct='1.5' must be one number from 0.1 to 1"),
        ("crop_pct=0.5:0.5", "must be one number"),
        ("size=1.5", "size='1.5' must be one whole number or height:width"),
        ("interpolation=cubist", "'cubist' is not one of bicubic"),
        ("mean=0,mean=1", "'mean' is given twice"),
    ],
)
def test_parse_errors(text, message):
    with pytest.raises(InputError, match=message):
        parse(text)


def test_normalise_per_channel():
    spec = parse("mean=0.5:0.25:0,std=0.5:1:2")
    pixels = np.array([0, 51, 255], np.uint8).reshape(1, 3, 1, 1)
    wanted = [(0 - 0.5) / 0.5, (0.2 - 0.25) / 1, (1 - 0) / 2]
    np.testing.assert_allclose(spec.normalise(pixels).ravel(), wanted, rtol=1e-6)
    with pytest.raises(InputError, match="mean has 3 values for 1 channels"):
        spec.normalise(pixels[:, :1])


def test_picture_resizes_shorter_side_and_crops_the_centre():
    # Columns carry their own number, so the crop can be read off the result.
    columns = np.tile(np.arange(248, dtype=np.uint8), (124, 1))
    image = Image.fromarray(columns)
    spec = Preprocess(crop_pct=0.9, interpolation="nearest")
    pixels = spec.picture(image, (3, 112, 112))  # shorter side 124: not resized, cropped
    assert pixels.shape == (3, 112, 112)
    np.testing.assert_array_equal(pixels[0, 0], np.arange(68, 68 + 112))
    assert spec.picture(image, (1, 28, 56)).shape == (1, 28, 56)


def test_floor_of_size_by_crop_pct_is_exact():
    # 224 / 0.875 must be 256: a picture of 256 pixels is cropped, not resized.
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (256, 1)))
    pixels = parse("imagenet").picture(ramp, (1, 224, 224))
    np.testing.assert_array_equal(pixels[0, 0], np.arange(16, 240))


def test_raw_keeps_pixels_and_refuses_other_sizes():
    spec = parse("none")
    pixels = np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4)
    np.testing.assert_array_equal(spec.apply(pixels, (3, 4, 4)), pixels.astype(np.float32))
    with pytest.raises(InputError, match="a picture of 5 x 4 does not fit"):
        spec.picture(Image.new("RGB", (5, 4)), (3, 4, 4))


def test_apply_takes_pictures_and_both_array_orders():
    rng = np.random.default_rng(1)
    nhwc = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    spec = parse("mean=0.5,std=0.5")
    first = spec.apply(nhwc.transpose(0, 3, 1, 2), (3, 8, 8))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, spec.apply(nhwc, (3, 8, 8)))
    np.testing.assert_array_equal(first, spec.apply([Image.fromarray(a) for a in nhwc], (3, 8, 8)))
    np.testing.assert_array_equal(
        spec.apply(nhwc, (3, 4, 4)),
        spec.apply([Image.fromarray(a) for a in nhwc], (3, 4, 4)),
    )
    grey = spec.apply(nhwc[..., :1], (1, 4, 4))
    assert grey.shape == (2, 1, 4, 4)


@pytest.mark.parametrize(
    ("array", "shape", "message"),
    [
        (np.zeros((1, 3, 4, 4), np.float32), (3, 4, 4), "must be uint8"),
        (np.zeros((4, 4), np.uint8), (3, 4, 4), "rank 3 or 4"),
        (np.zeros((1, 2, 4, 4), np.uint8), (3, 4, 4), "do not have the model's 3 channels"),
        (np.zeros((1, 2, 4, 4), np.uint8), (2, 5, 5), "2 input channels cannot take pictures"),
    ],
)
def test_apply_errors(array, shape, message):
    with pytest.raises(InputError, match=message):
        parse("crop_pct=1").apply(array, shape)


def test_size_must_agree_with_the_model():
    with pytest.raises(InputError, match=r"size=32 differs from the model's input of 16 x 16"):
        parse("size=32").picture(Image.new("RGB", (9, 9)), (3, 16, 16))
