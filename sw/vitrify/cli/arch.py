"""``vitrify arch``: architectures in YAML: list, show, new, check, schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vitrify.arch.boards import built_for
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ConfigError, InputError
from vitrify.arch.estimate import KINDS, estimate, fits
from vitrify.arch.load import YAML_SUFFIXES, load, read_values
from vitrify.arch.presets import PRESETS, preset
from vitrify.arch.settings import SETTINGS, problems, schema
from vitrify.program.files import check_writable, write_atomic

from .info import of_arch
from .options import add_json
from .terminal import new_table, print_json, say, show


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "arch",
        help="list, show, make and check architectures",
        description="Architectures: the presets, and files of your own "
        "(docs/architectures.md says what every setting trades).",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the presets and how full their parts are")
    add_json(listing)
    listing.set_defaults(execute=_list)
    shown = actions.add_parser("show", help="a preset or file with its derived sizes")
    shown.add_argument("arch", metavar="PRESET|FILE.yaml")
    add_json(shown)
    shown.set_defaults(execute=_show)
    new = actions.add_parser("new", help="a file with every setting of a preset, to change")
    new.add_argument("file", metavar="FILE.yaml", type=Path)
    new.add_argument("--from", dest="source", default="reference", metavar="PRESET",
                     help="default: reference")
    new.set_defaults(execute=_new)
    check = actions.add_parser("check", help="everything that is wrong with a file, at once")
    check.add_argument("file", metavar="FILE.yaml")
    check.set_defaults(execute=_check)
    of_editors = actions.add_parser("schema", help="JSON schema for editors")
    of_editors.add_argument("-o", "--output", type=Path, metavar="FILE.json",
                            help="write there instead of stdout")
    of_editors.set_defaults(execute=_schema)


def _list(options: argparse.Namespace) -> None:
    found = [{"name": arch.name, "macs": arch.macs, "clock_mhz": arch.clock_mhz,
              "board": board.name if (board := built_for(arch)) else None,
              "resources": estimate(arch), "fits": fits(arch)} for arch in PRESETS.values()]
    if options.json:
        print_json(found)
        return
    table = new_table("preset", "MACs", "MHz", "board", *(kind.upper() for kind in KINDS))
    for one in found:
        shares = [
            f"{use['used'] / use['available']:.0%}" if use["available"] else "–"
            for use in (one["resources"][kind] for kind in KINDS)
        ]
        table.add_row(one["name"], f"{one['macs']:,}", f"{one['clock_mhz']:g}",
                      one["board"] or "–", *shares)
    show(table)


def _show(options: argparse.Namespace) -> None:
    facts = of_arch(load(options.arch))
    if options.json:
        print_json(facts)
        return
    table = new_table("setting", "value", "what it trades")
    for name, value in facts.pop("settings").items():
        if name in SETTINGS:
            table.add_row(name, str(value), SETTINGS[name].trades)
    show(table)
    for name, value in facts.items():
        say(f"{name}: {value}")


def _new(options: argparse.Namespace) -> None:
    arch = preset(options.source)
    check_new(options.file)
    write_arch(options.file, arch, arch.name)
    say(f"{options.file}: every setting of {arch.name}")


def check_new(file: Path) -> None:
    """Refuse what is no name for an architecture file, or taken."""
    if file.suffix not in YAML_SUFFIXES:
        raise InputError(f"an architecture file ends in .yaml, not {file.name!r}")
    if file.exists():
        raise InputError(f"{str(file)!r} exists; choose another name or remove it")
    check_writable(file)


def write_arch(file: Path, arch: ArchConfig, base: str) -> None:
    """Write every setting, as a change of the preset ``base``."""
    settings = arch.to_dict()
    lines = [f"# `vitrify arch check {file.name}` says what is wrong.", f"base: {base}"]
    for name, setting in SETTINGS.items():
        lines += [f"# {setting.meaning}: {setting.values}", f"{name}: {_yaml(settings[name])}"]
    lines += ["# MHz", f"clock_mhz: {arch.clock_mhz:g}"]
    for name in ("part", "dram"):
        lines += [f"{name}:", *(f"  {key}: {_yaml(value)}"
                                for key, value in settings[name].items())]
    write_atomic(file, ("\n".join(lines) + "\n").encode())


def _yaml(value: Any) -> str:
    return json.dumps(value)


def _check(options: argparse.Namespace) -> None:
    values, base = read_values(options.file)
    found = problems(values, base or preset("nano"))
    if found:
        for number, text in enumerate(found, 1):
            say(f"{number}. {text}")
        raise ConfigError(
            f"arch file {options.file!r} has {len(found)} "
            f"{'problem' if len(found) == 1 else 'problems'}"
        )
    arch = load(options.file)
    for name, value in of_arch(arch).items():
        if name != "settings":
            say(f"{name}: {value}")
    answer = {True: "fits", False: "does not fit", None: "no part"}[fits(arch)]
    say(f"{options.file}: sound; {arch.part.name}: {answer}")


def _schema(options: argparse.Namespace) -> None:
    text = json.dumps(schema(), indent=2) + "\n"
    check_writable(options.output)
    if options.output is None:
        print(text, end="")
    else:
        write_atomic(options.output, text.encode())
