"""The core's two buses: AXI4 master to DRAM, AXI4-Lite slave for the registers."""
