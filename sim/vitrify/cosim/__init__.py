"""Cocotb support: building an Amaranth component for a Verilog simulator, and bench helpers."""
