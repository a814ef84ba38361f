"""The token memory: banks of K-byte words, shared by fixed priority."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from vitrify.arch.config import ArchConfig
from vitrify.rtl import interfaces
from vitrify.rtl.lib.shared import place

from .token_bank import TokenBank

#: Clients in order of priority.
READERS = ("epilogue", "fetch", "loader", "mover")
WRITERS = ("epilogue", "mover")


class TokenMemory(wiring.Component):
    """Banks with one read and one write a cycle each, and their arbitration.

    Word address ``a`` lies in bank ``a // bank_words``; a ``wide`` access with pair address ``p``
    touches banks ``2 * (p // bank_words)`` and the next one at the same offset
    (:func:`vitrify.arch.memmap.pair_banks`).

    ``ready`` is combinational: a request is granted unless a client above it in the order of
    priority *requests* a bank that it needs (a write: a bank of the same pair).  Data of a
    granted read are on ``lo`` (and ``hi``) :data:`~vitrify.rtl.interfaces.READ_LATENCY` cycles
    later, for one cycle.  A granted write is visible to reads granted from the next cycle on; until
    it is granted, its words are undefined.
    Reading a word in the very cycle in which it is written gives an undefined value; a read
    address outside the banks gives zeros.

    Parameters
    ----------
    arch : ArchConfig
        Banks are held in UltraRAM if its part has any.

    Members
    -------
    read_epilogue : :py:`In(piece_client(arch))`
        What is chosen of a word is chosen beside its bank.
    read_fetch : :py:`In(fetch_client(arch))`
    read_loader, read_mover : :py:`In(read_client(arch))`
        The mover waits for the loader in any case: they share the way back.
    write_epilogue, write_mover : :py:`In(write_client(arch))`
        ``mask`` bit ``i`` enables bytes ``i*E`` to ``i*E + E-1`` of the word (of both words when
        wide).
    """

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "read_epilogue": In(interfaces.piece_client(arch)),
            "read_fetch": In(interfaces.fetch_client(arch)),
            **{f"read_{name}": In(interfaces.read_client(arch)) for name in READERS[2:]},
            **{f"write_{name}": In(interfaces.write_client(arch)) for name in WRITERS},
        })

    def elaborate(self, platform: Any) -> Module:
        assert interfaces.READ_LATENCY == TokenBank.LATENCY
        m = Module()
        self._offset_bits = exact_log2(self.arch.bank_words)
        reads = [self._old(m), *(getattr(self, f"read_{name}") for name in READERS[1:])]
        writes = [getattr(self, f"write_{name}") for name in WRITERS]
        self._arbitrate(m, reads)
        _, fetch, loader, mover = reads
        # A LOAD that meets results now and then loses a cycle.
        self._arbitrate(m, writes, by_pair=True)
        # Large memories are slow to elaborate: the banks are written once.
        banks = place(m, platform, lambda: TokenBank(self.arch), count=self.arch.banks,
                      name=TokenBank.module_name(self.arch))
        for bank, memory in enumerate(banks):
            self._write(m, bank, writes, memory)
            self._read(m, bank, reads, memory)
        words = [memory.read_data for memory in banks]
        self._answer(m, "fetch", self._place(fetch), words, [fetch])
        # One way for two clients that seldom meet.
        place_of_one = Mux(loader.valid, self._place(loader), self._place(mover))
        self._answer(m, "other", place_of_one, words, [loader, mover])
        self._pieces(m, words)
        return m

    def _old(self, m: Module) -> Any:
        """The epilogue's request in the form of the others."""
        client, request = self.read_epilogue, interfaces.read_client(self.arch).create()
        m.d.comb += [
            request.valid.eq(client.valid), request.addr.eq(client.addr), request.wide.eq(1),
            client.ready.eq(request.ready),
        ]
        return request

    # Addresses: (pair of banks, odd bank, offset) -------------------------------------------
    def _pair(self, client: wiring.PureInterface) -> Value:
        """Pair of banks of a request."""
        if "pair" in client.signature.members:
            return client.pair
        return interfaces.bank_pair(self.arch, client.addr, client.wide)

    def _arbitrate(
        self, m: Module, clients: list[wiring.PureInterface], *, by_pair: bool = False
    ) -> None:
        """``by_pair``: the banks of a pair go to one writer, which is quicker to decide."""
        # Of the pairs that there are: beyond them, somebody waits in vain.
        bits = interfaces.index_bits(self.arch.banks // 2)
        for i, client in enumerate(clients):
            blocked = Const(0)
            for other in clients[:i]:
                same_side = ~(client.addr[self._offset_bits] ^ other.addr[self._offset_bits])
                same_bank = by_pair | client.wide | other.wide | same_side
                same_pair = self._pair(client)[:bits] == self._pair(other)[:bits]
                blocked |= other.valid & same_pair & same_bank
            if not by_pair and client is clients[-1]:
                blocked |= clients[-2].valid
            m.d.comb += client.ready.eq(~blocked)

    # Banks ----------------------------------------------------------------------------------
    def _write(
        self, m: Module, bank: int, clients: list[wiring.PureInterface], memory: Any
    ) -> None:
        # The lowest priority is the default, so that one comparison less is in the data's way.
        # Who is not granted is not kept out either: half of a wide write may come before the other,
        # again and again until both are granted.  That shortens the way to every mask.
        *others, last = clients
        takes = [client.valid & client.banks[bank] for client in clients]
        half = "hi" if bank % 2 else "lo"
        m.d.comb += [
            memory.write_valid.eq(Cat(takes).any()),
            memory.write_addr.eq(last.addr), memory.write_data.eq(getattr(last, half)),
            memory.write_mask.eq(last.mask),
        ]
        for client, take in zip(reversed(others), reversed(takes[:-1]), strict=True):
            with m.If(take):
                m.d.comb += [
                    memory.write_addr.eq(client.addr), memory.write_data.eq(getattr(client, half)),
                    memory.write_mask.eq(client.mask),
                ]

    def _read(
        self, m: Module, bank: int, clients: list[wiring.PureInterface], memory: Any
    ) -> None:
        *others, last = clients
        m.d.comb += memory.read_addr.eq(last.addr)
        for client in reversed(others):
            wanted = interfaces.in_bank(
                self.arch, bank, self._pair(client), client.addr, client.wide
            )
            with m.If(client.valid & wanted):
                m.d.comb += memory.read_addr.eq(client.addr)

    def _place(self, client: wiring.PureInterface) -> Value:
        """Pair of banks, and above it which bank of the pair is ``lo``."""
        pair = self._pair(client)[: interfaces.index_bits(self.arch.banks // 2)]
        return Cat(pair, client.addr[self._offset_bits] & ~client.wide)

    def _later(self, m: Module, value: Value, cycles: int, name: str) -> Value:
        for stage in range(cycles):
            later = Signal(len(value), name=f"{name}_{stage + 1}", reset_less=True)
            m.d.sync += later.eq(value)
            value = later
        return value

    def _answer(
        self, m: Module, name: str, place: Value, words: list[Signal],
        clients: list[wiring.PureInterface],
    ) -> None:
        chosen = self._later(m, place, interfaces.READ_LATENCY, f"{name}_bank")
        with m.Switch(chosen[:-1]):
            for pair in range(self.arch.banks // 2):
                with m.Case(pair):
                    low, high = words[2 * pair], words[2 * pair + 1]
                    for client in clients:
                        m.d.comb += [
                            client.lo.eq(Mux(chosen[-1], high, low)), client.hi.eq(high)
                        ]

    def _pieces(self, m: Module, words: list[Signal]) -> None:
        """The epilogue's answer: a piece beside every bank, then one bank's."""
        client, size = self.read_epilogue, 8 * self.arch.lanes
        pair = client.addr[self._offset_bits :][: interfaces.index_bits(self.arch.banks // 2)]
        piece = self._later(m, client.piece, interfaces.READ_LATENCY, "piece")
        chosen = self._later(m, pair, interfaces.PIECE_LATENCY, "epilogue_bank")
        pieces = []
        for bank, word in enumerate(words):
            one = Signal(size, name=f"piece_of_{bank}", reset_less=True)
            m.d.sync += one.eq(word.word_select(piece, size) if size < len(word) else word)
            pieces.append(one)
        with m.Switch(chosen):
            for pair in range(self.arch.banks // 2):
                with m.Case(pair):
                    m.d.comb += [
                        client.lo.eq(pieces[2 * pair]), client.hi.eq(pieces[2 * pair + 1])
                    ]
