"""Driving a core through a transport: registers, memory, jobs, errors.  NumPy is all it needs."""

from .core import CoreDriver, CoreError
from .transport import LinkError, Transport

__all__ = ["CoreDriver", "CoreError", "LinkError", "Transport"]
