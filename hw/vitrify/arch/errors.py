"""Errors that are the user's to mend.  The command line prints them as one line, exit code 2."""

from __future__ import annotations


class VitrifyError(Exception):
    """Base of every error a user can cause; the message names the thing, its value, the way out."""


class ConfigError(VitrifyError, ValueError):
    """An architecture description is wrong."""


class ProgramError(VitrifyError):
    """A program is malformed, corrupt, or made for another architecture."""


class ModelError(VitrifyError):
    """An ONNX model cannot be used as it is."""


class UnsupportedOpError(ModelError):
    """A node of the model has no place on the core; ``node`` is its name, empty if unknown."""

    def __init__(self, message: str, node: str = "") -> None:
        super().__init__(message)
        self.node = node


class CapacityError(VitrifyError):
    """A model does not fit the architecture.

    ``node`` is the name of the model's node that there was no room for, empty if unknown; the way
    out is the message's last clause.
    """

    node: str = ""


class InputError(VitrifyError):
    """An input file, array or option does not fit."""


class BackendError(VitrifyError):
    """A simulator, board or tool failed or is missing."""
