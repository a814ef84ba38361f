"""Cocotb bench of the row fetch, with models of everything around it.

Every row that comes out is compared with loops written down from the documentation, and the
conditions of the documentation are checked in the cycle in which its read is granted.
"""

import random
from itertools import product

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from vitrify.arch.memmap import tiles_per_pass
from vitrify.arch.modes import WIDE_TRANSFORMS, RowScale, Transform
from vitrify.cosim import bench
from vitrify.rtl import interfaces
from vitrify.rtl.interfaces import MIN_PASS, READ_LATENCY

_SEQ = 1 << interfaces.SEQ_BITS
#: Words of every load in the mover's model.
_LOAD_WORDS = 50
#: Loads from a MATMUL to the next.
_LOADS = 2
#: Entries of a list that a load fills; so many of them take turns.
_LIST, _LISTS = 40, 3


def _data(arch, addr, wide):
    """Contents of the token memory: (lo, hi)."""
    source = random.Random(addr * 2 + wide)
    return source.getrandbits(8 * arch.depth), source.getrandbits(8 * arch.depth)


def _stat(addr):
    source = random.Random(addr)
    return {"mean": source.randrange(-1000, 1000), "shift": source.randrange(32),
            "mantissa": source.randrange(512)}


def _index(arch, addr):
    # Statistics lie at such an index behind a base and the steps of repetitions.
    return random.Random(addr).randrange(arch.stat_rows // 4)


def _gain(arch, slot, word):
    return random.Random(1000 * slot + word).getrandbits(8 * arch.depth)


def _map(arch):
    """Fields of a random map with its taps."""
    taps_y, taps_x, tap_k = random.randrange(1, 4), random.randrange(1, 4), random.randrange(1, 3)
    stride, height, width = random.randrange(1, 4), random.randrange(1, 7), random.randrange(1, 7)
    origin_y, origin_x = random.randrange(-3, 4), random.randrange(-3, 3)
    return {
        "tapped": 1, "taps_y": taps_y, "taps_x": taps_x, "tap_k": tap_k, "tap_stride": stride,
        "map_height": height, "map_width": width, "out_width": random.randrange(1, 7),
        "origin_y": origin_y, "origin_x": origin_x, "k_tiles": taps_y * taps_x * tap_k,
        "origin": (origin_y * width + origin_x) % (1 << 16), "line": stride * width,
    }


def _command(arch, seq, *, easy):
    """A random MATMUL's fetch fields.  ``easy``: nothing to wait for, passes of full length."""
    # Behind two c tiles in a pass of one k tile, the second one's rows are still to be drained.
    one = random.random() < 0.2 and not (easy and arch.nibble_tiles > 1)
    command = {
        "seq": seq % _SEQ,
        "src_addr": random.randrange(1 << 19), "src_stride": random.randrange(40),
        "rows": random.randrange(MIN_PASS, 20) if easy or random.random() < 0.6
        else random.randrange(1, MIN_PASS),
        "k_tiles": 1 if one else random.randrange(1 if arch.nibble_tiles == 1 else 2, 5),
        "k_last": random.randrange(1, arch.depth + 1),
        "c_tiles": random.randrange(1, 4),
        "transform": random.randrange(4 + arch.products),
        "src_list": random.randrange(2), "src_list_base": random.randrange(arch.index_entries // 2),
        "stat_src": random.randrange(arch.stat_rows // 2),
        "norm_shift": random.randrange(19), "norm_mantissa": random.randrange(512),
        "gain_slot": random.randrange(2), "load_seq": _LOADS * seq % _SEQ,
    }
    if arch.row_sums:
        command["row_scale"] = random.randrange(3)
    if arch.sees_nibbles:
        command["nibbles"] = random.randrange(2)
    if arch.patterns:
        if random.random() < 0.6:
            command |= _map(arch)
            if easy and arch.nibble_tiles > 1 and command["k_tiles"] == 1:
                command |= {"tap_k": 2, "k_tiles": 2}
        if random.random() < 0.4 and not command.get("nibbles"):
            command |= {"k_step": random.randrange(4), "c_group": random.randrange(1, 4)}
        if random.random() < 0.3:
            command |= {"repeats": random.randrange(1, 3), "src_step": random.randrange(900),
                        "stat_src_step": random.randrange(9)}
    if not easy:
        command |= {
            "dep_distance": random.choice([0, 1, 1, 2]) if seq >= 2 else 0,
            "dep_k": random.randrange(5), "dep_end": int(random.random() < 0.3),
        }
        if random.random() < 0.4:
            command |= {"load_distance": random.randrange(1, 4),
                        "load_stream": int(command["rows"] * command["k_tiles"] <= _LOAD_WORDS
                                           and not command.get("tapped")
                                           and not command.get("repeats"))}
    return command


def _source(command, c, k, r):
    """Word of the row that is streamed, row of the tensor (None: outside), whether it is short."""
    group = c // command.get("c_group", 1) * command.get("k_step", 0)
    if not command.get("tapped"):
        return group + k, r, k == command["k_tiles"] - 1
    tap, word = divmod(k, command["tap_k"])
    tap_y, tap_x = divmod(tap, command["taps_x"])
    out_y, out_x = divmod(r, command["out_width"])
    y = out_y * command["tap_stride"] + tap_y + command["origin_y"]
    x = out_x * command["tap_stride"] + tap_x + command["origin_x"]
    inside = 0 <= y < command["map_height"] and 0 <= x < command["map_width"]
    pixel = y * command["map_width"] + x if inside else None
    return group + word, pixel, word == command["tap_k"] - 1


def _rows(arch, commands):
    """Every row in order: what it waits for (``need``) and what comes out (``out``)."""
    tile = sums = 0
    for command in commands:
        get = lambda name, command=command: command.get(name, 0)  # noqa: E731
        mode = get("transform")
        wide = mode in WIDE_TRANSFORMS
        gathers = mode == Transform.EXP2
        if arch.row_sums:
            gathers = get("row_scale") == RowScale.OPERAND
        per_pass = tiles_per_pass(arch, get("nibbles"))
        for again, c in product(range(get("repeats") + 1), range(0, get("c_tiles"), per_pass)):
            count = min(per_pass, get("c_tiles") - c)
            more = {"nibbles": get("nibbles")} if arch.sees_nibbles else {}
            more |= {"paired": count - 1} if arch.nibble_tiles > 1 else {}
            for k in range(get("k_tiles")):
                last = k == get("k_tiles") - 1
                for r in range(get("rows")):
                    word, pixel, short = _source(command, c, k, r)
                    index = pixel or 0
                    if get("src_list") and pixel is not None:
                        index = _index(arch, get("src_list_base") + pixel)
                    addr = (get("src_addr") + again * get("src_step") + index * get("src_stride")
                            + word) % (1 << 20)
                    lo, hi = _data(arch, addr, wide)
                    stat = _stat(get("stat_src") + again * get("stat_src_step") + index)
                    if mode in (Transform.SCALE, Transform.PRODUCT):
                        stat = {"mean": 0, "shift": get("norm_shift"),
                                "mantissa": get("norm_mantissa")}
                    out = {
                        "lo": lo, "hi": hi, "mode": mode, "stat": stat,
                        "gain": _gain(arch, get("gain_slot"), word),
                        "lanes": 0 if pixel is None else get("k_last") if short else arch.depth,
                        "tag": {
                            "row": r, "first": int(k == 0), "last": int(last),
                            "final": int(r == get("rows") - 1), "swap": int(r == 0),
                            "sum": int(gathers and c == 0), "sum_bank": (sums + again) & 1,
                            **more,
                        },
                    }
                    yield {"addr": addr, "wide": int(wide), "command": command, "tile": tile,
                           "k": k, "r": r, "word": word, "pixel": pixel or 0, "last": last,
                           "out": out, "tiles": count,
                           "final": last and r == get("rows") - 1 and again == get("repeats")
                           and c + count == get("c_tiles")}
            tile += count
        sums += gathers * (get("repeats") + 1)


class Around:
    """The other engines: their progress follows the rows issued, at random speed."""

    def __init__(self, dut, arch, commands, *, easy):
        self.dut, self.arch, self.easy = dut, arch, easy
        self.commands = commands
        self.owner = [c for c in commands for _ in range(c["c_tiles"] * (c.get("repeats", 0) + 1))]
        self.drained = []        # rows of the last pass, as (tile, row), that may be read
        self.tile, self.row = 0, 0   # the epilogue's next row
        self.load, self.words = 0, 0

    def epilogue(self):
        """Fields of the epilogue's progress and of the drain memory's."""
        if self.tile >= len(self.owner):
            return {"seq": len(self.commands) % _SEQ, "tiles_done": self.tile % _SEQ}
        owner = self.owner[self.tile]
        last = self.tile + 1 == len(self.owner) or self.owner[self.tile + 1] is not owner
        return {"seq": owner["seq"], "last_tile": int(last), "row": self.row,
                "tiles_done": self.tile % _SEQ}

    def move(self, speed):
        """One cycle of the epilogue and of the mover."""
        if self.drained and random.random() < speed:
            assert self.drained.pop(0) == (self.tile, self.row)
            self.row += 1
            if self.row == self.owner[self.tile]["rows"]:
                self.tile, self.row = self.tile + 1, 0
        if random.random() < speed:
            self.words += 1
            # The loads named by commands may run as far as those have been issued.
            if self.words == _LOAD_WORDS and self.load < _LOADS * len(self.commands):
                self.load, self.words = self.load + 1, 0
            self.words = min(self.words, _LOAD_WORDS)

    def entry(self, addr, first):
        """The index memory, in which lists lie that are loaded, each by a LOAD before its MATMUL.

        What is there before is something else.  ``first``: the MATMUL whose rows are issued.
        """
        for seq in range(first, min(first + _LISTS, len(self.commands))):
            command = self.commands[seq]
            if command["src_list_base"] <= addr < command["src_list_base"] + _LIST:
                there = self.load > _LOADS * seq - command["load_distance"]
                return _index(self.arch, addr) ^ int(not there)
        return _index(self.arch, addr)

    def drive(self):
        """Put the progress on the inputs."""
        dut, state = self.dut, self.epilogue()
        dut.epilogue.value = bench.pack(interfaces.EPILOGUE_PROGRESS, state)
        dut.drain_read.value = bench.pack(
            interfaces.DRAIN_PROGRESS, {"tile": self.tile % _SEQ, "row": self.row}
        )
        dut.mover.value = bench.pack(
            interfaces.MOVER_PROGRESS, {"seq": self.load % _SEQ, "words": self.words}
        )

    def check(self, row):
        """Whether the documentation allows this row now."""
        command = row["command"]
        seq = self.commands.index(command)
        if command.get("dep_distance"):
            producer = seq - command["dep_distance"]
            done = self.commands.index(self.owner[self.tile]) if self.tile < len(self.owner) \
                else len(self.commands)
            if done <= producer:
                assert done == producer, "producer has not begun"
                assert self.epilogue()["last_tile"], "producer is not in its last tile"
                assert not command["dep_end"], "producer has not finished"
                if row["word"] >= command["dep_k"]:
                    assert not command["src_list"], "a list waits for the whole producer"
                    assert not command.get("repeats"), "repetitions wait for the whole producer"
                    assert self.row > row["pixel"], "row is not written"
        if command.get("load_distance"):
            load = _LOADS * seq - command["load_distance"]
            if self.load <= load:
                assert self.load == load, "load has not begun"
                assert command["load_stream"], "load has not finished"
                assert self.words > row["k"] * command["rows"] + row["r"], "word is not loaded"
        if row["last"]:
            assert self.tile == row["tile"] or (
                self.tile == row["tile"] - 1 and self.row > row["r"]
            ), "drain row is still needed"


async def _run(dut, count, *, easy, speed, bank, lists=()):
    """Play all neighbours; ``lists`` are commands whose lists are loaded."""
    arch = bench.arch()
    await bench.start(dut)
    for slot in range(2):
        layout = interfaces.gain_write(arch)
        await bench.pipe_put(dut, "gain_write", [
            bench.pack(layout, {"slot": slot, "word": w, "data": _gain(arch, slot, w)})
            for w in range(16)
        ])
    commands = list(lists) or [_command(arch, seq, easy=easy) for seq in range(count)]
    around = Around(dut, arch, commands, easy=easy)
    words = [bench.pack(interfaces.fetch_command(arch), c) for c in commands]
    cocotb.start_soon(bench.stream_put(dut, "command", words, gap=0 if easy else 0.3))

    rows = list(_rows(arch, commands))
    layout = interfaces.transform_input(arch)
    expected, due, last_issue = {}, {}, {}
    issued, starts, accepted, finished, issue_cycles = 0, [-MIN_PASS], 0, 0, []
    tile_ready, tile_delay, index_data, stat_data = 1, 0, 0, 0
    for cycle in range(200_000):
        around.drive()
        dut.tile_ready.value = tile_ready
        dut.read__ready.value = int(random.random() < bank)
        dut.index__data.value = index_data
        dut.stat.value = stat_data
        lo, hi = due.pop(cycle, (random.getrandbits(8 * arch.depth),) * 2)
        dut.read__lo.value, dut.read__hi.value = lo, hi
        await ReadOnly()
        # Outputs.
        if cycle in expected:
            assert dut.o__valid.value == 1
            got = bench.unpack(layout, int(dut.o__p.value))
            want = expected.pop(cycle)
            if want["mode"] == Transform.NONE:
                got["stat"] = want["stat"]
            assert got == want, f"row {issued} in cycle {cycle}: {got}, not {want}"
        else:
            assert dut.o__valid.value == 0
        assert int(dut.row.value) + bin(int(dut.stall.value)).count("1") == 1 or cycle == 0
        assert dut.idle.value == int(finished == accepted)
        accepted += dut.command__valid.value == 1 and dut.command__ready.value == 1
        # Memories with one cycle of latency.
        if dut.index__en.value == 1:
            addr = int(dut.index__addr.value)
            first = rows[min(issued, len(rows) - 1)]["command"]
            index_data = around.entry(addr, commands.index(first)) if lists else _index(arch, addr)
        stat_data = bench.pack(interfaces.STAT, _stat(int(dut.stat_addr.value)))
        # A granted read.
        if dut.read__valid.value == 1 and dut.read__ready.value == 1:
            row = rows[issued]
            assert int(dut.read__addr.value) == row["addr"], f"row {issued}"
            assert int(dut.read__wide.value) == row["wide"]
            around.check(row)
            assert cycle - last_issue.get(row["r"], -MIN_PASS) >= MIN_PASS, "row follows too soon"
            last_issue[row["r"]] = cycle
            if row["r"] == 0:
                assert tile_ready, "no tile"
                assert cycle - starts[-1] >= MIN_PASS, "pass begins too early"
                starts.append(cycle)
                tile_ready, tile_delay = 0, 0 if easy else random.choice([0, 2, 40])
            if row["last"]:
                around.drained.append((row["tile"], row["r"]))
                if row["tiles"] == 2 and row["r"] == row["command"]["rows"] - 1:
                    around.drained += [(row["tile"] + 1, r) for r in range(row["r"] + 1)]
            expected[cycle + READ_LATENCY] = row["out"]
            due[cycle + READ_LATENCY] = (row["out"]["lo"], row["out"]["hi"])
            issue_cycles.append(cycle)
            issued += 1
            finished += row["final"]
        if not tile_ready and cycle > starts[-1]:
            tile_ready = int(tile_delay == 0)
            tile_delay -= 1
        # Never ahead: the loader overwrites gains on its word.  Being late only costs cycles.
        assert (finished - int(dut.progress.value)) % _SEQ < _SEQ // 2
        await FallingEdge(dut.clk)
        for _ in range(arch.nibble_tiles if easy else 1):
            around.move(1.0 if easy else speed)
        if issued == len(rows) and not expected:
            break
    assert issued == len(rows), f"{issued} of {len(rows)} rows came"
    await bench.cycles(dut, 6)
    assert int(dut.progress.value) == count % _SEQ
    return issue_cycles


@cocotb.test()
async def full_rate(dut):
    """With nothing to wait for there is no bubble: passes, tiles, instructions."""
    issue_cycles = await _run(dut, 20, easy=True, speed=1.0, bank=1.0)
    bubbles = issue_cycles[-1] - issue_cycles[0] + 1 - len(issue_cycles)
    assert bubbles == 0, f"{bubbles} bubbles in {len(issue_cycles)} rows"


@cocotb.test()
async def every_wait(dut):
    """Dependencies, loads, drain, banks, tiles, short passes, lists."""
    for speed, bank in ((0.9, 0.8), (0.3, 0.5)):
        await _run(dut, 20, easy=False, speed=speed, bank=bank)


@cocotb.test()
async def lists_are_loaded_first(dut):
    """An entry is read long before the row waits for anything, and not before its LOAD is done."""
    arch = bench.arch()
    commands = []
    for seq in range(24):
        command = _command(arch, seq, easy=True) | {
            "k_tiles": 1, "c_tiles": 1, "rows": random.randrange(1, 20), "src_list": 1,
            "src_list_base": _LIST * (seq % _LISTS), "load_distance": 1, "load_stream": 0,
        }
        commands.append({name: value for name, value in command.items()
                         if name not in _map(arch)} | {"k_tiles": 1})
    await _run(dut, len(commands), easy=True, speed=1.0, bank=1.0, lists=commands)
