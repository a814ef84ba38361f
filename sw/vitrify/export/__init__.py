"""A program and a run of it for those who have no Python: files for C and for testbenches."""

from .files import Run, check_name, export_files

__all__ = ["Run", "check_name", "export_files"]
