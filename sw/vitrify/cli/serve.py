"""``vitrify serve``: a simulated board behind a pseudo-terminal, for the real driver."""

from __future__ import annotations

import argparse
import signal
import threading
from typing import Any

from vitrify.arch.boards import STANDALONE_BOARDS, standalone
from vitrify.arch.boards import board as find_board
from vitrify.arch.load import load as load_arch

from .options import add_json
from .terminal import print_json, say, status


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="run a simulated board behind a pseudo-terminal",
        description="Simulate a whole board (serial line, SDRAM, core), cycle by cycle, and print "
        "the name of its serial port.  Everything that talks to a board can talk to it.  Ends "
        "with Ctrl-C or SIGTERM.",
    )
    parser.add_argument(
        "--board", default=STANDALONE_BOARDS[0], metavar="|".join(STANDALONE_BOARDS),
        help="default: %(default)s",
    )
    parser.add_argument(
        "--arch", metavar="PRESET|FILE.yaml", help="default: the preset of the board's name"
    )
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command until it is interrupted."""
    from vitrify.cosim.board import SimulatedBoard
    from vitrify.cosim.pty import serve

    # A shell switches Ctrl-C off in what it starts in the background, and supervisors send SIGTERM.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sdram = standalone(find_board(options.board)).sdram
    arch = load_arch(options.arch or options.board)
    with status("building the simulator") as update:
        board = SimulatedBoard(arch, sdram, say=update)
    try:
        with serve(board) as port:
            if options.json:
                print_json({"arch": arch.name, "port": port})
            else:
                say(f"{arch.name} is behind {port}: --backend "
                    f"'board:{options.board}?port={port}'")
            threading.Event().wait()
    finally:
        board.close()
