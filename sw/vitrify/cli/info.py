"""``vitrify info``: what is in a program, a model or an architecture, and where it would run."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from pathlib import Path
from typing import Any

from vitrify.arch.config import ArchConfig
from vitrify.arch.estimate import estimate
from vitrify.arch.isa import WITH_PARAMETERS
from vitrify.arch.load import YAML_SUFFIXES
from vitrify.arch.load import load as load_arch
from vitrify.arch.presets import PRESETS
from vitrify.arch.quantised import is_quantised
from vitrify.program import Application, Program
from vitrify.program.pack import given_form
from vitrify.runtime import open_model
from vitrify.runtime.routing import routes
from vitrify.runtime.statistics import of_program

from .emit import summary
from .layers import add_layers, alike
from .models import Sizes, kept
from .options import add_input_shape, add_json, human_bytes
from .parts import core_share, of_application, of_pieces, show_parts
from .terminal import new_table, print_json, show


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "info",
        help="show what is in a program, a model or a preset",
        description="Contents, sizes, op table, and where it would run.",
    )
    parser.add_argument("what", metavar="OUT.vfy|MODEL.onnx|PRESET|FILE.yaml")
    add_input_shape(parser)
    add_layers(parser)
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    what = options.what
    path = Path(what)
    if what in PRESETS or path.suffix.lower() in YAML_SUFFIXES:
        data = of_arch(load_arch(what))
    elif not path.exists() and not path.suffix:
        data = of_arch(load_arch(what))  # the error lists the presets
    else:
        model = open_model(path)
        match model:
            case Application():
                data = of_parts(model)
            case Program():
                data = of_compiled(model)
            case _:
                data = of_model(model, options.input_shape)
    if options.json:
        print_json(data)
    else:
        _show(data, every_layer=options.layers)


def of_arch(arch: ArchConfig) -> dict[str, Any]:
    """Facts of an architecture."""
    return {
        "kind": "arch",
        "name": arch.name,
        "hash": f"{arch.hash:08x}",
        "macs": f"{arch.macs} a cycle ({arch.depth} deep x {arch.width} wide)",
        "epilogue": f"{arch.lanes} lanes, {arch.groups} groups a tile",
        "token memory": f"{human_bytes(arch.token_bytes)} in {arch.banks} banks",
        "rows a tile": arch.max_rows,
        "bus": f"{arch.bus_bytes} bytes a cycle"
        + (f", {arch.ports} ports of {arch.port_bytes}" if arch.ports > 1 else ""),
        "weight demand": f"{arch.macs / arch.max_rows:.1f} bytes a cycle at {arch.max_rows} rows",
        "clock": f"{arch.clock_mhz:g} MHz, {2e-3 * arch.macs * arch.clock_mhz:.1f} GOP/s at most",
        "part": arch.part.name,
        "estimate": summary(estimate(arch)),
        "settings": arch.to_dict(),
    }


def of_compiled(program: Program) -> dict[str, Any]:
    """Facts of a program."""
    arch, spec = program.arch, program.input
    cost = of_program(program, "info", program.batch)
    fitting = [p.name for p in PRESETS.values() if p.hash == arch.hash]
    cycles = program.roofline_cycles
    return {
        "kind": "program",
        "name": program.model,
        "arch": f"{arch.name} ({arch.hash:08x})",
        "runs on": ", ".join(fitting) or f"its own architecture {arch.name!r} only",
        "input": f"{spec.name} float32 {given_form(spec)}",
        "preprocess": spec.preprocess or "not stored",
        "outputs": ", ".join(
            f"{o.name} {o.dtype} [N, {', '.join(map(str, o.shape))}]" for o in program.outputs
        ),
        **({"tasks": ", ".join(f"{t.name} 0 to {t.count - 1}" for t in program.tasks)}
           if program.tasks else {}),
        **({"images a job": program.batch} if program.batch > 1 else {}),
        **_experts(program),
        **_weights(program),
        **_quantisers(program),
        "instructions": program.instruction_count,
        "image": human_bytes(len(program.image)),
        "macs": program.macs,
        "dram an image": human_bytes(program.dram_bytes / program.batch)
        + (", if every expert is asked for" if _experts(program) else ""),
        "roofline": f"{cycles:,} cycles, {cycles / arch.clock_mhz / 1e3:.3f} ms at "
        f"{arch.clock_mhz:g} MHz",
        **{
            key: value
            for key, value in program.metadata.items()
            if isinstance(value, int | float | str)
        },
        "layers": [layer.to_dict() for layer in cost.layers],
    }


def of_parts(application: Application) -> dict[str, Any]:
    """Facts of an application in parts, and of each program in it."""
    arch, rows = application.arch, of_application(application)
    return {
        "kind": "application",
        "name": application.model,
        "arch": f"{arch.name} ({arch.hash:08x})",
        "input": ", ".join(
            f"{spec.name} {getattr(spec, 'dtype', 'float32')} {given_form(spec)}"
            for spec in application.inputs
        ),
        "preprocess": application.preprocess or "not stored",
        "outputs": ", ".join(
            f"{o.name} {o.dtype} [{', '.join(str(n or 'N') for n in o.shape)}]"
            for o in application.results()
        ),
        "macs": application.macs,
        "on the core": f"{100 * core_share(rows):.1f} % of the multiplications",
        "parts": rows,
        "programs": [of_compiled(program) for program in application.programs],
    }


def _experts(program: Program) -> dict[str, str]:
    """Experts and choices of every layer that has some."""
    kinds = Counter(f"{route.choices} of {route.experts}" for route in routes(program))
    if not kinds:
        return {}
    return {"experts": ", ".join(f"{kind} in {n} layers" for kind, n in kinds.items())}


def _weights(program: Program) -> dict[str, str]:
    """How many layers have weights of four bits, if any has."""
    ops = list(program.instructions())
    bits = {
        layer.name: 4 if ops[layer.instruction].nibbles else 8 for layer in program.layers
        if ops[layer.instruction].stationary in WITH_PARAMETERS
    }
    narrow = sum(each == 4 for each in bits.values())
    if not narrow:
        return {}
    return {"weights": f"4 bits in {narrow} layers, 8 in {len(bits) - narrow}"}


def _quantisers(program: Program) -> dict[str, Any]:
    """What became of the formats of a model that was quantised already."""
    facts = program.metadata.get("quantisers")
    if facts is None:
        return {}
    more = {"changes left out": facts["left_out"]} if facts["left_out"] else {}
    return {"quantisers": kept(facts), **more, "changed": facts["changed"]}


def of_model(path: Path, size: Sizes | None = None) -> dict[str, Any]:
    """Facts of an ONNX model: as exported, and as the core would see it."""
    from vitrify import frontend
    from vitrify.arch.errors import ModelError
    from vitrify.compiler.partition import plan

    model = frontend.load(path, size, any_inputs=True)
    data: dict[str, Any] = {
        "kind": "model",
        "name": path.name,
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "opset": ", ".join(f"{d or 'ai.onnx'} {v}" for d, v in model.opset_imports.items()),
        "input": ", ".join(f"{value.name} {value.shape}" for value in model.graph.inputs
                           if value.name not in model.graph.initializers),
        "outputs": ", ".join(f"{o.name} {o.shape}" for o in model.graph.outputs),
        "parameters": sum(
            int(v.const_value.size)
            for v in model.graph.initializers.values()
            if v.const_value is not None
        ),
        "ops": dict(Counter(node.op_type for node in model.graph).most_common()),
    }
    try:
        canonical = plan(model)
    except ModelError as error:
        return data | _of_refused(model, error)
    need = _least_memory(canonical.graph)
    macs = sum(_macs(node) for node in canonical.graph)
    weights = sum(
        int(v.const_value.size)
        for v in canonical.graph.initializers.values()
        if v.const_value is not None and len(v.const_value.shape) > 1
    )
    if is_quantised(node.op_type for node in model.graph):
        data["saturation"] = "bounds at zero are taken for ReLU; compile asks its images"
    data |= {
        "on the core": "yes",
        "canonical ops": dict(Counter(n.op_type for n in canonical.graph).most_common()),
        "macs": macs,
        "at best": {a.name: _at_best(a, macs, weights, need) for a in PRESETS.values()},
    }
    return data


def _of_refused(model: Any, refusal: Exception) -> dict[str, Any]:
    """How a model would be cut that the core does not run as a whole."""
    from vitrify.arch.errors import ModelError, UnsupportedOpError
    from vitrify.compiler.partition import cut
    from vitrify.frontend import ModelInputError

    said = {"on the core": f"no: {' '.join(str(refusal).split())}"}
    if not isinstance(refusal, UnsupportedOpError | ModelInputError):
        return said
    try:
        rows = of_pieces(cut(model)[1])
    except ModelError:
        return said
    share = f"in parts, with {100 * core_share(rows):.1f} % of the multiplications"
    return {"on the core": share, "parts": rows}


def _at_best(arch: ArchConfig, macs: int, weights: int, need: int) -> str:
    if need > arch.token_bytes:
        return f"does not fit: {human_bytes(need)} of activations at least"
    cycles = max(-(-macs // arch.macs), math.ceil(weights / arch.dram_bytes))
    return f"{cycles:,} cycles, {cycles / arch.clock_mhz / 1e3:.3f} ms"


def _least_memory(graph: Any) -> int:
    """Bytes of activations that live at once at least: a residual and a linear layer's result."""
    from vitrify.ir import shape_of

    sizes = {
        kind: [
            math.prod(int(n) for n in shape_of(node.outputs[0])[1:])
            for node in graph
            if node.op_type == kind
        ]
        for kind in ("Add", "Linear")
    }
    return 2 * max(sizes["Add"], default=0) + max(sizes["Linear"], default=0)


