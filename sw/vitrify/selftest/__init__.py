"""Whether a core on a board is the core that was built: registers, memory, instructions, speed."""

from .checks import Check, Status, selftest

__all__ = ["Check", "Status", "selftest"]
