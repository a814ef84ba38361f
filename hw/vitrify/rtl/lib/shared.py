"""Equal parts as instances of one Verilog module.

Amaranth elaborates and writes a module for every instance of a component, however many are equal;
for a matrix unit of 4096 multipliers that takes half a minute.  Parts placed with :func:`place`
are elaborated and written once::

    for lane in place(m, platform, lambda: Lane(arch), name="vitrify_lane", count=arch.depth):
        m.d.comb += lane.x.eq(...)

:func:`to_verilog` provides the platform that makes it work; under any other (Amaranth's simulator
has none) the parts are ordinary submodules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth import ClockSignal, Instance, Module, ResetSignal
from amaranth.back import verilog
from amaranth.lib import wiring

from .memories import annotate
from .netlists import quick


class VerilogPlatform:
    """Collects the Verilog modules that a design's instances need."""

    def __init__(self) -> None:
        #: Text of each shared part with everything below it, by module name.
        self.files: dict[str, str] = {}

    def add_file(self, name: str, text: str) -> None:
        """Take a module's text; the same name must mean the same module."""
        if self.files.setdefault(name, text) != text:
            raise ValueError(f"two different shared parts are called {name!r}")


def to_verilog(
    component: Any, name: str, family: str = "none", *, ports: list[Any] | None = None
) -> str:
    """Verilog text of a component and its shared parts, the same for every run.

    Parameters
    ----------
    component : a ``wiring.Component``, or with ``ports`` anything that can be elaborated
    name : of the top module
    family : of the part; chooses the attributes of memories
    ports : pads
    """
    platform = VerilogPlatform()
    top = _convert(component, name, platform, ports)
    return annotate("\n".join([top, *platform.files.values()]), family)


def _convert(
    component: Any, name: str, platform: VerilogPlatform, ports: list[Any] | None = None
) -> str:
    with quick():
        return verilog.convert(
            component, name=name, platform=platform, ports=ports, emit_src=False,
            strip_internal_attrs=True,
        )


def place(
    m: Module, platform: Any, make: Callable[[], wiring.Component], *, name: str, count: int
) -> list[Any]:
    """Add ``count`` instances of a part and return their interfaces.

    Parameters
    ----------
    m : takes the instances, as submodules ``{name}_0`` …
    platform : what ``elaborate`` was given
    make : makes the component, the same every time.  ``ResetInserter`` does not reach inside:
        it should hold data, not control.
    name : of the Verilog module
    count : instances
    """
    part, shared = make(), isinstance(platform, VerilogPlatform)
    if shared:
        inner = VerilogPlatform()
        text = _convert(part, name, inner)
        for inner_name, inner_text in inner.files.items():
            platform.add_file(inner_name, inner_text)
        platform.add_file(name, text)
    interfaces = []
    for index in range(count):
        interface = part.signature.create(path=(f"{name}_{index}",))
        if shared:
            m.submodules[f"{name}_{index}"] = Instance(
                name, i_clk=ClockSignal(), i_rst=ResetSignal(), **_ports(part, interface)
            )
        else:
            m.submodules[f"{name}_{index}"] = unit = make() if index else part
            _connect(m, unit, interface)
        interfaces.append(interface)
    return interfaces


def _ports(part: wiring.Component, interface: Any) -> dict[str, Any]:
    return {
        f"{'i' if member.flow == wiring.In else 'o'}_{'__'.join(map(str, path))}": value
        for path, member, value in part.signature.flatten(interface)
    }


def _connect(m: Module, unit: wiring.Component, interface: Any) -> None:
    # wiring.connect cannot flip arrays of interfaces.
    inside, outside = (unit.signature.flatten(of) for of in (unit, interface))
    for (_, member, own), (_, _, other) in zip(inside, outside, strict=True):
        m.d.comb += own.eq(other) if member.flow == wiring.In else other.eq(own)
