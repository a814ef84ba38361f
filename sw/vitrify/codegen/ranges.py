"""What fits into one instruction: moves in pieces, and sentences about what cannot be in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vitrify.arch import isa, limits
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError
from vitrify.arch.formats import MAX_DEPTH
from vitrify.arch.isa import Opcode

from .product import MatrixProduct

#: Rows and words of a row that a LOAD or STORE can move.
MOST_ROWS, MOST_WORDS = (isa.FORMATS[Opcode.LOAD].field(name).max for name in ("rows", "words"))

_CHANNELS = "use fewer channels, or a core of larger `depth`"
_COLUMNS = "use fewer channels, or a core of larger `width`"
_TOKENS = "use smaller pictures, larger patches or a smaller --batch"
_WEIGHTS = "use fewer or smaller layers"
#: Ways out of what a model can drive too far, by field.
_WAYS_OUT = {
    **dict.fromkeys(("src_stride", "st_stride", "dst_stride", "add_stride", "stride"), _CHANNELS),
    **dict.fromkeys(("k_tiles", "k_step", "tap_k", "gain_words", "words"), _CHANNELS),
    **dict.fromkeys(("c_tiles", "c_group"), _COLUMNS),
    **dict.fromkeys(
        ("rows", "expert_first", "count", "out_width", "origin_y", "origin_x"), _TOKENS
    ),
    **dict.fromkeys(("stream_words", "stream_offset", "offset", "task_stride"), _WEIGHTS),
}


def pieces(
    rows: int, words: int, every: range | None = None
) -> Iterator[tuple[int, int, int, int, int]]:
    """``(first row, rows, first word, words, words before it in DRAM)`` of each LOAD or STORE.

    DRAM has all rows of word 0 first: what has too many rows goes word by word.  ``every``: all
    that it has, counted from the first of these.
    """
    every = range(rows) if every is None else every
    if rows <= MOST_ROWS and (len(every) == rows or words == 1):
        yield 0, rows, 0, words, -every.start
        return
    for word in range(words):
        for row in range(0, rows, MOST_ROWS):
            before = word * len(every) + row - every.start
            yield row, min(MOST_ROWS, rows - row), word, 1, before


def check(arch: ArchConfig, what: str, opcode: Opcode, fields: Mapping[str, int]) -> None:
    """Refuse a value that a field of the instruction does not take.

    Raises
    ------
    CapacityError
        Naming ``what`` the instruction is for, the field and a way out.
    """
    for name, (low, high) in limits.limits(arch, opcode).items():
        value = fields.get(name, low)
        if not low <= value <= high and name in _WAYS_OUT:
            raise CapacityError(
                f"{what} needs {value} as `{name}` of {opcode.name} "
                f"({isa.FORMATS[opcode].field(name).doc}), and arch {arch.name!r} takes at most "
                f"{high}: {_WAYS_OUT[name]}"
            )


def check_depth(product: MatrixProduct) -> None:
    """Refuse a dot product that is longer than the accumulators hold.

    Raises
    ------
    CapacityError
        Naming the layer and what it sums over.
    """
    if product.depth <= MAX_DEPTH:
        return
    if product.sums_tokens:
        what, way = "tokens", "use smaller pictures or larger patches"
    else:
        what, way = "products", "split the layer"
    raise CapacityError(
        f"layer {product.name!r} sums over {product.depth} {what}; the accumulators hold "
        f"{MAX_DEPTH}: {way}"
    )
