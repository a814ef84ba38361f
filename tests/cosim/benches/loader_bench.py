"""Cocotb bench of the loader: what goes where, in which order, and never too early or too late."""

import random
from itertools import pairwise, product

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly

from vitrify.arch import trellis
from vitrify.arch.memmap import tiles_per_pass
from vitrify.arch.modes import WITH_PARAMETERS, Stationary
from vitrify.cosim import bench
from vitrify.rtl import interfaces
from vitrify.rtl.interfaces import MIN_PASS, READ_LATENCY

_SEQ = 1 << interfaces.SEQ_BITS
_PIPES = ("tile_write", "param_write", "table_write", "gain_write")


def _token(arch, addr):
    return random.Random(addr).getrandbits(8 * arch.depth)


def _pair(arch, addr):
    """Low and high word of a pair address."""
    return _token(arch, addr), _token(arch, ~addr)


def _columns(arch, words):
    """The columns of a tile of nibbles, as words of bytes."""
    codes = [[word >> at & 0xF for at in range(4 * odd, 8 * arch.depth, 8)]
             for word in words for odd in (0, 1)]
    weights = trellis.decode(np.array(codes)) if arch.trellis_codes else (
        np.array([[(n ^ 8) - 8 for n in column] for column in codes], np.int8))
    return [int.from_bytes(column.tobytes(), "little") for column in weights]


def _stationaries(arch):
    return [s for s in Stationary if s != Stationary.STORED or arch.stored_weights]


def _of_nibbles(arch):
    return [Stationary.WEIGHTS, *[Stationary.STORED] * arch.stored_nibbles] * arch.nibbles


def _command(arch, seq, **fixed):
    command = {
        "seq": seq % _SEQ,
        "k_tiles": random.randrange(1, 4), "k_last": random.randrange(1, arch.depth + 1),
        "c_tiles": random.randrange(1, 4), "c_last": random.randrange(1, arch.width + 1),
        "stationary": random.choice(_stationaries(arch)),
        "st_addr": random.randrange(1 << 18), "st_stride": random.randrange(30),
        "load_gain": int(random.random() < 0.3), "gain_slot": seq & 1,
        "load_table": int(random.random() < 0.2), "table_slot": seq & 1,
        "st_distance": random.randrange(2) if seq else 0,
        # Three loads came before the first MATMUL, two more before every other one.
        "load_seq": (3 + 2 * seq) % _SEQ, "load_distance": random.randrange(1, 4),
    }
    command |= fixed
    if arch.nibbles:
        command["nibbles"] = int(
            command["stationary"] in _of_nibbles(arch) and random.random() < 0.5)
        command["c_last"] = random.randrange(1, arch.tile_width(command["nibbles"]) + 1)
    if arch.patterns:
        command["gain_words"] = random.choice([command["k_tiles"], random.randrange(1, 9)])
        if command["stationary"] not in WITH_PARAMETERS and random.random() < 0.5:
            command |= {"repeats": random.randrange(1, 3), "st_step": random.randrange(500)}
    command |= fixed
    return command


