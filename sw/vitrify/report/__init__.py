"""What a run looks like: traces for viewers, and a page for people."""

from .chrome import chrome_trace

__all__ = ["chrome_trace"]
