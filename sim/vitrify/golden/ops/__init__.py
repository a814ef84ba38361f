"""Integer kernels, one file for each unit of the core."""
