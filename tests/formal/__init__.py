"""Proofs of small units: bounded from reset, and by induction where that holds.

``python -m tests.formal`` proves everything, further from reset than ``make test`` does.
"""
