"""Architectures to choose from: settings that vary, and what of a part they may take."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitrify.arch.boards import BOARDS, Board
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ConfigError, InputError
from vitrify.arch.estimate import KINDS, estimate
from vitrify.arch.presets import preset
from vitrify.arch.settings import SETTINGS

#: Settings that vary without further word, besides the memory ports of the board.
_AXES: dict[str, tuple[int, ...]] = {
    "depth": (4, 8, 16, 32, 64, 128), "width": (4, 8, 16, 32, 64, 128),
    "lanes": (2, 4, 8, 16, 32, 64), "max_rows": (256, 512), "banks": (6, 8, 12),
    "bank_words": (1024, 2048, 4096, 8192, 16384),
}


@dataclass(frozen=True)
class Space:
    """Every combination of the values of ``axes``, other settings as in ``base``."""

    base: ArchConfig
    board: Board
    axes: Mapping[str, tuple[Any, ...]]

    @classmethod
    def of(
        cls, part: str, base: ArchConfig | None = None, sweep: Mapping[str, tuple[Any, ...]] = {}
    ) -> Space:
        """The space of a board, or of the board with a part of this name.

        Parameters
        ----------
        base : what does not vary (default: the board's preset)
        sweep : values of settings, in place of the usual ones

        Raises
        ------
        InputError
            For a part that no board has, or several have.
        """
        places = [BOARDS[part]] if part in BOARDS else [
            one for one in BOARDS.values() if part == one.part.name
        ]
        if not places:
            names = ", ".join(f"{one.name} ({one.part.name})" for one in BOARDS.values())
            raise InputError(f"--part {part!r}: the boards and their parts are {names}")
        if len(places) > 1:
            names = " and ".join(one.name for one in places)
            raise InputError(f"--part {part!r}: {names} have it; name the board")
        place = places[0]
        ports = tuple(1 << i for i in range(4) if 1 << i <= place.ports.most)
        return cls(base or preset(place.name), place, {**_AXES, "ports": ports, **sweep})

    def designs(self, budget: Mapping[str, float], limit: int, seed: int = 0) -> list[ArchConfig]:
        """At most ``limit`` architectures that can be built and take no more than ``budget``.

        Where there are more, a random choice, the same for the same ``seed``.  The architecture
        that they vary comes first, if it is one of them: what is found is no slower.
        """
        names = list(self.axes)
        combinations = list(itertools.product(*self.axes.values()))
        random.Random(seed).shuffle(combinations)  # noqa: S311  (a sample, no secret)
        own = tuple(getattr(self.base, name) for name in names)
        combinations.sort(key=lambda values: values != own)
        found: list[ArchConfig] = []
        for values in combinations:
            arch = self._arch(dict(zip(names, values, strict=True)))
            if arch is not None and within(arch, budget):
                found.append(arch)
                if len(found) == limit:
                    break
        return found

    def _arch(self, values: dict[str, Any]) -> ArchConfig | None:
        ports = values.get("ports", 1)
        width = self.board.ports.bytes
        # No bus is wider than a word: then the port is narrower.
        bus = values.get("bus_bytes", min(ports * width, values.get("depth", self.base.depth)))
        around = self.board.settings() | {"ports": ports, "bus_bytes": bus}
        try:
            arch = dataclasses.replace(self.base, name="design", **{**around, **values})
            self.board.require(arch)
        except ConfigError:
            return None
        return dataclasses.replace(arch, name=self._name(arch))

    def _name(self, arch: ArchConfig) -> str:
        """A name that tells designs apart: what usually varies, then what varies here besides."""
        usual = (
            f"k{arch.depth}c{arch.width}e{arch.lanes}r{arch.max_rows}b{arch.banks}"
            f"x{arch.bank_words}p{arch.ports}"
        )
        more = (str(int(getattr(arch, name))) for name, values in self.axes.items()
                if name not in (*_AXES, "ports") and len(values) > 1)
        return "-".join([usual, *more])


def share_of(arch: ArchConfig) -> dict[str, float]:
    """Share of the part's resources that a core takes, of each kind that the part has."""
    found = estimate(arch)
    return {
        kind: found[kind]["used"] / found[kind]["available"] if found[kind]["available"]
        else float("inf")
        for kind in KINDS if found[kind]["used"] or found[kind]["available"]
    }


def within(arch: ArchConfig, budget: Mapping[str, float]) -> bool:
    """Whether a core takes no more of its part than the budget has (default: all)."""
    return all(share <= budget.get(kind, 1.0) for kind, share in share_of(arch).items())


def parse_budget(texts: Sequence[str]) -> dict[str, float]:
    """``lut=0.7,dsp=90%`` as shares of the part.

    Raises
    ------
    InputError
        For another resource, or a share that is none.
    """
    found: dict[str, float] = {}
    for text in (part.strip() for one in texts for part in one.split(",")):
        kind, _, value = text.partition("=")
        if kind not in KINDS:
            raise InputError(f"--budget {text}: the resources are {', '.join(KINDS)}, as lut=0.8")
        try:
            share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise InputError(f"--budget {text}: a share of the part, as {kind}=0.8 or {kind}=80%")
        found[kind] = share
    return found


def parse_sweep(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """``depth=16,32`` as values of a setting.

    Raises
    ------
    InputError
        For a setting that there is not, or a value that it cannot have.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name not in SETTINGS:
            raise InputError(f"--sweep {text}: the settings are {', '.join(SETTINGS)}")
        setting = SETTINGS[name]
        flags = {"true": True, "false": False} if setting.low is None else {}
        try:
            parsed = tuple(flags[value] if flags else int(value) for value in values.split(","))
        except (ValueError, KeyError):
            parsed = ()
        if not parsed or not all(map(setting.allows, parsed)):
            example = "true,false" if flags else f"{setting.low},{setting.high}"
            raise InputError(
                f"--sweep {text}: values of {name} are {setting.values}, as {name}={example}"
            )
        found[name] = parsed
    return found
