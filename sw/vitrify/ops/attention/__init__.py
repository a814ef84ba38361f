"""Softmax attention, heads that a router weighs included."""
