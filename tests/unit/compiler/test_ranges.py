"""What a field of an instruction does not take: moves in pieces, or a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir
import pytest

from tests.unit.ops.checks import check
from tests.unit.quant.graphs import DIM, Net
from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Opcode
from vitrify.arch.presets import preset
from vitrify.codegen import ranges
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.compiler.validate import check_program
from vitrify.ir import BATCH, Builder, shape_of, tensor
from vitrify.ops.linear import bands
from vitrify.program import Program

#: `nano` with room for thousands of tokens.
LARGE = replace(
    preset("nano"), name="large", max_rows=4096, bank_words=1 << 14, stat_rows=1 << 14,
    index_entries=1 << 14,
)


def mixed(net: Net, rows: int) -> ir.Value:
    """A matrix over tokens for each of four heads."""
    x = net.tokens(0)
    matrix = net.normal(4, rows, int(shape_of(x)[1]))
    return net.builder.emit("Mix", x, matrix, net.normal(rows), name="mix", heads=4, groups=1)


def biased(net: Net, rows: int) -> ir.Value:
    """More queries than keys, and a bias of the scores of each head."""
    x = net.tokens(0)
    matrix = net.normal(1, rows, int(shape_of(x)[1]))
    q = net.builder.emit(
        "Mix", x, matrix, net.normal(rows), name="mix", heads=1, groups=1
    )
    q, k, v = (net.linear(a, DIM, name) for a, name in ((q, "q"), (x, "k"), (x, "v")))
    y = net.builder.emit(
        "CrossAttention", q, k, v, net.normal(1, 4, rows, 4), name="attention", heads=4, groups=1,
        scale=0.5, kind="softmax",
    )
    return net.linear(y, 5, "last")


def scanned(net: Net, rows: int) -> ir.Value:
    """Pixels as tokens, with positions, and all of them as the output."""
    net.image = tensor("image", (BATCH, 1, rows, 1))
    net.builder = Builder([net.image], name="net")
    weight, bias = net.normal(8, 1), net.normal(8)
    x = net.builder.emit("PatchEmbed", net.image, weight, bias, name="patch", patch=[1, 1])
    x = net.builder.emit("Tokens", x, net.normal(0, 8), net.normal(rows, 8), name="tokens")
    return net.linear(x, 20, "last")


def compiled(net: Net, result: ir.Value) -> Program:
    """For a large core, and golden is equal to the evaluator."""
    images = net.images(2)
    graph = quantise(net.model(result), images, arch=LARGE)
    program = compile_graph(graph, LARGE)
    check_program(program, graph, images[:1])
    return program


def moves(program: Program, opcode: Opcode) -> list[int]:
    return [op.rows for op in program.instructions() if op.opcode is opcode]


@pytest.mark.parametrize("make", [mixed, biased, scanned])
@pytest.mark.parametrize("batch", [1, 2])
def test_moves_in_pieces(
    make: Callable[[Net, int], ir.Value], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "MOST_ROWS", 3)
    net = Net(1)
    program = check(net, make(net, 8), batch=batch)
    assert max(moves(program, Opcode.LOAD)) == max(moves(program, Opcode.STORE)) == 3


@pytest.mark.parametrize("make", [mixed, biased, scanned])
def test_more_rows_than_an_instruction_moves(make: Callable[[Net, int], ir.Value]) -> None:
    net = Net(2)
    program = compiled(net, make(net, 4100))
    assert max(moves(program, Opcode.LOAD)) == max(moves(program, Opcode.STORE)) == 4096


@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_layers_of_more_c_tiles_than_an_instruction_has(
    tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "MOST_TILES", tiles)
    net = Net(3)
    program = check(net, net.linear(net.tokens(0), 45, "wide"))
    # A result begins with a word, which has two c tiles.
    assert max(each.tensor.channels for each in program.layers) == 4 * max(2, tiles // 2 * 2)


def test_an_attention_over_more_tokens_than_accumulators_hold() -> None:
    net = Net(4)
    x = scanned(net, 4104)
    y = net.builder.emit("Attention", x, x, x, name="attention", heads=1, scale=0.5)
    with pytest.raises(CapacityError, match=(
        r"'attention.values\[0\]' sums over 4104 tokens; the accumulators hold 4096: use smaller "
        r"pictures or larger patches"
    )):
        compiled(net, y)


#: Fields, values beyond them, and what the sentence says.
TOO_MUCH = {
    "k_tiles": (Opcode.MATMUL, 5000, "at most 1024: use fewer channels, or a core of larger `dep"),
    "dst_stride": (Opcode.MATMUL, 4096, "at most 4095: use fewer channels"),
    "rows": (Opcode.ROUTE, 4097, "at most 4096: use smaller pictures"),
    "stream_words": (Opcode.MATMUL, 1 << 24, "at most 16777215: use fewer or smaller layers"),
    "count": (Opcode.LOAD_INDEX, 1 << 14, "at most 16383: use smaller pictures"),
    "out_width": (Opcode.PATTERN, 4097, "at most 4096"),
    "origin_y": (Opcode.PATTERN, 4500, "at most 4095: use smaller pictures"),
}


@pytest.mark.parametrize("field", TOO_MUCH)
def test_what_cannot_be_in_pieces(field: str) -> None:
    opcode, value, sentence = TOO_MUCH[field]
    what = rf"layer 'x' needs {value} as `{field}` of {opcode.name} \(.*\), and arch 'large' "
    with pytest.raises(CapacityError, match=f"{what}.*{sentence}"):
        ranges.check(LARGE, "layer 'x'", opcode, {field: value})
