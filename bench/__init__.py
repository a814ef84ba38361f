"""Measurements: cycles, utilisation, traffic, speed, accuracy.  Run by ``make bench``."""
