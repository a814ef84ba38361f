"""Designs and what is known of them, in an SQLite file: a study that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vitrify.arch.config import CONTRACT_VERSION, ArchConfig
from vitrify.arch.errors import InputError

_TABLES = """
create table if not exists about (name text primary key, value text not null);
create table if not exists design (
    key text primary key, name text not null, arch text not null,
    status text not null, cycles text not null, note text not null
);
"""


@dataclass(frozen=True)
class Design:
    """A core and what the models take on it.

    ``status``: ``estimated``; ``refused``, as ``note`` says; ``dominated``: a core that takes no
    more of the part is as fast as this one could ever be.
    """

    arch: ArchConfig
    #: Largest share of any resource of the part.
    share: float
    status: str
    #: Cycles of a job of each model; of a dominated one, those that it takes at least.
    cycles: Mapping[str, int]
    note: str = ""

    @property
    def milliseconds(self) -> float:
        """All models, one after the other."""
        return sum(self.cycles.values()) / self.arch.clock_mhz / 1e3

    def to_dict(self) -> dict[str, Any]:
        """JSON form; a refused one has no time."""
        return {
            "name": self.arch.name, "status": self.status, "share": self.share,
            "milliseconds": None if self.status == "refused" else self.milliseconds,
            "cycles": dict(self.cycles), "note": self.note,
            "arch": self.arch.to_dict(),
        }


def front(designs: Iterable[Design]) -> list[Design]:
    """The estimated designs that no other beats in both time and share, the fastest first."""
    found: list[Design] = []
    estimated = (design for design in designs if design.status == "estimated")
    for design in sorted(estimated, key=lambda one: (one.milliseconds, one.share)):
        if not found or design.share < found[-1].share:
            found.append(design)
    return found


class Study:
    """What has been estimated so far.

    Parameters
    ----------
    path : the file; None: keep nothing
    about : what the figures hold for: models, versions

    Raises
    ------
    InputError
        If the file is no study, or one of something else.
    """

    def __init__(self, path: Path | None, about: Mapping[str, str]) -> None:
        wanted = {**about, "contract": str(CONTRACT_VERSION)}
        self._path = path
        self._base = sqlite3.connect(":memory:" if path is None else path)
        try:
            self._base.executescript(_TABLES)
            held = dict(self._base.execute("select name, value from about"))
            if not held:
                self._base.executemany("insert into about values (?, ?)", wanted.items())
                self._base.commit()
        except sqlite3.Error as error:
            self._base.close()
            raise InputError(f"{str(path)!r} is no study of vitrify explore: {error}") from error
        if held and held != wanted:
            self._base.close()
            names = sorted(k for k in held.keys() | wanted if held.get(k) != wanted.get(k))
            raise InputError(
                f"the study {str(path)!r} is of something else (another {', '.join(names)}); name "
                f"another file"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def find(self, arch: ArchConfig) -> tuple[str, dict[str, int], str] | None:
        """Status, cycles and note of a core that was estimated or refused."""
        row = self._base.execute(
            "select status, cycles, note from design where key = ?", (_key(arch),)
        ).fetchone()
        return None if row is None else (row[0], json.loads(row[1]), row[2])

    def add(self, arch: ArchConfig, status: str, cycles: Mapping[str, int], note: str) -> None:
        """Keep a result, at once."""
        with self._base:
            self._base.execute(
                "insert or replace into design values (?, ?, ?, ?, ?, ?)",
                (_key(arch), arch.name, json.dumps(arch.to_dict()), status,
                 json.dumps(dict(cycles)), note),
            )


def _key(arch: ArchConfig) -> str:
    """Of everything but the name."""
    settings = {**arch.to_dict(), "name": ""}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
