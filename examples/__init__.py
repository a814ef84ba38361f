"""Examples: scripts in the percent format, which editors and Jupytext open as notebooks."""