def _expect(arch, commands):
    """Stream words; their count up to each command's end; reads with their seq; what each pipe
    carries; tiles per c tile.
    """
    stream, ends, reads, tiles = [], [], [], []
    written = {name: [] for name in _PIPES}

    def word():
        stream.append(random.getrandbits(8 * arch.depth))
        return stream[-1]

    def read(seq, addr, wide=0):
        addr %= 1 << interfaces.ADDR_BITS
        reads.append((seq, addr, wide))
        return _pair(arch, addr) if wide else _token(arch, addr)

    t = 0
    for seq, op in enumerate(commands):
        weights = op["stationary"] == Stationary.WEIGHTS
        stored, pairs = op["stationary"] == Stationary.STORED, 0
        if op["load_gain"]:
            for w in range(op.get("gain_words", op["k_tiles"])):
                written["gain_write"].append(
                    (seq, {"slot": op["gain_slot"], "word": w, "data": word()}))
        if op["load_table"]:
            for w in range(arch.table_words):
                written["table_write"].append(
                    (seq, {"slot": op["table_slot"], "word": w, "data": word()}))
        nibbles = op.get("nibbles", 0)
        per_pass, width = tiles_per_pass(arch, nibbles), arch.tile_width(nibbles)
        for again, c in product(
            range(op.get("repeats", 0) + 1), range(0, op["c_tiles"], per_pass)
        ):
            count = min(per_pass, op["c_tiles"] - c)
            st_addr = op["st_addr"] + again * op.get("st_step", 0)
            if weights or stored:
                for number, g, w in product(
                    range(t, t + count), range(width // arch.lanes), range(arch.param_words)
                ):
                    written["param_write"].append((number, {
                        "slot": number % arch.param_slots, "group": g, "word": w, "data": word()}))
            c_last = op["c_last"] if c == op["c_tiles"] - 1 else arch.width
            for k in range(op["k_tiles"]):
                k_last = op["k_last"] if k == op["k_tiles"] - 1 else arch.depth
                tile = []
                if op["stationary"] == Stationary.COLUMNS:
                    at = c * arch.width
                    for kk in range(k_last):
                        for group in range(max(1, arch.width // arch.depth)):
                            data = read(seq, st_addr + at // arch.depth + group
                                        + (k * arch.depth + kk) * op["st_stride"])
                            data >>= 8 * (at % arch.depth)
                            tile.append({"columns": 1, "index": kk, "group": group, "data": data})
                elif stored:
                    for i in range(arch.tile_pairs(nibbles)):
                        low, high = read(seq, op["st_addr"] + pairs, 1)
                        pairs += 1
                        if arch.tile_quads and i % 2:
                            tile[-1] |= {"quad": 1, "more": low | high << 8 * arch.depth}
                            continue
                        tile.append({"columns": 0, "index": len(tile), "group": 0, "data": low,
                                     "pair": 1, "high": high,
                                     **({"nibbles": 1} if nibbles else {})})
                elif nibbles and arch.nibble_thirds:
                    tile += [{"columns": 0, "index": i, "group": 0, "data": word(), "nibbles": 1}
                             for i in range(width // 2)]
                elif nibbles and per_pass == 1:
                    columns = _columns(arch, [word() for _ in range(arch.width // 2)])
                    if arch.stored_weights:
                        pairs_of = zip(columns[::2], columns[1::2], strict=True)
                        tile += [{"columns": 0, "index": i, "group": 0, "data": low, "pair": 1,
                                  "high": high} for i, (low, high) in enumerate(pairs_of)]
                    else:
                        tile += [{"columns": 0, "index": i, "group": 0, "data": data}
                                 for i, data in enumerate(columns)]
                else:
                    for i in range(arch.width if weights else c_last):
                        data = word() if weights else read(
                            seq, st_addr + (c * arch.width + i) * op["st_stride"] + k)
                        tile.append({"columns": 0, "index": i, "group": 0, "data": data})
                if arch.stored_weights:
                    tile = [{"pair": 0, "high": word["data"]} | word for word in tile]
                if arch.tile_quads:
                    tile = [{"quad": 0, "more": word["data"] | word["high"] << 8 * arch.depth}
                            | word for word in tile]
                if arch.nibble_thirds:
                    tile = [{"nibbles": 0} | word for word in tile]
                written["tile_write"] += [(len(tiles), word) for word in tile]
                tiles.append({"tile": t, "seq": seq, "words": len(tile),
                              "ends": count * (k == op["k_tiles"] - 1),
                              "finishes": k == op["k_tiles"] - 1 and c + count == op["c_tiles"]
                              and again == op.get("repeats", 0)})
            t += count
        ends.append(len(stream))
    return stream, ends, reads, written, tiles


async def _run(dut, commands, *, gap, bank, idle, lag, load=1.0, shut=0, rest=0):
    """Play all neighbours; returns the cycles in which tiles were taken by a row.

    Now and then the token memory is ``shut`` for so many cycles, and no row comes for ``rest``.
    """
    arch, latency = bench.arch(), bench.option("swap_latency")
    await bench.start(dut)
    stream, ends, reads, written, tiles = _expect(arch, commands)
    layouts = {name: getattr(interfaces, name)(arch) for name in _PIPES}
    words = [bench.pack(interfaces.loader_command(arch), c) for c in commands]
    cocotb.start_soon(bench.stream_put(dut, "command", words))
    cocotb.start_soon(bench.stream_put(dut, "weights", stream, gap=gap))
    issues, due, done = [], {}, []           # done: (cycle, tile) of tiles past the epilogue
    fetch_seq = epilogue_seq = tiles_done = taken_in = pause = loads = opens = rests = 0
    accepted = eaten = 0
    low_bytes = (1 << 8 * min(arch.width, arch.depth)) - 1
    for cycle in range(100_000):
        while done and done[0][0] <= cycle:
            tile = done.pop(0)[1]
            tiles_done += tile["ends"]
            epilogue_seq += tile["finishes"]
        # Loads finish at random times, at most a few ahead of the MATMULs that need them.
        if loads < 3 + 2 * (epilogue_seq + 3):
            loads += random.random() < load
        dut.mover.value = bench.pack(interfaces.MOVER_PROGRESS, {"seq": loads % _SEQ})
        dut.fetch.value = fetch_seq % _SEQ
        dut.epilogue.value = bench.pack(interfaces.EPILOGUE_PROGRESS, {
            "seq": epilogue_seq % _SEQ, "tiles_done": tiles_done % _SEQ})
        dut.tile_take.value = int(bool(issues) and issues[-1] == cycle - 1)
        opens = cycle + shut if cycle > opens and shut and random.random() < 0.05 else opens
        dut.read__ready.value = int(cycle >= opens and random.random() < bank)
        rubbish = [random.getrandbits(8 * arch.depth) for _ in range(2)]
        dut.read__lo.value, dut.read__hi.value = due.pop(cycle, rubbish)
        await ReadOnly()
        for name, layout in layouts.items():
            if getattr(dut, f"{name}__valid").value != 1:
                continue
            got = bench.unpack(layout, int(getattr(dut, f"{name}__p").value))
            owner, want = written[name].pop(0)
            if name == "tile_write":
                n = owner
                assert n <= len(issues), f"tile {n} over its predecessor"
                assert n == 0 or cycle >= issues[n - 1] + latency, f"tile {n} before the swap"
                assert n >= len(issues) or cycle < issues[n] + latency, f"tile {n} is late"
                if want["columns"]:
                    got["data"] &= low_bytes
                    want["data"] &= low_bytes
                    want |= {name: got[name] for name in ("high", "more") if name in got}
            elif name == "param_write":
                assert owner - tiles_done < arch.param_slots, "parameters are in use"
            elif name == "table_write":
                assert epilogue_seq >= owner - 1, "table is in use"
            else:
                assert fetch_seq >= owner - 1, "gains are in use"
            assert got == want, f"{name} in cycle {cycle}: {got}, not {want}"
        if dut.read__valid.value == 1 and dut.read__ready.value == 1:
            seq, addr, wide = reads.pop(0)
            assert int(dut.read__addr.value) == addr
            assert dut.read__wide.value == wide
            distance = commands[seq]["st_distance"]
            if wide:
                assert loads > 3 + 2 * seq - commands[seq]["load_distance"], "it is not loaded"
                due[cycle + READ_LATENCY] = _pair(arch, addr)
            else:
                assert distance == 0 or epilogue_seq > seq - distance, "the producer is at work"
                due[cycle + READ_LATENCY] = _token(arch, addr), rubbish[1]
        if dut.idle.value == 1 and accepted:
            assert eaten == ends[accepted - 1], "idle before its words came"
            # Two may wait for the memory.
            assert sum(seq < accepted for seq, *_ in reads) <= 2, "idle before it has read"
        accepted += dut.command__valid.value == 1 and dut.command__ready.value == 1
        eaten += dut.weights__valid.value == 1 and dut.weights__ready.value == 1
        # A row may be issued in the cycle after tile_ready.
        n = len(issues)
        if dut.tile_ready.value == 1 and n < len(tiles) and cycle > taken_in + 1:
            pause = pause or random.random() < idle
            rests = cycle + rest if rest and n % 4 == 3 and cycle > rests + rest else rests
            if cycle >= rests and not pause and (not issues or cycle + 1 >= issues[-1] + MIN_PASS):
                issues.append(cycle + 1)
                taken_in = cycle + 1
                fetch_seq += tiles[n]["finishes"]
                done.append((cycle + 1 + lag, tiles[n]))
            pause = pause and random.random() < 0.9
        await FallingEdge(dut.clk)
        if n == len(tiles) and cycle > issues[-1] + latency:
            break
    assert not reads, "tiles were not read"
    assert not any(written.values()), "words were not written"
    return issues


#: Cycles between the last word of a tile and the first one of the next.
BETWEEN_TILES = 2


@cocotb.test()
async def full_rate(dut):
    """A pass may follow after the cycles that its tile takes, even before the swap."""
    arch = bench.arch()
    kinds = [(stationary, 0) for stationary in _stationaries(arch)]
    for stationary, nibbles in [*kinds, *((one, 1) for one in _of_nibbles(arch))]:
        op = _command(arch, 0, stationary=stationary, k_tiles=6, c_tiles=1, c_last=arch.width,
                      k_last=arch.depth, load_gain=0, load_table=0,
                      **({"nibbles": nibbles} if arch.nibbles else {}),
                      **({"repeats": 0} if arch.patterns else {}))
        issues = await _run(dut, [op], gap=0.0, bank=1.0, idle=0.0, lag=1)
        words = {
            Stationary.COLUMNS: max(arch.width, arch.depth),
            Stationary.STORED: arch.tile_pairs(nibbles),
        }.get(stationary, arch.tile_width(nibbles) >> (nibbles and (
            arch.nibble_thirds or (arch.stored_weights and arch.nibble_tiles == 1))))
        periods = [b - a for a, b in pairwise(issues)]
        want = max(words + BETWEEN_TILES, MIN_PASS)
        if arch.tile_quads and stationary == Stationary.STORED:
            # A word of the buffer is two of the memory: tiles are promised a cycle early or late.
            assert max(periods) <= want + 1, f"{stationary.name}: {periods}, not {want}"
            assert sum(periods) <= want * len(periods), f"{stationary.name}: {periods}"
        else:
            assert max(periods) == want, f"{stationary.name}: {periods}, not {want}"


@cocotb.test()
async def several_tiles_at_hand(dut):
    """After a rest STORED tiles follow each other four columns a cycle, where the core does so."""
    arch = bench.arch()
    if arch.tile_quads:
        op = _command(arch, 0, stationary=Stationary.STORED, k_tiles=8, c_tiles=1, load_gain=0,
                      load_table=0, **({"nibbles": 0} if arch.nibbles else {}))
        issues = await _run(dut, [op], gap=0.0, bank=1.0, idle=0.0, lag=1, rest=2 * arch.width)
        assert issues[5] - issues[4] == max(arch.width // 4, MIN_PASS)


@cocotb.test()
async def every_wait(dut):
    """Random instructions with gaps, bank conflicts, slow rows and a slow epilogue."""
    for gap, bank, idle, lag in ((0.0, 1.0, 0.0, 2), (0.3, 0.6, 0.1, 60), (0.1, 0.8, 0.0, 200)):
        commands = [_command(bench.arch(), seq) for seq in range(15)]
        await _run(dut, commands, gap=gap, bank=bank, idle=idle, lag=lag, load=0.01 if lag else 1)


@cocotb.test()
async def words_come_in_their_order(dut):
    """The stream waits for words of the token memory, however long that lets them wait."""
    arch = bench.arch()
    kinds = [s for s in _stationaries(arch) if s != Stationary.WEIGHTS]
    commands = [
        _command(arch, seq, k_tiles=1, c_tiles=1, load_gain=0, load_table=0, st_distance=0,
                 stationary=Stationary.WEIGHTS if seq % 2 else random.choice(kinds),
                 **({"repeats": 0} if arch.patterns else {}))
        for seq in range(40)
    ]
    await _run(dut, commands, gap=0.0, bank=1.0, idle=0.0, lag=2, shut=60)


@cocotb.test()
async def tiles_are_promised_in_time(dut):
    """After a rest several tiles are at hand, and each is taken as soon as it is promised."""
    arch = bench.arch()
    for stationary in _stationaries(arch):
        commands = [
            _command(arch, seq, stationary=stationary, k_tiles=4, c_tiles=1, c_last=arch.width,
                     k_last=arch.depth, load_gain=0, load_table=0, st_distance=0,
                     **({"repeats": 0} if arch.patterns else {}))
            for seq in range(6)
        ]
        await _run(dut, commands, gap=0.0, bank=1.0, idle=0.0, lag=1, rest=90)
        await _run(dut, commands, gap=0.4, bank=0.6, idle=0.0, lag=1, rest=90)


@cocotb.test()
async def gains_of_short_instructions(dut):
    """The loader is ahead by several of them, and keeps off the slot that rows still read."""
    arch = bench.arch()
    commands = [
        _command(arch, seq, k_tiles=1, c_tiles=1, c_last=1, k_last=1, load_gain=1, load_table=0,
                 st_distance=0, **({"repeats": 0, "gain_words": 2} if arch.patterns else {}))
        for seq in range(40)
    ]
    await _run(dut, commands, gap=0.0, bank=1.0, idle=0.0, lag=2, rest=90)
