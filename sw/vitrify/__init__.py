"""Vision transformers from ONNX on an FPGA: generator, compiler, simulation and runtime.

``from vitrify import InferenceSession`` is all that running a compiled program needs.  The
sub-packages lie in three rooms of the repository, each with this file, and in one folder of a
wheel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrify.runtime import InferenceSession

    #: Of the installed distribution.
    __version__: str

__all__ = ["InferenceSession", "__version__"]
# In these words, by which tools that read the source (the documentation's) know it.
__path__ = __import__("pkgutil").extend_path(__path__, __name__)


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is: the command line starts without NumPy."""
    if name == "InferenceSession":
        from vitrify.runtime import InferenceSession

        return InferenceSession
    if name == "__version__":
        from importlib.metadata import version

        return version("vitrify")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
