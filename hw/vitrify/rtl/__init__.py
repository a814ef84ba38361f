"""The core in Amaranth.  Imports :mod:`vitrify.arch` only."""
