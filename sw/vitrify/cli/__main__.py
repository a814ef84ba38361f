"""``python -m vitrify.cli``."""

import sys

from .main import main

sys.exit(main())
