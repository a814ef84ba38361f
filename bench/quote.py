"""``python -m bench.quote``: figures of README and documents, from the results on file.

A table between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->`` is written here and
nowhere else; a test compares.  A result counts only under the conditions of today's preset (clock,
ports, memory: :mod:`bench.conditions`).  What the estimator says and no simulation says "estimate".
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from bench import area, backend_score, quantised_study
from bench.cases import ROOT
from bench.conditions import current
from bench.measure import RESULTS
from vitrify.arch.area import COEFFICIENTS, ERROR, unit_area
from vitrify.arch.boards import BOARDS, STANDALONE_BOARDS, standalone
from vitrify.arch.power import PUBLISHED, by_density, power
from vitrify.arch.presets import PRESETS
from vitrify.boards.clock import CALIBRATION

FILES = (
    "README.md", "docs/backend.md", "docs/boards.md", "docs/estimate.md", "docs/experts.md",
    "docs/numerics.md", "docs/resources.md",
)
#: Between its two marks, the text of a figure.
MARKED = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end of figures -->)", re.S)

#: Works that ran M³ViT on a ZCU102 at 300 MHz, measured on the board: their tables.
M3VIT_PEERS = {"Edge-MoE": 34.64, "UbiMoE": 25.76, "CoQMoE": 6.47}
_PARTS = {"ulx3s": "ECP5-85F", "ulx3s-w4": "ECP5-85F",
          "colorlight-i9": "ECP5-45F", "schoko": "ECP5-45F", "pynq-z2": "XC7Z020", "kv260": "XCK26",
          "kv260-w4": "XCK26", "zcu102": "XCZU9EG", "reference": "XCZU9EG"}
_REMARKS = {
    "nano": "every mechanism in 32 multipliers, for simulation",
    "reference": "the point of comparison",
    "ulx3s": "open tools",
    "ulx3s-w4": "twice the products where weights have four bits",
    "colorlight-i9": "open tools",
    "schoko": "open tools",
    "pynq-z2": "two products a DSP48E1",
    "kv260": "two products a DSP48E2, UltraRAM",
    "kv260-w4": "three products a DSP48E2 where weights have four bits",
    "zcu102": "two products a DSP48E2",
}
_ONE_PICTURE = (
    ("vit_tiny_imagenet", "ViT-tiny, ImageNet", 197), ("vit_small_shape", "ViT-small, shape", 197),
    ("vit_base_shape", "ViT-base, shape", 197),
    ("vit_tiny_384_shape", "ViT-tiny, 384 × 384", 577),
    ("vit_tiny_512_shape", "ViT-tiny, 512 × 512", 1025),
    ("m3vit_tiny_shape", "M³ViT-tiny, shape, 16 experts", 129),
    ("m3vit_tiny_shape_x4", "the same, four images a job", 129),
)


def fresh(case: str, arch: str) -> dict[str, Any] | None:
    """A result on file; ``None`` if there is none of today's preset: then nobody quotes it."""
    path = RESULTS / f"{case}_{arch}.json"
    found = json.loads(path.read_text()) if path.is_file() else None
    return found if found and current(found) else None


def result(case: str, arch: str) -> dict[str, Any]:
    """A result that has to be there; the error says how to renew it."""
    found = fresh(case, arch)
    if found is None:
        raise ValueError(
            f"{case} on {arch} was not measured on today's preset; run "
            f"`python -m bench --model {case} --arch {arch}` (or with --estimate)"
        )
    return found


def milliseconds(found: dict[str, Any]) -> float:
    """Of one image."""
    return found["cycles"] / found["images"] / found["clock_mhz"] / 1e3


def _how(found: dict[str, Any]) -> str:
    return "estimate" if found["backend"] == "estimate" else "RTL"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _table(heads: tuple[str, ...], rows: list[str]) -> str:
    return "\n".join([_row(*heads), "|" + "---|" * len(heads), *rows])


