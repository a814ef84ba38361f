"""Canonical operations on maps: token tensors whose rows are the pixels of a map, row by row.

A tensor may hold several maps of one size, one behind the other; each is worked on by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from .op import INT, INTS, STRING, Attributes, Dim, Op, Shape, require, tokens


def _window(
    size: tuple[int, int], kernel: tuple[int, int], attributes: Attributes, dilations: Sequence[int]
) -> tuple[int, int]:
    """Size of the map that a window sliding over one of ``size`` makes."""
    strides, pads = attributes["strides"], attributes["pads"]
    require(len(strides) == 2 and min(strides) > 0, f"strides {strides} are not two positive steps")
    require(len(pads) == 4 and min(pads) >= 0, f"pads {pads} are not top, left, bottom, right")
    require(len(dilations) == 2 and min(dilations) > 0, f"dilations {dilations} are no two steps")
    made = []
    for axis in range(2):
        padded = size[axis] + pads[axis] + pads[axis + 2]
        free = padded - (dilations[axis] * (kernel[axis] - 1) + 1)
        require(free >= 0, f"a kernel of {kernel} is larger than the padded map of {size}")
        made.append(free // strides[axis] + 1)
    return made[0], made[1]


def _kernel(weight: Shape, bias: Shape) -> tuple[int, int, int, int]:
    require(len(weight) == 4, f"the weight has shape {weight}, but [out, in, kh, kw] is needed")
    require(bias == weight[:1], f"the bias has shape {bias}, the weight {weight[0]} rows")
    out, inner, height, width = (int(size) for size in weight)
    return out, inner, height, width


def _map(x: Shape, attributes: Attributes) -> tuple[Dim, int, tuple[int, int], int]:
    """Images, maps of an image, size of a map, channels."""
    batch, count, dim = tokens(x)
    size = tuple(attributes["map"])
    require(len(size) == 2 and min(size) > 0, f"map {size} is not two positive sizes")
    maps, rest = divmod(count, size[0] * size[1])
    require(not rest, f"maps of {size} do not make up {count} pixels")
    return batch, maps, (int(size[0]), int(size[1])), int(dim)


def _image_conv(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    image, weight, bias = shapes
    require(len(image) == 4, f"the image has shape {image}, but [N, C, H, W] is needed")
    out, inner, *kernel = _kernel(weight, bias)
    require(inner == image[1], f"the weight takes {inner} channels, the image has {image[1]}")
    size = (int(image[2]), int(image[3]))
    height, width = _window(size, (kernel[0], kernel[1]), attributes, (1, 1))
    return image[0], height * width, out


def _conv(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    x, weight, bias = shapes
    batch, maps, size, dim = _map(x, attributes)
    out, inner, *kernel = _kernel(weight, bias)
    groups = attributes["groups"]
    require(groups > 0 and out % groups == 0, f"{groups} groups do not divide {out} channels")
    require(inner * groups == dim, f"{groups} groups of {inner} channels are not {dim}")
    height, width = _window(size, (kernel[0], kernel[1]), attributes, attributes["dilations"])
    return batch, maps * height * width, out


def _pool(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    batch, maps, size, dim = _map(shapes[0], attributes)
    kernel = tuple(attributes["kernel"])
    require(attributes["kind"] in _POOLS, f"kind {attributes['kind']!r} is not max or average")
    require(len(kernel) == 2 and min(kernel) > 0, f"kernel {kernel} is not two positive sizes")
    height, width = _window(size, (kernel[0], kernel[1]), attributes, (1, 1))
    return batch, maps * height * width, dim


# All maps of all images are a batch of [C, H, W].
_AS_MAP = """
    size = Constant <value_ints: ints = @map> ()
    rest = Constant <value_ints = [-1]> ()
    images = Shape <start = 0, end = 1> (x)
    channels = Shape <start = 2> (x)
    form = Concat <axis = 0> (rest, size, channels)
    pixels_last = Reshape(x, form)
    grid = Transpose <perm = [0, 3, 1, 2]> (pixels_last)
"""
_AS_TOKENS = """
    lines = Transpose <perm = [0, 2, 3, 1]> (made)
    out = Shape <start = 1, end = 2> (made)
    back = Concat <axis = 0> (images, rest, out)
    y = Reshape(lines, back)
"""
_CONV = _AS_MAP + (
    "made = Conv <strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations, "
    "group: int = @groups> (grid, weight, bias)" + _AS_TOKENS
)
_IMAGE_CONV = (
    "rest = Constant <value_ints = [-1]> ()\n"
    "images = Shape <start = 0, end = 1> (image)\n"
    "pixels = CastLike(image, weight)\n"
    "made = Conv <strides: ints = @strides, pads: ints = @pads> (pixels, weight, bias)" + _AS_TOKENS
)
_SLIDE = "kernel_shape: ints = @kernel, strides: ints = @strides, pads: ints = @pads"
_POOLS = {
    "max": f"{_AS_MAP} made = MaxPool <{_SLIDE}> (grid) {_AS_TOKENS}",
    "average": (
        f"{_AS_MAP} made = AveragePool <{_SLIDE}, count_include_pad: int = @count_include_pad> "
        f"(grid) {_AS_TOKENS}"
    ),
}

MAP_OPS = (
    Op(
        name="ImageConv",
        doc="a convolution of the image with any kernel, stride and zero padding; pixels as rows",
        inputs=("image", "weight", "bias"),
        parameters=("weight", "bias"),
        attributes={"strides": INTS, "pads": INTS},
        shape=_image_conv,
        body=_IMAGE_CONV,
    ),
    Op(
        name="Conv",
        doc="a convolution of a map of the given size; pads are top, left, bottom, right",
        inputs=("x", "weight", "bias"),
        parameters=("weight", "bias"),
        attributes={
            "map": INTS, "strides": INTS, "pads": INTS, "dilations": INTS, "groups": INT,
        },
        shape=_conv,
        body=_CONV,
    ),
    Op(
        name="Pool",
        doc=(
            "the largest or the average of each window of a map; pixels outside count (as zeros) "
            "in an average when count_include_pad is 1, never otherwise"
        ),
        inputs=("x",),
        attributes={
            "kind": STRING, "map": INTS, "kernel": INTS, "strides": INTS, "pads": INTS,
            "count_include_pad": INT,
        },
        shape=_pool,
        body=_POOLS,
        overload="kind",
    ),
)  # fmt: skip
