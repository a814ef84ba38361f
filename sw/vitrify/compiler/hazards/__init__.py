"""Happens-before: whether a program waits for everything it needs, on any core and memory."""

from .check import Hazard, HazardError, check, hazards

__all__ = ["Hazard", "HazardError", "check", "hazards"]