def _figures(found: dict[str, Any]) -> tuple[str, str, str, str]:
    cycles = found["cycles"]
    return (f"{round(cycles / found['images']):,}", f"{milliseconds(found):.2f} ms",
            f"{found['roofline_cycles'] / cycles:.1%}".replace("%", " %"), _how(found))


def _left_out(found: dict[str, Any]) -> str:
    """Share of the model's multiplications that are for rows that nothing reads."""
    left_out = found.get("macs_left_out", 0)
    share = left_out / (found["macs"] + left_out)
    return f"{share:.1%}".replace("%", " %") if left_out else "none"


def presets() -> str:
    """What the cores are, and what the build gives them."""
    rows = []
    for arch in PRESETS.values():
        ports = f"{arch.ports} × {8 * arch.port_bytes} bit" if arch.ports > 1 else (
            f"{8 * arch.port_bytes} bit")
        rows.append(_row(
            f"`{arch.name}`", f"{arch.width} × {arch.depth}", _PARTS.get(arch.name, "any"),
            f"{arch.clock_mhz:g} MHz", ports,
            f"{arch.dram.sustained / 1e9:.2g} GB/s" if arch.dram.bandwidth else "ideal",
            _REMARKS[arch.name],
        ))
    return _table(("preset", "C × K", "part", "clock", "memory ports", "DRAM sustains", ""), rows)


def one_picture() -> str:
    """Vision transformers on the KV260's core."""
    rows = [
        _row(title, f"{tokens:,}", _left_out(found), *_figures(found))
        for case, title, tokens in _ONE_PICTURE if (found := fresh(case, "kv260"))
    ]
    clock = PRESETS["kv260"].clock_mhz
    return _table(("one picture, `kv260`", "tokens", "MACs left out", "cycles", f"at {clock:g} MHz",
                   "of the roofline", ""), rows)


def m3vit() -> str:
    """The sentence about M³ViT, peers' conditions beside it."""
    found = result("m3vit_tiny_shape", "zcu102")
    cycles, time, share, how = _figures(found)
    told = "in the simulated RTL" if how == "RTL" else "by the estimator"
    peers = ", ".join(f"{name} {value:.1f} ms" for name, value in M3VIT_PEERS.items())
    return (
        f"M³ViT on the `zcu102` that is built ({found['conditions']['ports']} HP ports of "
        f"{8 * found['conditions']['port_bytes']} bits, {found['clock_mhz']:g} MHz, "
        f"{found['conditions']['memory']}) takes {cycles} cycles {told}, {time}, {share} of "
        f"that system's roofline, everything included. It never saw a board. Published, measured "
        f"on that board at 300 MHz, with other formats (docs/peers.md): {peers}."
    )


def experts() -> str:
    """M³ViT, several images a job."""
    rows = []
    bytes_ = ("m3vit_tiny_shape", "m3vit_tiny_shape_x2", "m3vit_tiny_shape_x4")
    for arch, cases, bits in (
        ("kv260", bytes_, 8), ("kv260-w4", ("m3vit_tiny_shape_w4",), 4), ("zcu102", bytes_, 8),
    ):
        for case in cases:
            found = result(case, arch)
            cycles, time, share, how = _figures(found)
            megabytes = found["dram_read_bytes"] / found["images"] / 1e6
            rows.append(_row(f"`{arch}`", bits, found["images"], cycles, time,
                             f"{megabytes:.1f} MB", share, how))
    return _table(("core", "bits of experts' weights", "images a job", "cycles an image",
                   "at 200 MHz", "DRAM an image",
                   "of the roofline", ""), rows)


