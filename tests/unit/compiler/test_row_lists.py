"""Row lists and queues in the row-index memory: who lies where, and what has to be over before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vitrify.arch import isa
from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Opcode, Output
from vitrify.arch.presets import preset
from vitrify.codegen.builder import Builder
from vitrify.codegen.lists import NEVER, RowList, RowLists
from vitrify.codegen.pack import weight_words
from vitrify.codegen.placement import Placed, Spread
from vitrify.codegen.product import At, MatrixProduct, Queue
from vitrify.compiler.hazards import hazards

NANO = preset("nano")
ARCH = replace(NANO, index_entries=64)
ROWS = 16


def entries(size: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + size)


def lists(*sizes: int) -> RowLists:
    """Lists one behind another; number ``i`` is read by MATMUL ``i``."""
    made = RowLists(ARCH)
    for user, size in enumerate(sizes):
        made.place(entries(size, user), user, user)
    return made


def there(made: RowLists, size: int, first: int) -> RowList:
    found = made.find(entries(size, first))
    assert found is not None
    return found


def test_lists_lie_from_the_end_down() -> None:
    made = lists(20, 30)
    assert (there(made, 20, 0).base, there(made, 30, 1).base) == (44, 14)
    assert made.find(entries(20, 1)) is None


def test_a_list_takes_the_place_of_those_that_are_read_last() -> None:
    made = lists(20, 20, 20)
    there(made, 20, 0).user = 7
    found, before = made.place(entries(30, 9), 3, 8)
    assert (found.base, before) == (34, 7)
    assert made.find(entries(20, 0)) is made.find(entries(20, 1)) is None
    assert there(made, 20, 2).base == 4


def test_nothing_lies_there() -> None:
    assert lists(20).place(entries(44, 1), 1, 1)[1] == NEVER


def test_queues_wait_for_lists_in_their_place() -> None:
    made = lists(20, 30)
    assert made.route(14, NEVER) == NEVER
    assert made.route(15, NEVER) == 1
    assert made.find(entries(30, 1)) is None
    assert made.find(entries(20, 0)) is not None
    assert made.route(15, 5) == 5


def test_a_list_lies_behind_the_queues() -> None:
    made = lists(20, 20)
    made.route(20, NEVER)
    assert made.place(entries(8, 7), 2, 2)[0].base == 56


def test_a_list_waits_for_whom_the_queues_have_displaced() -> None:
    """The ROUTE waits for it, but a LOAD_INDEX behind the ROUTE does not wait for that."""
    made = lists(20, 30)
    made.route(20, NEVER)
    assert made.place(entries(24, 7), 2, 2)[1] == 1


def test_a_list_waits_for_longer_queues_of_before() -> None:
    made = lists()
    made.route(50, NEVER)
    made.route(10, 3)
    assert made.place(entries(14, 7), 0, 4)[1] == NEVER
    assert made.place(entries(20, 8), 1, 5)[1] == 3


def test_a_list_does_not_fit() -> None:
    made = lists()
    made.route(40, NEVER)
    with pytest.raises(CapacityError, match=r"list of 25 rows .* 64 entries, of which queues of "
                       r"experts take 40"):
        made.place(entries(25), 0, 0)


class Writer:
    """MATMULs and ROUTEs that use the row-index memory, and nothing else in common."""

    def __init__(self) -> None:
        self.builder = Builder(ARCH)
        self.image, self.x, self.logits, self.hidden = (
            Placed(name, rows, Spread(ARCH.depth, 1, ARCH.depth), address, wide, 1)
            for name, rows, address, wide in (
                ("image", ROWS, 0, False), ("x", ROWS, 16, False), ("logits", ROWS, 128, True),
                ("hidden", 64, 32, False),
            )
        )
        self.builder.load(self.image, isa.Region.INPUT, 0)
        self.product(self.image, self.x, ROWS)
        self.product(self.x, self.logits, ROWS, output=Output.INT16)

    def product(
        self, x: Placed, out: Placed, rows: int, *, row: int = 0, into: int = 0,
        output: Output = Output.INT8, picks: np.ndarray | None = None, queue: Queue | None = None,
    ) -> None:
        """From row ``row`` of ``x`` on, and to row ``into`` of ``out`` on."""
        depth = ARCH.depth
        weight = weight_words(ARCH, np.ones((depth, depth), np.int8), np.zeros(depth, np.int32),
                              np.ones(depth, np.uint16))
        self.builder.matmul(MatrixProduct(
            name="product", op="linear", macs=0, rows=rows, x=At(x, row), depth=depth,
            out=At(out, into), columns=depth, weights=[weight], picks=picks, queue=queue,
            fields={"output": output},
        ))

    def read(self, picks: np.ndarray) -> None:
        self.product(self.x, self.hidden, len(picks), picks=picks)

    def route(self, rows: int, choices: int) -> None:
        self.builder.route(self.logits, experts=2, choices=choices, normalise=False, rows=rows)

    def experts(self, rows: int) -> None:
        for expert in range(2):
            self.product(self.x, self.hidden, rows, queue=Queue(expert, 0, 0, gathers=True))

    def program(self) -> list[isa.Instruction]:
        """Its instructions, in which the checker finds nothing."""
        self.builder.end()
        image, count = self.builder.build()
        size, code, pattern = isa.INSTRUCTION_BYTES, [], None
        for i in range(count):
            op, pattern = isa.attach(
                isa.unpack(image[i * size : (i + 1) * size].tobytes()), pattern
            )
            code.append(op)
        assert [str(hazard) for hazard in hazards(ARCH, code, image)] == []
        return code


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_read_and_routed(seed: int) -> None:
    rng, writer = np.random.default_rng(seed), Writer()
    for _ in range(12):
        rows, choices = int(rng.integers(1, ROWS + 1)), int(rng.integers(1, 3))
        routed = rng.random() < 0.5
        if routed:
            writer.route(rows, choices)
        for _ in range(rng.integers(3)):
            writer.read(rng.integers(0, ROWS, rng.integers(1, 33)))
        if routed:
            writer.experts(rows)
    assert any(op.opcode is Opcode.LOAD_INDEX for op in writer.program())


def test_a_shared_expert_reads_a_list_where_longer_queues_were() -> None:
    writer = Writer()
    writer.route(ROWS, 2)
    writer.experts(ROWS)
    writer.route(4, 1)
    for first in range(2):
        writer.read(entries(ROWS, 0)[first:].repeat(2))
    writer.experts(4)
    assert any(op.opcode is Opcode.LOAD_INDEX for op in writer.program())


def test_a_list_waits_for_the_last_who_writes_one_of_its_rows() -> None:
    """Not for who writes the row behind all others, if that was before."""
    writer, half = Writer(), ROWS // 2
    for into in (half, 0):
        writer.product(writer.image, writer.x, half, into=into)
    writer.read(np.array([0, half + 1]))
    reader = next(op for op in writer.program() if op.values.get("src_list"))
    assert (reader.dep_distance, reader.dep_end) == (1, 1)


def test_rows_are_counted_with_the_words_of_just_their_load() -> None:
    """Half of what a LOAD brings begins with another word than the LOAD does."""
    writer, half = Writer(), ROWS // 2
    for row in (half, 0):
        writer.product(writer.image, writer.hidden, half, row=row)
    readers = [op for op in writer.program() if op.values.get("load_distance")]
    assert [op.load_stream for op in readers] == [1, 0, 0]
