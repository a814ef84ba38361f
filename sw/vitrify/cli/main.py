"""Entry point: parse, dispatch, and turn every user error into one sentence and exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NoReturn

from vitrify.arch.errors import VitrifyError

from . import accuracy, build, describe, emit, info, routing, run, serve, synth
from . import compile as compile_command
from . import estimate as estimate_command

#: Exit code of everything that the user can mend (argparse uses the same).
EXIT_USER = 2
#: Exit code of our own mistakes.
EXIT_BUG = 1
#: Exit code after Ctrl-C, as shells have it.
EXIT_INTERRUPT = 130
#: Set to see the traceback of an error.
DEBUG_VARIABLE = "VITRIFY_DEBUG"

COMMANDS = (
    emit, compile_command, run, estimate_command, routing, accuracy, info, synth, build,
    serve, describe,
)


class _Parser(argparse.ArgumentParser):
    """Reports a wrong option in the form of all other errors."""

    def error(self, message: str) -> NoReturn:
        raise VitrifyError(f"{message}; see `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog="vitrify",
        description="Turn an ONNX vision transformer into an FPGA accelerator, bit for bit.",
    )
    top.add_argument("--version", action="version", version=f"vitrify {_version()}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for command in COMMANDS:
        command.register(commands)
    return top


def _version() -> str:
    try:
        return metadata.version("vitrify")
    except metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    try:
        options: Any = parser().parse_args(arguments)
        options.execute(options)
    except VitrifyError as error:
        _raise_if_asked()
        print(f"vitrify: {_sentence(error)}", file=sys.stderr)
        return EXIT_USER
    except KeyboardInterrupt:
        print("vitrify: interrupted", file=sys.stderr)
        return EXIT_INTERRUPT
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        _raise_if_asked()
        print(
            f"vitrify: internal error, please report it: {type(error).__name__}: "
            f"{_sentence(error)} (set {DEBUG_VARIABLE}=1 for a traceback)",
            file=sys.stderr,
        )
        return EXIT_BUG
    return 0


def _raise_if_asked() -> None:
    if os.environ.get(DEBUG_VARIABLE):
        raise


def _sentence(error: BaseException) -> str:
    """The message on one line."""
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
