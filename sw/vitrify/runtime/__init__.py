"""Running programs and models: :class:`InferenceSession` and its backends."""

from .backend import BACKENDS, Backend, NodeArg
from .session import InferenceSession, open_model
from .statistics import Cost, Statistics

__all__ = [
    "BACKENDS",
    "Backend",
    "Cost",
    "InferenceSession",
    "NodeArg",
    "Statistics",
    "open_model",
]
