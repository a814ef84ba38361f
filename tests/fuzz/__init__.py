"""Fuzzers: seeded, long as commands (``python -m tests.fuzz``), a sample of each in the suite."""
