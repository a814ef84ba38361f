"""What a run looks like: traces for viewers, and a page for people."""

from .chrome import chrome_trace
from .figures import FORM, figures

__all__ = ["FORM", "chrome_trace", "figures"]
