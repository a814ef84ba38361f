"""On-chip memories that several units share: tokens, row indices, row statistics."""

from .index_memory import IndexMemory
from .stat_memory import StatMemory
from .token_bank import TokenBank
from .token_memory import TokenMemory

__all__ = ["IndexMemory", "StatMemory", "TokenBank", "TokenMemory"]
