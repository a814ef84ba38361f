"""Options of the whole suite."""

import os


def pytest_addoption(parser):
    parser.addoption("--seed", help="seed of the cocotb benches (default: drawn and printed)")
    parser.addoption("--runs", help="runs of each thread that shares a session (default: 3)")
    parser.addoption("--waves", action="store_true", help="write waveforms, print their paths")


def pytest_configure(config):
    # Simulators and xdist workers are processes of their own; they see the environment.
    if config.getoption("--seed") is not None:
        os.environ["VITRIFY_SEED"] = config.getoption("--seed")
    if config.getoption("--runs") is not None:
        os.environ["VITRIFY_RUNS"] = config.getoption("--runs")
    if config.getoption("--waves"):
        os.environ["VITRIFY_WAVES"] = "1"
