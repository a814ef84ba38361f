"""The golden model: integer kernels, and the machine that executes a program.

NumPy and :mod:`vitrify.arch` only.  Kernels are plain and vectorised; they define what the RTL
must do, bit for bit.  Where Numba is installed, ``compiled`` has some of them as loops.
"""