def boards() -> str:
    """The description of every board."""
    rows = []
    for board in BOARDS.values():
        arch, ports, memory = PRESETS[board.name], board.ports, board.memory
        rows.append(_row(
            board.name, board.part.name, f"{board.clock_mhz:g} MHz", board.clock_from,
            f"{arch.ports} of {ports.most}, {8 * ports.bytes} bit {ports.protocol}",
            f"{arch.bus_bytes * board.clock_mhz / 1e3:.2f} GB/s",
            f"{memory.name}: {memory.peak / 1e9:.2f} GB/s", f"{memory.efficiency:.0%}",
            memory.source,
        ))
    return _table(("board", "part", "clock", "which is", "memory ports in use", "they carry",
                   "DRAM and its peak", "of it sustained", "by"), rows)


def bitstreams() -> str:
    """What open tools made of each board's preset: the reports of ``vitrify build``."""
    rows = []
    for name in STANDALONE_BOARDS:
        path = RESULTS / "boards" / f"{name}.json"
        found, board, arch = json.loads(path.read_text()), BOARDS[name], PRESETS[name]
        used, timing, around = found["used"], found["timing"], standalone(board)
        wanted = (f"{arch.hash:08x}", board.clock_mhz, around.seed)
        if (wanted != (found["arch_hash"], timing["target_mhz"], found["seed"])
                or timing["achieved_mhz"] < board.clock_mhz):
            raise ValueError(
                f"the bitstream of {name} is not of today's preset, clock and seed; run "
                f"`vitrify build --board {name}` and copy its report.json to "
                f"{path.relative_to(ROOT)}"
            )
        rows.append(_row(
            f"`{name}`", *(f"{used[kind]:,.0f} of {getattr(board.part, kind):,}"
                           for kind in ("luts", "ffs", "dsps", "brams")),
            f"{timing['target_mhz']:g} MHz", f"{timing['achieved_mhz']:.1f} MHz",
            " ".join(map(str, (around.seed, *around.nextpnr))),
            f"{found['bitstream']['bytes']:,} bytes",
        ))
    return _table(("board", "LUT4 equivalents", "flip-flops", "multipliers", "block RAMs",
                   "asked for", "nextpnr reaches", "with seed and option", "bitstream"), rows)


