"""``vitrify estimate``: cycles, bottlenecks and fit, without a simulation."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from vitrify.arch.config import ArchConfig
from vitrify.arch.estimate import fits
from vitrify.estimate import LIMITS, Estimate, LayerEstimate, estimate

from .emit import summary
from .layers import add_layers, alike
from .options import add_json, human_bytes
from .placed import add_program, placed_program, routing_of
from .terminal import new_table, print_json, progress_bar, say, show


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "estimate",
        help="predict the cycles of a program or a model on a core",
        description="Predict cycles and bottlenecks, layer by layer, from the waits of the "
        "core's engines; nothing is simulated.  A model is compiled first: without --calib "
        "with noise, which changes its numbers and hardly ever its cycles.",
    )
    add_program(parser)
    add_layers(parser)
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    program = placed_program(options)
    with progress_bar(f"estimating {program.model}") as bar:
        result = estimate(program, bar, routing_of(options, program))
    if options.json:
        print_json(result.to_dict())
    else:
        _show(result, every_layer=options.layers)


def _show(result: Estimate, *, every_layer: bool) -> None:
    """Facts, then a line a layer, or for those that are alike."""
    data, arch, cycles = result.to_dict(), result.arch, result.cycles
    lost = {name: count / cycles for name, count in result.lost.items()}
    memory = data["token_memory_bytes"]
    fit = {True: "fits", False: "does not fit", None: "no part"}[result.fits]
    if result.fits and not fits(arch, surely=True):
        fit = "may fit"
    values = {
        "model": f"{data['model']} on {arch.name}, {arch.macs} MACs a cycle",
        "cycles": f"{cycles:,}",
        "latency": f"{result.milliseconds:.3f} ms at {arch.clock_mhz:g} MHz, "
        f"{data['images_per_second']:.1f} images a second",
        "conditions": data["conditions"],
        "memory": _memory(arch),
        "utilisation": f"{data['utilisation']:.1%}, "
        f"{data['roofline_cycles'] / cycles:.1%} of the roofline",
        **_experts(result),
        "DRAM": f"{human_bytes(data['dram_read_bytes'] / result.program.batch)} in, "
        f"{human_bytes(data['dram_write_bytes'] / result.program.batch)} out an image",
        "token memory": "not stored in the program" if memory is None
        else f"{human_bytes(memory)} of {human_bytes(arch.token_bytes)}",
        "part": f"{arch.part.name}: {fit}, {summary(dict(result.resources))}",
        **_power(data["power"]),
        "lost": ", ".join(f"{name} {share:.1%}" for name, share in lost.items() if share > 1e-3),
        "bottleneck": data["bottleneck"],
    }
    facts = new_table(box=None, show_header=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for key, value in values.items():
        facts.add_row(key, value)
    show(facts)
    table = new_table(box=None)
    table.add_column("layer", overflow="fold")
    for name in ("MACs (M)", "KiB in", "cycles", "at least", "used"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bottleneck")
    groups = alike((layer.name, layer) for layer in result.layers)
    lines = result.layers if every_layer else [_sum(*group) for group in groups.items()]
    for layer in lines:
        table.add_row(
            layer.name, f"{layer.macs / 1e6:.2f}", f"{layer.dram_read_bytes / 1024:,.1f}",
            f"{layer.cycles:,}", f"{layer.roofline_cycles:,}", f"{layer.utilisation:.1%}",
            layer.bottleneck,
        )
    show(table)
    named = {layer.bottleneck for layer in lines} | {data["bottleneck"]}
    for name, meaning in LIMITS.items():
        if name in named:
            say(f"{name}: {meaning}")


def _sum(name: str, layers: list[LayerEstimate]) -> LayerEstimate:
    """Several layers as one."""
    cycles = sum(layer.cycles for layer in layers)
    lost: Counter[str] = Counter()
    for layer in layers:
        lost.update(layer.lost)
    return LayerEstimate(
        name, cycles, sum(layer.macs for layer in layers),
        sum(layer.dram_read_bytes for layer in layers),
        sum(layer.roofline_cycles for layer in layers),
        sum(layer.utilisation * layer.cycles for layer in layers) / max(1, cycles), lost,
    )


def _memory(arch: ArchConfig) -> str:
    """Ports, and what lies behind."""
    ports = f"{arch.ports} ports" if arch.ports > 1 else "one port"
    peak = arch.bus_bytes * arch.clock_mhz / 1e3
    behind = (
        f"{arch.dram.sustained / 1e9:.2f} GB/s sustained, refreshes, turn-arounds and row misses"
        if arch.dram.bandwidth else "an ideal memory"
    )
    return f"{ports} of {arch.port_bytes} bytes, {peak:.2f} GB/s each way; behind: {behind}"


def _three(value: float) -> str:
    """Three digits of a number, or all before its point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _power(found: dict[str, float] | None) -> dict[str, str]:
    """Watts and what they mean for an image."""
    if found is None:
        return {}
    return {
        "power": f"{found['watts']:.1f} W ({found['least_watts']:.1f} to "
        f"{found['most_watts']:.1f}), {_three(found['millijoules_an_image'])} mJ an image, "
        f"{_three(found['images_per_second_per_watt'])} images a second per watt; by the LUTs and "
        f"clocks of {found['published_designs']} published designs, never measured"
    }


def _experts(result: Estimate) -> dict[str, str]:
    """Where the routing is from, and how many experts it uses."""
    if result.routing is None:
        return {}
    used = sum(count > 0 for counts in result.routing.counts for count in counts)
    count = sum(map(len, result.routing.counts))
    source = {
        "uniform": "all alike; --input or --routing replays real pictures",
        "replayed": "of real pictures, replayed",
    }[result.routing.source]
    return {"experts": f"{used} of {count} in use, {source}"}
