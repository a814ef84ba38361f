"""Cycles of a program without simulating the core: the waits of its engines, pass by pass."""

from .report import LIMITS, Estimate, LayerEstimate, estimate

__all__ = ["LIMITS", "Estimate", "LayerEstimate", "estimate"]