def error() -> str:
    """How far the estimator is off, where the RTL was simulated under today's conditions."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        if found.get("backend") != "rtl" or not current(found):
            continue
        off = found["estimated_cycles"] / found["cycles"] - 1
        rows.append(_row(found["model"], f"`{found['arch']}`", f"{found['cycles']:,}",
                         f"{found['estimated_cycles']:,}", f"{off:+.1%}".replace("%", " %")))
    return _table(("model", "core", "cycles in RTL", "estimate", "off by"), rows)


def ulx3s() -> str:
    """ViT-tiny on the board with open tools."""
    found = fresh("vit_tiny_imagenet", "ulx3s")
    if found is None:
        return "How fast it is at that clock is yet to be measured again."
    cycles, time, _, how = _figures(found)
    return (
        f"At {found['clock_mhz']:g} MHz a ViT-tiny for ImageNet ({cycles} cycles, {how}, with the "
        f"memory of the `ulx3s` preset) takes {time}, {1e3 / milliseconds(found):.1f} images a "
        f"second."
    )


def units() -> str:
    """Where LUTs go: the smallest core as it was synthesised, a large one by the model."""
    small, ecp5 = (area.known()[name]["units"] for name in ("a0", "a8"))
    arch = PRESETS["kv260"]
    told = {unit: unit_area(arch, *model) for unit, model in COEFFICIENTS["luts"].items()}
    whole = sum(told.values())
    rows = [
        _row(unit, *(f"{core[unit]['luts']:,.0f} / {core[unit]['ffs']:,.0f}" if unit in core else ""
                     for core in (small, ecp5)),
             f"{told[unit]:,.0f}", f"{told[unit] / whole:.0%}".replace("%", " %"))
        for unit in sorted(told, key=lambda unit: -told[unit])
    ]
    return _table(("unit", "4 × 4, XCZU9EG: LUT / FF", "4 × 4, ECP5: LUT4 / FF",
                   "`kv260`, by the model: LUT", "share"), rows)


def area_error() -> str:
    """How far the model of LUTs and flip-flops is off for cores that it has not seen."""
    data = area.known()
    unseen = [name for name in data if area.held_out(name)]
    worst = {kind: max(abs(area.errors(data, kind)[name]) for name in unseen)
             for kind in ("luts", "ffs")}
    sizes = [area.used(data[name], "luts") for name in unseen]
    return (
        f"fitted to {len(data) - len(unseen)} small cores, LUTs were within "
        f"{100 * worst['luts']:.1f} % and flip-flops within {100 * worst['ffs']:.1f} % of "
        f"{len(unseen)} cores that the fit had not seen ({min(sizes):,.0f} to "
        f"{max(sizes):,.0f} LUTs). So few cores are no bound: tables and `fits` allow for "
        f"± {100 * ERROR['luts']:.0f} % of LUTs and ± {100 * ERROR['ffs']:.0f} % of flip-flops."
    )


def published_power() -> str:
    """Watts of published designs, and what the others of them tell of each."""
    known = PUBLISHED["xcup"]
    rows = []
    for design in known:
        rest = tuple(other for other in known if other is not design)
        told = by_density(rest, design.luts, design.clock_mhz).watts
        rows.append(_row(design.work, design.source, design.part, f"{design.luts:,}",
                         f"{design.clock_mhz:g} MHz", f"{design.watts:g} W",
                         f"{design.density:.3f} W", f"{told:.1f} W"))
    return _table(("work", "source", "board or part", "LUTs", "clock", "took",
                   "for 1,000 LUTs at 100 MHz", "predicted from the others"), rows)


def preset_power() -> str:
    """Watts of presets while they work, and of one ViT-tiny."""
    rows = []
    for arch in PRESETS.values():
        found = power(arch)
        if found is None or arch.part.family == "none":
            continue
        result = fresh("vit_tiny_imagenet", arch.name)
        rate = 1e3 / milliseconds(result) if result else None
        rows.append(_row(
            f"`{arch.name}`", f"{found.watts:.1f} W", f"{found.least:.1f} to {found.most:.1f} W",
            *((f"{rate:.0f}", f"{1e3 * found.watts / rate:.0f} mJ", f"{rate / found.watts:.0f}")
              if rate else ("", "", "")),
        ))
    return _table(("core", "power", "range", "ViT-tiny: images a second", "an image",
                   "images a second per watt"), rows)


def clock_calibration() -> str:
    """Placed cores that the range of clocks is calibrated on."""
    return _table(("placed by nextpnr", "MHz", "factor on wires"), [
        _row(name, f"{mhz:.1f}", f"{factor:.2f}") for name, (mhz, factor) in CALIBRATION.items()
    ])


FIGURES = {
    "presets": presets, "one-picture": one_picture, "m3vit": m3vit, "experts": experts,
    "boards": boards, "bitstreams": bitstreams, "error": error, "ulx3s": ulx3s, "units": units,
    "area-error": area_error, "published-power": published_power, "preset-power": preset_power,
    "backend": lambda: backend_score.outcomes(backend_score.on_file()).rstrip(),
    "backend-reasons": lambda: backend_score.reasons(backend_score.on_file()).rstrip(),
    "backend-operators": lambda: backend_score.operators(backend_score.on_file()).rstrip(),
    "clock-calibration": clock_calibration,
    **{f"quantised-{name}": functools.partial(quantised_study.on_file, name)
       for name in ("digits_vit", "cifar10_vit", "cifar10_moe_vit")},
}


def quoted(text: str) -> str:
    """``text`` with every marked figure as it is now."""
    return MARKED.sub(lambda found: f"{found[1]}{FIGURES[found[2]]()}\n{found[3]}", text)


def main() -> None:
    """Write the figures into the documents."""
    for name in FILES:
        path = ROOT / name
        before = path.read_text()
        after = quoted(before)
        if after != before:
            path.write_text(after)
            print(f"{name}: written")


if __name__ == "__main__":
    main()
