"""Files to batches."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vitrify.arch.errors import InputError
from vitrify.runtime.images import read_batch, read_floats

SHAPE = (3, 8, 8)
RNG = np.random.default_rng(0)
FLOATS = RNG.random((2, 3, 8, 8)).astype(np.float32)
PIXELS = RNG.integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)


def save(path, array, **named):
    if path.suffix == ".npz":
        np.savez(path, **named)
    elif path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def test_arrays_keep_their_order(tmp_path):
    a = save(tmp_path / "a.npy", FLOATS)
    b = save(tmp_path / "b.npz", None, x=FLOATS[1:], other=FLOATS)
    c = save(tmp_path / "c.npy", FLOATS[0])
    batch = read_batch([b, a, c], "x", SHAPE, None)
    assert (batch == np.concatenate([FLOATS[1:], FLOATS, FLOATS[:1]])).all()


def test_a_picture_of_the_right_size_is_untouched(tmp_path):
    path = save(tmp_path / "p.png", PIXELS[0].transpose(1, 2, 0))
    batch = read_batch([path], "x", SHAPE, "mean=0.5,std=0.5")
    assert batch.dtype == np.uint8
    assert (batch[0] == PIXELS[0]).all()


def test_pictures_are_resized_then_cropped(tmp_path):
    picture = Image.fromarray(RNG.integers(0, 256, (40, 60, 3)).astype(np.uint8))
    picture.save(tmp_path / "p.png")
    batch = read_batch([tmp_path / "p.png"], "x", SHAPE, "crop_pct=0.5,mean=0,std=1")
    # shorter side to 16, longer to 24, then the middle 8 x 8
    expected = picture.resize((24, 16), Image.Resampling.BICUBIC).crop((8, 4, 16, 12))
    assert (batch[0] == np.asarray(expected).transpose(2, 0, 1)).all()


def test_grey_models_take_grey_pictures(tmp_path):
    path = save(tmp_path / "p.png", PIXELS[0, 0])
    assert (read_batch([path], "x", (1, 8, 8), "mean=0")[0] == PIXELS[0, :1]).all()


def test_directories_are_sorted(tmp_path):
    for i in (1, 0):
        save(tmp_path / f"{i}.png", PIXELS[i].transpose(1, 2, 0))
    (tmp_path / "readme.txt").write_text("no picture")
    assert (read_batch([tmp_path], "x", SHAPE, "mean=0") == PIXELS).all()


def test_pixels_among_floats_become_floats(tmp_path):
    a, b = save(tmp_path / "a.npy", FLOATS), save(tmp_path / "b.npy", PIXELS.transpose(0, 2, 3, 1))
    batch = read_batch([a, b], "x", SHAPE, "mean=0.5,std=0.25")
    assert batch.dtype == np.float32
    assert np.allclose(batch[2:], (PIXELS / 255 - 0.5) / 0.25, atol=1e-6)
    assert np.allclose(read_floats([b], "x", SHAPE, "mean=0.5,std=0.25"), batch[2:])


def test_user_errors(tmp_path):
    def fails(message, *names, spec=None, shape=SHAPE):
        with pytest.raises(InputError, match=message):
            read_floats([tmp_path / n for n in names], "x", shape, spec)

    save(tmp_path / "p.png", PIXELS[0, 0])
    save(tmp_path / "wrong.npy", np.zeros((1, 4, 8, 8), np.float32))
    save(tmp_path / "ints.npy", np.zeros((1, 3, 8, 8), np.int64))
    save(tmp_path / "u8.npy", PIXELS)
    save(tmp_path / "a.npy", FLOATS)
    save(tmp_path / "many.npz", None, a=FLOATS, b=FLOATS)
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "broken.npz").write_bytes(b"PK\3\4broken")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:90])
    (tmp_path / "empty").mkdir()
    fails("input file '.*gone.png' does not exist", "gone.png")
    fails("holds no picture", "empty")
    fails("picture .* needs to know how it becomes", "p.png")
    fails("is no picture that Pillow can read", "broken.png", spec="mean=0")
    fails(r"shape \[1, 4, 8, 8\]; the model takes \[N, 3, 8, 8\]", "wrong.npy")
    fails("must be float or uint8, not int64", "ints.npy")
    fails("is uint8, but nothing says", "u8.npy")
    fails("is uint8, but nothing says", "u8.npy", "a.npy")
    fails("has no array 'x'; its arrays are: a, b", "many.npz")
    for name in ("broken.npz", "cut.npy"):
        fails("is no NumPy file, or it is damaged", name)
    fails("holds objects or records, not numbers", "object.npy")
    fails("5 input channels cannot take pictures", "p.png", spec="mean=0", shape=(5, 8, 8))
    fails("2 values for 3 channels", "p.png", spec="mean=0:0")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_calibration_is_finite(tmp_path, value):
    array = FLOATS.astype(np.float64)
    array[1, 2, 3, 4] = value
    save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=r"not finite numbers of float32, .* \(1 of 384\)"):
        read_floats([tmp_path / "a.npy"], "x", SHAPE, None)
