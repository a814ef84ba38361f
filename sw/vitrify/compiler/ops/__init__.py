"""Lowering, one file for each op of the integer graph."""
