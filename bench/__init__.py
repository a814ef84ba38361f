"""Measurements: cycles, utilisation, traffic, simulation speed, accuracy.  Run by ``make bench``."""
