"""Cocotb bench of the token memory: all clients at once, against the golden memory."""

import random

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly

from vitrify.arch import memmap
from vitrify.cosim import bench
from vitrify.golden.memory import TokenMemory
from vitrify.rtl.interfaces import PIECE_LATENCY, READ_LATENCY
from vitrify.rtl.memory.token_memory import READERS, WRITERS

# Few offsets, so that clients meet.
_OFFSETS = 4


def _request(arch, port):
    """A random request, as plain data."""
    write, pieces = port.startswith("write"), port == "read_epilogue"
    wide = pieces or (random.random() < 0.4 and port != "read_loader")
    banks = arch.banks // 2 if wide else arch.banks
    offset = random.choice([*range(_OFFSETS), arch.bank_words - 1])
    request = {"wide": wide, "addr": random.randrange(banks) * arch.bank_words + offset}
    if pieces:
        request["piece"] = random.randrange(arch.depth // arch.lanes)
    if write or port == "read_fetch":
        request["pair"] = request["addr"] // arch.bank_words // (1 if wide else 2)
    if write:
        request |= {"mask": random.getrandbits(arch.depth // arch.lanes),
                    "lo": random.getrandbits(8 * arch.depth),
                    "hi": random.getrandbits(8 * arch.depth)}
        word_banks = (word // arch.bank_words for word in _words(arch, request))
        request["banks"] = sum(1 << bank for bank in word_banks)
        if not wide:
            request["hi"] = request["lo"]
    return request


def _words(arch, request):
    address = request["addr"]
    return list(memmap.pair_banks(arch, address)) if request["wide"] else [address]


def _grants(arch, names, requests, share):
    """Names granted: nobody above wants one of the banks, ``share`` of which go together."""
    taken, granted = set(), set()
    for name in names:
        if requests.get(name) is None:
            continue
        banks = {w // arch.bank_words // share for w in _words(arch, requests[name])}
        if not banks & taken:
            granted.add(name)
        taken |= banks
    return granted


def _reached(arch, names, requests):
    """``{name: words}`` that are written now: granted or not, in banks that nobody above takes."""
    taken, reached = set(), {}
    for name in names:
        if requests.get(name) is not None:
            words = _words(arch, requests[name])
            reached[name] = {w for w in words if w // arch.bank_words not in taken}
            taken |= {w // arch.bank_words for w in words}
    return reached


def _write(arch, memory, known, request, reached):
    for word, half in zip(_words(arch, request), ("lo", "hi"), strict=False):
        if word not in reached:
            continue
        data = np.frombuffer(request[half].to_bytes(arch.depth, "little"), np.uint8)
        for part in range(arch.depth // arch.lanes):
            if request["mask"] >> part & 1:
                at = slice(part * arch.lanes, (part + 1) * arch.lanes)
                memory.bytes[word, at] = data[at]
                known[word, at] = 0xFF


async def _run(dut, memory, known, cycles, load):
    """``known`` has 0xFF for every byte that has been written: the others hold anything."""
    arch = bench.arch()
    await bench.start(dut)
    requests, due, counts = {}, {}, dict.fromkeys([*READERS, *WRITERS], 0)
    ports = {**{f"read_{n}": n for n in READERS}, **{f"write_{n}": n for n in WRITERS}}
    for cycle in range(cycles):
        for port in ports:
            if requests.get(port) is None and random.random() < load:
                requests[port] = _request(arch, port)
            request = requests.get(port)
            getattr(dut, f"{port}__valid").value = int(request is not None)
            for name, value in (request or {}).items():
                if (port, name) != ("read_epilogue", "wide"):
                    getattr(dut, f"{port}__{name}").value = int(value)
        await ReadOnly()
        readers = _grants(arch, [f"read_{n}" for n in READERS], requests, 1)
        if requests.get("read_loader") is not None:
            readers.discard("read_mover")  # they share the way back
        writers = _grants(arch, [f"write_{n}" for n in WRITERS], requests, 2)
        for port in ports:
            if requests.get(port) is not None:
                ready = getattr(dut, f"{port}__ready").value == 1
                assert ready == (port in readers | writers), f"{port} in cycle {cycle}"
        for port, word, want, mask in due.pop(cycle, []):
            got = int(getattr(dut, f"{port}__{word}").value) & mask
            assert got == want, f"{port}.{word} in cycle {cycle}: {got:x}, not {want:x}"
        reached = _reached(arch, [f"write_{n}" for n in WRITERS], requests)
        assert all(reached[port] == set(_words(arch, requests[port])) for port in writers)
        written = set().union(*reached.values())
        for port in readers:
            for word, half in zip(_words(arch, requests[port]), ("lo", "hi"), strict=False):
                if word not in written:
                    part, latency = slice(None), READ_LATENCY
                    if port == "read_epilogue":
                        at = requests[port]["piece"] * arch.lanes
                        part, latency = slice(at, at + arch.lanes), PIECE_LATENCY
                    mask = int.from_bytes(known[word, part].tobytes(), "little")
                    want = int.from_bytes(memory.bytes[word, part].tobytes(), "little")
                    due.setdefault(cycle + latency, []).append((port, half, want & mask, mask))
        for port, words in reached.items():
            _write(arch, memory, known, requests[port], words)
        for port in readers | writers:
            counts[ports[port]] += 1
            requests[port] = None
        await FallingEdge(dut.clk)
    assert min(counts.values()) > 0


@cocotb.test()
async def all_clients(dut):
    """Every client in every cycle, then sparse requests: most are granted."""
    memory = TokenMemory(bench.arch())
    known = np.zeros_like(memory.bytes)
    for load in (1.0, 0.3):
        await _run(dut, memory, known, 1000, load)
    # Most of what was read had been written.
    assert known.any(axis=1).sum() > _OFFSETS * bench.arch().banks // 2
