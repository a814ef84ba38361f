"""Layouts and signatures between the units: the only translator from the contract to Amaranth.

Two kinds of connections: *streams* (``amaranth.lib.stream``, valid/ready) and *pipes*
(:func:`pipe`: ``valid`` and a payload, no way to say no; the receiver takes it every cycle).
``docs/microarchitecture.md`` says who waits for whom.
"""

from __future__ import annotations

from amaranth import Cat, Mux, signed, unsigned
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from vitrify.arch import formats, isa, memmap
from vitrify.arch.config import ArchConfig

#: Cycles from a granted token-memory read to its data.
READ_LATENCY = 3
#: The same for a part of a word.
PIECE_LATENCY = READ_LATENCY + 1
#: Least cycles between the starts of two passes (read-modify-write distance of the accumulators,
#: row sums and row statistics).
MIN_PASS = 8
#: Bits of MATMUL, load and c-tile sequence numbers.
SEQ_BITS = 8
#: Gate logits that the router takes in a cycle.
ROUTE_LANES = 4
ADDR_BITS = isa.FORMATS[isa.Opcode.MATMUL].field("src_addr").bits
WORDS_BITS = isa.FORMATS[isa.Opcode.MATMUL].field("stream_words").bits


def index_bits(n: int) -> int:
    """Bits of an index below ``n`` (at least 1, so that the field exists)."""
    return max(1, ceil_log2(n))


def pipe(payload: data.Layout) -> wiring.Signature:
    """Valid and payload, no back-pressure."""
    return wiring.Signature({"valid": Out(1), "p": Out(payload)})


# Commands ------------------------------------------------------------------------------------
_MATMUL = isa.FORMATS[isa.Opcode.MATMUL]

_LOADER_FIELDS = ("k_tiles", "k_last", "c_tiles", "c_last", "stationary", "st_addr", "st_stride",
                  "load_gain", "gain_slot", "load_table", "table_slot", "st_distance",
                  "load_distance")
_FETCH_FIELDS = ("src_addr", "src_stride", "rows", "k_tiles", "k_last", "c_tiles", "transform",
                 "src_list", "src_list_base", "stat_src", "norm_shift", "norm_mantissa",
                 "gain_slot", "dep_distance", "dep_k", "dep_end", "load_distance", "load_stream")
_EPILOGUE_FIELDS = ("rows", "c_tiles", "c_last", "stationary", "output", "dst_addr", "dst_stride",
                    "dst_list", "dst_list_base", "pre_shift", "post_shift", "multiplier",
                    "row_scale", "activation", "table_slot", "stats", "stat_dst", "inv_dim",
                    "inv_shift", "epsilon", "epi_load_distance", "epi_load_stream", "gate",
                    "add_addr")


#: Fields of its PATTERN that an engine needs as well.
_FETCH_PATTERN = ("tapped", "taps_y", "taps_x", "tap_k", "tap_stride", "map_height", "map_width",
                  "out_width", "origin_y", "origin_x", "k_step", "c_group", "repeats", "src_step",
                  "stat_src_step")
#: Pixel of the map where the origin is, and pixels from a row of output pixels to the next.
_FETCH_MAP = {"origin": 8 * formats.INDEX_BYTES, "line": 8 * formats.INDEX_BYTES}
_EPILOGUE_PATTERN = ("combine", "add_source", "add_stride", "repeats", "dst_step", "add_step",
                     "stat_dst_step", "stat_src_step")
_LOADER_PATTERN = ("gain_words", "repeats", "st_step")


def _command(*names: str) -> data.StructLayout:
    """Fields of a MATMUL that one engine needs, with the sequence numbers at dispatch.

    ``seq`` is the MATMUL's own number; ``load_seq`` the number that the *next* load will get
    (so load distance d names load ``load_seq - d``).
    """
    fields = {f.name: f for op in (isa.Opcode.MATMUL, isa.Opcode.PATTERN)
              for f in isa.FORMATS[op].fields}
    shapes = {
        name: (signed if fields[name].low < 0 else unsigned)(fields[name].bits) for name in names
    }
    return data.StructLayout({**shapes, "seq": SEQ_BITS, "load_seq": SEQ_BITS})


def pattern_bits(name: str) -> int:
    """Bits of a field of PATTERN."""
    return isa.FORMATS[isa.Opcode.PATTERN].field(name).bits


def matmul_bits(name: str) -> int:
    """Bits of a field of MATMUL."""
    return _MATMUL.field(name).bits


def loader_command(arch: ArchConfig) -> data.StructLayout:
    """What the loader gets of a MATMUL; ``gain_words`` is that of its PATTERN, or ``k_tiles``."""
    return _command(
        *_LOADER_FIELDS, *(["nibbles"] if arch.nibbles else []),
        *(_LOADER_PATTERN if arch.patterns else []),
    )


