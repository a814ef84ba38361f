"""Every setting of an architecture: its values, what it means, what it trades.

The table of ``docs/architectures.md`` and the JSON schema for editors are written from here; a test
holds names and bounds against :class:`~vitrify.arch.config.ArchConfig`.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from .config import ArchConfig, Part
from .dram import Dram
from .errors import ConfigError
from .presets import PRESETS


@dataclass(frozen=True)
class Setting:
    """Values from ``low`` to ``high`` in steps (``power``: of two); ``bool`` without bounds."""

    low: int | None
    high: int | None
    step: str
    meaning: str
    trades: str

    @property
    def values(self) -> str:
        """In words."""
        if self.low is None:
            return "true, false"
        return f"{self.low} … {self.high}, {self.step}"

    def allows(self, value: int) -> bool:
        """Whether it is one of them, whatever the other settings are."""
        if self.low is None or self.high is None:
            return isinstance(value, bool)
        return self.low <= value <= self.high and not (
            (self.step == _POWER and value & (value - 1)) or (self.step == _EVEN and value % 2)
        )


_POWER, _EVEN, _WHOLE = "a power of two", "even", "an integer"


def _flag(meaning: str, trades: str) -> Setting:
    return Setting(None, None, "", meaning, trades)


SETTINGS: dict[str, Setting] = {
    "depth": Setting(4, 128, _POWER, "K: depth of the dot products, bytes of a token-memory word",
                     "multipliers, and everything as wide as a word; padding where a layer is "
                     "not so deep"),
    "width": Setting(2, 256, _POWER, "C: dot products side by side",
                     "multipliers and accumulators; padding where a layer is not so wide"),
    "lanes": Setting(1, 128, _POWER, "epilogue lanes, no more than depth or width",
                     "LUTs; with few, results leave more slowly than they come"),
    "max_rows": Setting(16, 4096, _POWER, "rows that stream past one tile at most",
                        "accumulator RAM; with few, weights are fetched again for each block"),
    "banks": Setting(2, 64, _EVEN, "banks of the token memory, a read and a write a cycle each",
                     "RAM and multiplexers; with few, units wait for each other"),
    "bank_words": Setting(16, 1 << 16, _POWER, "words of a bank",
                          "RAM; activations that do not fit are an error of the compiler"),
    "stat_rows": Setting(16, 1 << 14, _POWER, "row statistics", "RAM; tokens times heads"),
    "index_entries": Setting(16, 1 << 14, _POWER, "row indices: queues of experts",
                             "RAM; tokens times choices"),
    "bus_bytes": Setting(1, 128, _POWER, "bytes a cycle of the DRAM bus, no more than depth",
                         "registers; narrow, and weights are what layers wait for"),
    "ports": Setting(1, 8, _POWER, "AXI ports that carry the bus together",
                     "FIFOs of each; what one port of the board is too narrow for"),
    "burst_beats": Setting(1, 256, _POWER, "longest burst; AXI3 takes 16",
                           "FIFO depth; memories that serve one burst at a time want long ones"),
    "outstanding": Setting(1, 64, _WHOLE, "bursts in flight, which cover the memory's latency",
                           "a few LUTs; with several ports, FIFO depth"),
    "weight_fifo_words": Setting(16, 1 << 14, _POWER, "words of weights fetched ahead",
                                 "RAM; short, and refreshes and other readers are felt"),
    "requant_bits": Setting(16, 27, _WHOLE, "bits of the requantisation multiplier",
                            "multipliers (18: an ECP5's, 24: a DSP48's); residuals' precision"),
    "experts": Setting(0, 64, _WHOLE, "experts that a router chooses from; 0: no router",
                       "LUTs, RAM, a few multipliers"),
    "stored_weights": _flag("weights may be loaded ahead into the token memory",
                            "LUTs; experts with few rows then take half the time"),
    "patterns": _flag("PATTERN: taps of a map, words by c tile, repetitions, old values elsewhere",
                      "LUTs; convolutions, pooling, windows"),
    "addends": _flag("ADD8: bytes are added before the rounding",
                     "LUTs of each lane; biases and masks of scores, skips of int8"),
    "products": _flag("PRODUCT: an operand is the product of two tensors",
                      "LUTs for each byte of a word; gated MLPs"),
    "row_sums": _flag("statistics RMS and SUM, rows divided by any sum",
                      "a RAM as large as the statistics; RMSNorm, linear and ReLU attention"),
    "nibbles": _flag("weights of the stream may have 4 bits",
                     "LUTs for each byte of a word; half the DRAM traffic of such layers"),
    "trellis": _flag("weights of 4 bits are trellis-coded, where the array multiplies bytes "
                     "(without nibble_tiles and nibble_thirds)",
                     "LUTs for each byte of a word; such layers then have two fifths less rounding "
                     "error"),
    "nibble_tiles": Setting(1, 2, _WHOLE,
                            "tiles that a pass computes with weights of 4 bits; 2: two products "
                            "share a multiplier (not with packing)",
                            "LUTs of each multiplier, accumulator RAM (48 for 28 bits of a "
                            "column); such layers then take half the time"),
    "nibble_thirds": _flag("with packing, a pair of columns is three columns of 4-bit weights",
                           "LUTs of each multiplier, accumulator RAM (80 for 56 bits of a pair); "
                           "such layers then take two thirds of the time (UltraScale+), and with "
                           "stored_weights may be loaded ahead"),
    "packing": _flag("two products share a DSP48", "half the multipliers for some LUTs; AMD only"),
    "tile_quads": _flag("tiles of stored_weights are written four columns a cycle, and many wait",
                        "registers beside the array, block RAM as wide as four words; experts with "
                        "very few rows then take up to half the time"),
    "fabric_multipliers": _flag("LayerNorm and gates multiply in LUTs",
                                "LUTs for 2·depth + lanes multipliers"),
}
#: Settings that say what stands around the core.
AROUND = {
    "name": "a name for files and modules (default: the file's)",
    "base": "a preset that the file changes; without it every setting is needed",
    "clock_mhz": "clock that reports turn cycles into time with",
    "part": "family and capacity of the FPGA",
    "dram": "latency, bursts in flight, bandwidth, refreshes, turn-arounds, rows of the memory",
}


def schema() -> dict[str, Any]:
    """JSON schema (2020-12) of an architecture file."""

    def number(setting: Setting) -> dict[str, Any]:
        found: dict[str, Any] = {"description": f"{setting.meaning} (trades: {setting.trades})"}
        if setting.low is None:
            return {"type": "boolean", **found}
        if setting.step == _POWER:
            powers = [1 << i for i in range(17) if setting.low <= 1 << i <= (setting.high or 0)]
            return {"enum": powers, **found}
        steps = {"multipleOf": 2} if setting.step == _EVEN else {}
        return {"type": "integer", "minimum": setting.low, "maximum": setting.high, **steps,
                **found}

    def nested(kind: type, description: str) -> dict[str, Any]:
        types = {"int": "integer", "float": "number", "str": "string"}
        return {
            "type": "object", "additionalProperties": False, "description": description,
            "properties": {
                field.name: {"type": types[str(field.type)]} for field in dataclasses.fields(kind)
            },
        }

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An architecture of a Vitrify core",
        "type": "object", "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "description": AROUND["name"]},
            "base": {"enum": list(PRESETS), "description": AROUND["base"]},
            **{name: number(setting) for name, setting in SETTINGS.items()},
            "clock_mhz": {"type": "number", "exclusiveMinimum": 0,
                          "description": AROUND["clock_mhz"]},
            "part": nested(Part, AROUND["part"]), "dram": nested(Dram, AROUND["dram"]),
        },
    }


def problems(values: dict[str, Any], sound: ArchConfig) -> list[str]:
    """Everything that is wrong with ``values``, each with a sentence; empty if nothing is.

    What is wrong is replaced by the setting of ``sound`` before the next look.
    """
    found: list[str] = []
    good, values = sound.to_dict(), dict(values)
    while len(found) <= len(good):
        try:
            ArchConfig.from_dict(values)
        except ConfigError as error:
            found.append(str(error))
            name = _culprit(str(error), values, good)
            if name is None:
                break
            if name in good:
                values[name] = good[name]
            else:
                del values[name]
        else:
            break
    return found


def _culprit(message: str, values: dict[str, Any], good: dict[str, Any]) -> str | None:
    """The setting that a message speaks of."""
    for pattern in (r"arch has no setting '([^']+)'", r"arch lacks the setting '(\w+)'",
                    r"^(dram|part)\b", r"^arch [^:]+: (\w+) (?:must|needs)"):
        if (match := re.search(pattern, message)) and match[1] in values.keys() | good.keys():
            return match[1]
    return None


def table() -> str:
    """Markdown of every setting."""
    rows = [f"| `{name}` | {s.values} | {s.meaning} | {s.trades} |" for name, s in SETTINGS.items()]
    rest = [f"| `{name}` | | {meaning} | |" for name, meaning in AROUND.items()]
    return "\n".join(("| setting | values | meaning | trades |", "|---|---|---|---|", *rows, *rest))
