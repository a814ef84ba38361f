"""Entry point: parse, dispatch, and turn every user error into one sentence and exit code 2."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from vitrify.arch.errors import VitrifyError
from vitrify.arch.extras import needs
from vitrify.arch.text import visible

#: Exit code of everything that the user can mend (argparse uses the same).
EXIT_USER = 2
#: Exit code of our own mistakes.
EXIT_BUG = 1
#: Exit code after Ctrl-C, as shells have it.
EXIT_INTERRUPT = 130
#: Set to see the traceback of an error.
DEBUG_VARIABLE = "VITRIFY_DEBUG"
#: What argparse says of a command or an option that there is not.
_WRONG = re.compile(
    r"invalid choice: '(?P<word>[^']*)'|unrecognized arguments: (?P<option>--[^\s=]*)"
)
#: Longest message.
_MOST_TEXT = 4000

#: Commands, in modules of their names, with their line of help.  A module is imported when its
#: command runs, so that the others need not be installed.
COMMANDS = {
    "arch": "list, show, make and check architectures",
    "emit": "write the Verilog of a core",
    "compile": "compile an ONNX model to a program",
    "run": "run a program or a model",
    "export": "write a program and a run of it for C and for testbenches",
    "estimate": "predict the cycles of a program or a model on a core",
    "trace": "write what every engine does when, for ui.perfetto.dev",
    "report": "write a page that shows where time, memory and accuracy go",
    "explore": "search for the core that suits models and a part",
    "routing": "count which experts the pictures of a data set ask for",
    "accuracy": "classify labelled pictures and compare with the float model",
    "info": "show what is in a program, a model or a preset",
    "synth": "synthesise cores with Yosys and report what they take",
    "build": "build a core for a board",
    "selftest": "try a core on a board: registers, memory, instructions, speed",
    "serve": "run a simulated board behind a pseudo-terminal",
    "completion": "print what completes commands and options in a shell",
    "describe": "print the instruction set, registers and formats as Markdown",
}


class _Parser(argparse.ArgumentParser):
    """Reports a wrong option in the form of all other errors."""

    #: Parsers of commands, by name.
    commands: Mapping[str, argparse.ArgumentParser] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's; but what a command does not know is that command's error."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        meant = self._meant(message)
        if meant:
            message = message.partition(" (choose from")[0]  # one is enough
        raise VitrifyError(f"{message}{meant}; see `{self.prog} --help`")

    def _meant(self, message: str) -> str:
        """The command or option that a message's wrong one is most like."""
        wrong = _WRONG.search(message)
        if wrong is None:
            return ""
        word, option = wrong["word"] or "", wrong["option"] or ""
        options = [name for name in self._option_string_actions if name.startswith("--")]
        near = difflib.get_close_matches(option, options, 1) if option else (
            difflib.get_close_matches(word, self.commands, 1)
        )
        return f" (did you mean {near[0]}?)" if near else ""


class _Version(argparse.Action):
    """Looks the version up when asked for it."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_arguments: Any) -> None:
        from importlib import metadata

        try:
            version = metadata.version("vitrify")
        except metadata.PackageNotFoundError:
            version = "(a checkout that is not installed)"
        print(f"vitrify {version}")
        parser.exit()


def parser(*wanted: str) -> _Parser:
    """The command line, with the options of the commands that are ``wanted``."""
    top = _Parser(
        prog="vitrify",
        description="Turn an ONNX vision transformer into an FPGA accelerator, bit for bit.",
    )
    top.add_argument("--version", action=_Version)
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, line in COMMANDS.items():
        if name in wanted:
            importlib.import_module(f".{name}", __package__).register(commands)
        else:
            commands.add_parser(name, help=line)
    top.commands = commands.choices
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    command = next((word for word in given if word in COMMANDS), None)
    try:
        options: Any = parser(*filter(None, [command])).parse_args(given)
        options.execute(options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except VitrifyError as error:
        return _user(str(error))
    except ModuleNotFoundError as error:
        missing = needs(error, "cli")
        return _bug(error) if missing is None else _user(f"`vitrify {command}` {missing}")
    except KeyboardInterrupt:
        print("vitrify: interrupted", file=sys.stderr)
        return EXIT_INTERRUPT
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python must not complain at exit either.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A disk that is full, a name that is too long, a file that may not be read.
        where = "" if error.filename is None else f": {str(error.filename)!r}"
        return _user(f"{error.strerror or error}{where}")
    except MemoryError as error:
        return _user(f"out of memory; give fewer images at once ({error or 'no details'})")
    except Exception as error:
        return _bug(error)
    return 0


def _user(message: str) -> int:
    """Say what the user can mend."""
    _raise_if_asked()
    print(f"vitrify: {_sentence(message)}", file=sys.stderr)
    return EXIT_USER


def _bug(error: Exception) -> int:
    """Say that it was us."""
    _raise_if_asked()
    print(
        f"vitrify: internal error, please report it: {type(error).__name__}: "
        f"{_sentence(str(error))} (set {DEBUG_VARIABLE}=1 for a traceback)",
        file=sys.stderr,
    )
    return EXIT_BUG


def _raise_if_asked() -> None:
    if os.environ.get(DEBUG_VARIABLE):
        raise


def _sentence(message: str) -> str:
    """A message on one line, bounded, without what would control a terminal."""
    line = visible(" ".join(message.split()))
    return line if len(line) <= _MOST_TEXT else f"{line[:_MOST_TEXT]} …"


if __name__ == "__main__":
    sys.exit(main())