def _seen(arch: ArchConfig) -> list[str]:
    """What says that a MATMUL's weights are nibbles, if not the loader alone wants to know."""
    return ["nibbles"] if arch.sees_nibbles else []


def fetch_command(arch: ArchConfig) -> data.StructLayout:
    """What the fetch gets of a MATMUL; for a map, the dispatcher multiplies."""
    members = _command(
        *_FETCH_FIELDS, *(["row_scale"] if arch.row_sums else []), *_seen(arch),
        *(_FETCH_PATTERN if arch.patterns else []),
    ).members
    return data.StructLayout({**members, **(_FETCH_MAP if arch.patterns else {})})


def epilogue_command(arch: ArchConfig) -> data.StructLayout:
    """What the epilogue gets of a MATMUL.

    ``skipped``: MATMULs without rows just before, which only observers count.
    """
    members = _command(
        *_EPILOGUE_FIELDS, *(["stat_src"] if arch.row_sums else []), *_seen(arch),
        *(_EPILOGUE_PATTERN if arch.patterns else []),
    ).members
    return data.StructLayout({**members, "skipped": SEQ_BITS})


def instruction_layout(opcode: isa.Opcode) -> data.Layout:
    """The 512 bits of an instruction as a layout."""
    return data.FlexibleLayout(isa.INSTRUCTION_BYTES * 8, {
        name: data.Field(unsigned(bits), at)
        for name, (at, bits) in isa.FORMATS[opcode].layout.items()
    })


#: LOAD, STORE and LOAD_INDEX, bases added.  ``wait`` / ``wait_seq``: MATMUL to wait for.
MOVE_COMMAND = data.StructLayout({
    "opcode": isa.OPCODE_BITS,
    "address": memmap.ADDRESS_BITS,
    "addr": ADDR_BITS,          # token-memory address; first entry for LOAD_INDEX
    "stride": 12,
    "rows": 13,
    "words": 14,                # words of a row; entries for LOAD_INDEX
    "wide": 1,
    "wait": 1,
    "wait_seq": SEQ_BITS,
})