def _macs(node: Any) -> int:
    """Exact multiply-accumulates of a canonical node, one image."""
    from vitrify.ir import attributes_of, shape_of

    # of an image, or of a parameter without its first axis
    out, first, *rest = (
        [int(size) for size in shape_of(value)[1:]] for value in (node.outputs[0], *node.inputs)
    )
    attributes = attributes_of(node)
    match node.op_type:
        case "PatchEmbed" | "Linear" | "TaskLinear" | "Mix":
            return math.prod(out) * rest[0][-1]
        case "ImageConv" | "Conv":
            return math.prod(out) * math.prod(rest[0])
        case "Experts":
            return first[0] * 2 * math.prod(rest[1]) * attributes["k"]
        case "Attention" | "RoutedHeads" | "BalancedHeads":
            heads = attributes["heads"]
            chosen = heads - rest[2][-1] + attributes["k"] if rest[2:] else heads
            return 2 * first[0] * math.prod(first) * chosen // heads
        case "CrossAttention" | "RelativeAttention":
            keys, values = rest[:2]
            return first[0] * (keys[0] // attributes["groups"]) * (first[1] + values[1])
        case "Product":
            turned = attributes["layout"] == "nt"
            size, parts = (rest[0][0], "groups") if turned else (rest[0][1], "heads")
            return math.prod(first) * size // attributes[parts]
    return 0


#: Columns of the layer table behind its name: heading, key, unit.
_COLUMNS = (
    ("MACs (M)", "macs", 1e6),
    ("weights (KiB)", "dram_read_bytes", 1024),
    ("cycles at least", "roofline_cycles", 1),
)


def _show(data: dict[str, Any], *, every_layer: bool) -> None:
    """Key and value lines, then the tables."""
    facts = new_table(box=None, show_header=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for key, value in data.items():
        if isinstance(value, dict) and key != "settings":
            facts.add_row(key, "\n".join(f"{k}  {v}" for k, v in value.items()))
        elif not isinstance(value, dict | list):
            facts.add_row(
                key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)
            )
    show(facts)
    if data.get("parts"):
        show_parts(data["parts"])
    if data.get("changed"):
        table = new_table(box=None)
        for heading in ("changed", "in the file", "on the core", "why"):
            table.add_column(heading)
        for row in data["changed"]:
            table.add_row(row["tensor"], row["file"], row["core"], row["why"])
        show(table)
    for program in data.get("programs", []):
        _show(program, every_layer=every_layer)
    if data.get("layers"):
        table = new_table("layer", box=None)
        for heading, _, _ in _COLUMNS:
            table.add_column(heading, justify="right")
        layers = [(layer["name"], layer) for layer in data["layers"]]
        groups = [(name, [layer]) for name, layer in layers] if every_layer else (
            alike(layers).items()
        )
        for name, group in groups:
            sums = [(sum(layer[key] for layer in group), unit) for _, key, unit in _COLUMNS]
            table.add_row(name, *(
                f"{total:,}" if unit == 1 else f"{total / unit:,.2f}" for total, unit in sums
            ))
        show(table)
