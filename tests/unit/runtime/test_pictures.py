"""Pictures of every kind: the pixels that a viewer shows, or one sentence."""

from __future__ import annotations

import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.support.shared import case
from vitrify.arch.errors import InputError
from vitrify.runtime.images import read_batch

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 8)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8)
RED = np.zeros((8, 8, 3), np.uint8) + np.array([255, 0, 0], np.uint8)


def pixels(path, channels=3, size=8):
    batch = read_batch([path], "x", (channels, size, size), "mean=0")
    assert batch.dtype == np.uint8
    return batch[0]


def fails(path, message, size=8):
    start = time.process_time()
    with pytest.raises(InputError, match=message) as error:
        pixels(path, size=size)
    assert repr(str(path)) in str(error.value)
    assert time.process_time() - start < 5


def save(path, image, **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits(tmp_path, suffix):
    path = save(tmp_path / f"p.{suffix}", GREY.astype(np.uint16) * 257)
    assert (pixels(path, 1)[0] == GREY).all()
    assert (pixels(path) == GREY).all()
    half = save(tmp_path / f"h.{suffix}", np.full((8, 8), 32639, np.uint16))
    assert (pixels(half, 1) == 127).all()


def test_floats(tmp_path):
    path = save(tmp_path / "p.tif", GREY.astype(np.float32) / 255)
    assert (pixels(path, 1)[0] == GREY).all()
    for values, message in (
        (GREY.astype(np.float32), "pixel values .* floats are taken for 0 … 1"),
        (np.full((8, 8), np.nan, np.float32), "nan to nan"),
        (np.full((8, 8), -1, np.float32), "values -1 to -1"),
    ):
        fails(save(tmp_path / "bad.tif", values), message)
    fails(save(tmp_path / "i.tif", np.full((8, 8), 70000, np.int32)), "taken for 0 … 65535")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation):
    turn = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, 3),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: np.rot90,
    }[orientation]
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = orientation
    path = save(tmp_path / "p.png", image, exif=exif)
    assert (pixels(path).transpose(1, 2, 0) == turn(COLOUR)).all()


def test_damaged_exif_says_nothing(tmp_path):
    path = save(tmp_path / "p.jpg", RED, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert abs(pixels(path).astype(int) - RED.transpose(2, 0, 1)).max() < 4


def test_modes(tmp_path):
    red = Image.fromarray(RED)
    alpha = red.copy()
    alpha.putalpha(0)
    white = Image.new("1", (8, 8), 1)
    for name, image, expected in (
        ("palette.png", red.quantize(4), [255, 0, 0]),
        ("palette.gif", red.quantize(4), [255, 0, 0]),
        ("alpha.png", alpha, [255, 0, 0]),
        ("cmyk.tif", red.convert("CMYK"), [255, 0, 0]),
        ("cmyk.jpg", red.convert("CMYK"), [254, 0, 0]),
        ("one.png", white, [255, 255, 255]),
        ("greyalpha.png", white.convert("LA"), [255, 255, 255]),
        ("ycc.jpg", red.convert("YCbCr"), [254, 0, 0]),
    ):
        found = pixels(save(tmp_path / name, image))
        assert np.abs(found[:, 4, 4].astype(int) - expected).max() <= 2, name
    assert (pixels(save(tmp_path / "a.png", alpha), 4)[3] == 0).all()


def test_animations_show_their_first_picture(tmp_path):
    frames = [Image.fromarray(RED), Image.fromarray(255 - RED)]
    for name in ("a.gif", "a.webp", "a.tif"):
        path = save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
        assert np.abs(pixels(path)[:, 4, 4].astype(int) - [255, 0, 0]).max() <= 4, name


def png(width, height, rows):
    """A PNG of 8-bit grey, with that much of it in its stream."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data)
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("width", "height"), [
    (50_000, 50_000), (12_000, 12_000), (1 << 20, 1 << 20), (0x7FFFFFFF, 0x7FFFFFFF),
])
def test_bombs(tmp_path, width, height):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(width, height, 1 << 20))
    fails(path, "at most 128 Mi pixels|decompression bomb|no picture")


def test_thin_pictures(tmp_path):
    for size in ((1, 60_000), (60_000, 1), (33, 1)):
        path = save(tmp_path / "p.png", Image.new("L", size))
        fails(path, f"{size[0]} x {size[1]} pixels is too thin", size=224)
    pixels(save(tmp_path / "p.png", Image.new("L", (32, 1))), size=224)


def test_damaged_pictures(tmp_path):
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm"):
        whole = save(tmp_path / f"p.{suffix}", COLOUR).read_bytes()
        path = tmp_path / f"cut.{suffix}"
        for length in (0, 10, len(whole) // 2, len(whole) - 40):
            path.write_bytes(whole[:length])
            fails(path, "is no picture that Pillow can read")
    (tmp_path / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    fails(tmp_path / "eps.png", "no picture that Pillow can read")


def test_a_specification_cannot_ask_for_gigabytes(tmp_path):
    path = save(tmp_path / "p.png", COLOUR)
    for text in ("crop_pct=0.0001", "std=1e-300", "mean=1e300", "mean=" + "1" * 9000):
        with pytest.raises(InputError, match="must be"):
            read_batch([path], "x", (3, 8, 8), text)


def test_pictures_that_users_had():
    assert pixels(case("gray16.png"), 1, 16).mean() == pytest.approx(127.5, abs=0.1)
    upright = pixels(case("exif6.jpg"), 3, 20)
    with Image.open(case("exif6.jpg")) as image:
        turned = np.rot90(np.asarray(image.convert("RGB")), 3)
    assert (upright.transpose(1, 2, 0) == turned).all()
    fails(case("thin.png"), "too thin")