# Routing -------------------------------------------------------------------------------------
_ROUTE = isa.FORMATS[isa.Opcode.ROUTE]
EXPERT_BITS = index_bits(formats.MAX_EXPERTS)
#: ROUTE; ``wait_seq``: MATMUL to wait for.
ROUTE_COMMAND = data.StructLayout({
    **{field.name: unsigned(field.bits) for field in _ROUTE.fields
       if field.name != "wait_distance"},
    "wait_seq": SEQ_BITS,
})
#: What stands beside a row index: the row's gate weight, and whether its first expert has it.
GATE = data.StructLayout({"weight": formats.GATE_BITS, "first": 1})
#: An expert that a row goes to.
CHOICE = data.StructLayout({"expert": EXPERT_BITS, "gate": GATE})
#: Some logits of a row: those of experts ``ROUTE_LANES * group`` and on.
ROUTE_LOGITS = data.StructLayout({
    "logits": data.ArrayLayout(signed(formats.RESIDUAL_BITS), ROUTE_LANES),
    "lanes": ROUTE_LANES,       # the expert exists
    "group": index_bits(formats.MAX_EXPERTS // ROUTE_LANES),
    "last": 1,                  # of the row
})
#: The chosen experts of a row, best first.
ROUTE_CHOSEN = data.StructLayout({
    "logits": data.ArrayLayout(signed(formats.RESIDUAL_BITS), formats.MAX_CHOICES),
    "experts": data.ArrayLayout(EXPERT_BITS, formats.MAX_CHOICES),
    "lowest": EXPERT_BITS,      # number of an expert
})
#: Their softmax weights, and the sum of all weights that the row counts.
ROUTE_WEIGHTS = data.StructLayout({
    "weights": data.ArrayLayout(formats.ROUTE_BITS, formats.MAX_CHOICES),
    "experts": data.ArrayLayout(EXPERT_BITS, formats.MAX_CHOICES),
    "lowest": EXPERT_BITS,
})
ROUTE_TOTAL = data.StructLayout({"total": formats.SOFTMAX_SUM_BITS})
#: An expert's queue in the row-index memory.
QUEUE = data.StructLayout({
    "start": _ROUTE.field("base").bits, "count": _ROUTE.field("rows").bits,
})

# Progress ------------------------------------------------------------------------------------
ROW_BITS = 13
EPILOGUE_PROGRESS = data.StructLayout(
    {"seq": SEQ_BITS, "last_tile": 1, "row": ROW_BITS, "tiles_done": SEQ_BITS}
)
#: ``seq``: number of the instruction being fetched (or the next one when idle).
FETCH_PROGRESS = data.StructLayout({"seq": SEQ_BITS})
#: ``seq``: loads finished (number of the current or next load); ``words`` of the current one.
MOVER_PROGRESS = data.StructLayout({"seq": SEQ_BITS, "words": 26})
#: ``tile``: global c tile in progress (all before are complete); ``row``: rows of it complete.
DRAIN_PROGRESS = data.StructLayout({"tile": SEQ_BITS, "row": ROW_BITS})

# Row fetch → transform → matrix unit → accumulator ---------------------------------------------
STAT = data.StructLayout({
    "mean": signed(formats.RESIDUAL_BITS + formats.MEAN_FRAC),
    "shift": 5,
    "mantissa": formats.RSQRT_FRAC + 1,
})


def tag_layout(arch: ArchConfig) -> data.StructLayout:
    """What travels with a row: its accumulator row and its place in the tile."""
    return data.StructLayout({
        "row": index_bits(arch.max_rows),
        "first": 1,      # k tile 0: overwrite the partial sum
        "last": 1,       # last k tile: result goes to the drain memory
        "final": 1,      # last row of the pass
        "swap": 1,       # first row of the pass: shadow becomes active before this row
        "sum": 1,        # EXP2 in c tile 0: gather the row sum
        "sum_bank": 1,
        # Stationary bytes are pairs of nibbles; the pass has two c tiles (the last may have one).
        **({"nibbles": 1} if arch.sees_nibbles else {}),
        **({"paired": 1} if arch.nibble_tiles > 1 else {}),
    })


def mode_bits(arch: ArchConfig) -> int:
    """Bits of a transform that the core has."""
    return 3 if arch.products else 2


def transform_input(arch: ArchConfig) -> data.StructLayout:
    """A fetched word with everything its transform needs."""
    return data.StructLayout({
        "lo": 8 * arch.depth,
        "hi": 8 * arch.depth,
        "mode": mode_bits(arch),                     # modes.Transform
        "stat": STAT,                                # SCALE, PRODUCT: the instruction's factor
        "gain": 8 * arch.depth,
        "lanes": index_bits(arch.depth + 1),         # valid elements; the others become zero
        "tag": tag_layout(arch),
    })


def operand_layout(arch: ArchConfig) -> data.StructLayout:
    """A transformed word."""
    return data.StructLayout({
        "data": data.ArrayLayout(signed(formats.OPERAND_BITS), arch.depth),
        "tag": tag_layout(arch),
    })


# Loader outputs --------------------------------------------------------------------------------
def tile_write(arch: ArchConfig) -> data.StructLayout:
    """K, 2K or 4K bytes into the shadow tile.

    ``columns`` 0: ``data`` is the depth vector of column ``index``.  ``columns`` 1: ``data`` are
    depth position ``index`` of columns ``group*K …`` (C >= K), or in its low C bytes of all
    columns (C < K).

    With ``stored_weights`` and ``columns`` 0, an odd column takes ``high``: a copy of ``data``, or
    with ``pair``, when ``data`` and ``high`` are the depth vectors of columns ``2*index`` and
    ``2*index + 1``.  With ``tile_quads``, columns ``4*i + 2`` and ``4*i + 3`` take the two vectors
    of ``more``: copies of the others, or with ``quad``, when ``data`` and ``high`` are those of
    columns ``4*index`` and ``4*index + 1``, the next two.  With ``nibbles`` (of a core in
    ``nibble_thirds``), ``data`` is word ``index`` of the tile's stream: that of byte column
    ``2*index``, and from word C/2 on those of ``4*i + 1`` and ``4*i + 3``; with ``pair`` besides,
    ``data`` and ``high`` are words ``2*index`` and ``2*index + 1`` of
    :func:`~vitrify.arch.memmap.stored_thirds`.
    """
    return data.StructLayout({
        "columns": 1,
        "index": index_bits(max(arch.width, arch.depth)),
        "group": index_bits(max(1, arch.width // arch.depth)),
        "data": 8 * arch.depth,
        **({"pair": 1, "high": 8 * arch.depth} if arch.stored_weights else {}),
        **({"quad": 1, "more": 16 * arch.depth} if arch.tile_quads else {}),
        **({"nibbles": 1} if arch.nibble_thirds else {}),
    })


def param_write(arch: ArchConfig) -> data.StructLayout:
    """One stream word of bias and multipliers of lane group ``group``."""
    return data.StructLayout({
        "slot": index_bits(arch.param_slots),
        "group": index_bits(arch.most_groups),
        "word": index_bits(arch.param_words),
        "data": 8 * arch.depth,
    })


def table_write(arch: ArchConfig) -> data.StructLayout:
    """K entries of an activation table."""
    return data.StructLayout(
        {"slot": 1, "word": index_bits(arch.table_words), "data": 8 * arch.depth}
    )


def gain_write(arch: ArchConfig) -> data.StructLayout:
    """Gains of K input channels."""
    return data.StructLayout(
        {"slot": 1, "word": index_bits(arch.max_dim_words), "data": 8 * arch.depth}
    )


# Memories --------------------------------------------------------------------------------------
def pair_bits(arch: ArchConfig) -> int:
    """Bits of :func:`bank_pair`."""
    return ADDR_BITS - exact_log2(arch.bank_words)


def bank_pair(arch: ArchConfig, addr: Value, wide: Value) -> Value:
    """Pair of banks of a token-memory address."""
    bank = addr[exact_log2(arch.bank_words):]
    return Mux(wide, bank, bank >> 1)


def in_bank(arch: ArchConfig, bank: int, pair: Value, addr: Value, wide: Value) -> Value:
    """Whether an access to ``pair`` (:func:`bank_pair`) needs ``bank``."""
    odd = addr[exact_log2(arch.bank_words)]
    return (pair == bank // 2) & (wide | (odd == bank % 2))


def bank_choice(arch: ArchConfig, addr: Value, wide: Value) -> Value:
    """One bit for each bank that a token-memory address needs."""
    pair = bank_pair(arch, addr, wide)
    return Cat(*(in_bank(arch, bank, pair, addr, wide) for bank in range(arch.banks)))


def read_client(arch: ArchConfig) -> wiring.Signature:
    """Token-memory read, seen from the reader.

    A request is taken in a cycle with ``valid & ready``; ``lo`` (and ``hi`` when wide) carry its
    data READ_LATENCY cycles later.  ``addr`` is a word address, or a pair address when ``wide``.
    """
    return wiring.Signature({
        "valid": Out(1), "wide": Out(1), "addr": Out(ADDR_BITS), "ready": In(1),
        "lo": In(8 * arch.depth), "hi": In(8 * arch.depth),
    })


def fetch_client(arch: ArchConfig) -> wiring.Signature:
    """As :func:`read_client`; ``pair`` is :func:`bank_pair` of the address, from a register."""
    return wiring.Signature({**read_client(arch).members, "pair": Out(pair_bits(arch))})


def piece_client(arch: ArchConfig) -> wiring.Signature:
    """Token-memory read of E bytes of both words of a pair, seen from the reader.

    As :func:`read_client`, always wide; the bytes come PIECE_LATENCY cycles later.
    """
    return wiring.Signature({
        "valid": Out(1), "addr": Out(ADDR_BITS), "ready": In(1),
        "piece": Out(index_bits(arch.depth // arch.lanes)),
        "lo": In(8 * arch.lanes), "hi": In(8 * arch.lanes),
    })


def write_client(arch: ArchConfig) -> wiring.Signature:
    """Token-memory write, seen from the writer; ``mask`` has one bit for each E bytes.

    ``pair`` and ``banks`` are :func:`bank_pair` and :func:`bank_choice` of the address, from
    registers: arbitration begins with them.
    A narrow word is on ``lo`` and on ``hi``, so that no bank has to choose.
    """
    return wiring.Signature({
        "valid": Out(1), "wide": Out(1), "addr": Out(ADDR_BITS), "ready": In(1),
        "pair": Out(pair_bits(arch)), "banks": Out(arch.banks),
        "mask": Out(arch.depth // arch.lanes),
        "lo": Out(8 * arch.depth), "hi": Out(8 * arch.depth),
    })


def stat_write(arch: ArchConfig) -> data.StructLayout:
    """One entry of the row statistics memory."""
    return data.StructLayout({"addr": index_bits(arch.stat_rows), "stat": STAT})


# Memory port (internal side of the AXI master) ---------------------------------------------------
#: ``words`` words of K bytes from byte ``address`` on (a multiple of K).
MEMORY_REQUEST = data.StructLayout({"address": memmap.ADDRESS_BITS, "words": 26})


def memory_read(arch: ArchConfig) -> wiring.Signature:
    """A reader of DRAM: requests out, words of K bytes in, in order."""
    return wiring.Signature({
        "request": Out(stream.Signature(MEMORY_REQUEST)),
        "data": In(stream.Signature(unsigned(8 * arch.depth))),
    })


def memory_write(arch: ArchConfig) -> wiring.Signature:
    """A writer of DRAM: request, then its words; ``done`` pulses when it is in memory."""
    return wiring.Signature({
        "request": Out(stream.Signature(MEMORY_REQUEST)),
        "data": Out(stream.Signature(unsigned(8 * arch.depth))),
        "done": In(1),
    })
