"""Which core for these models: a search over architectures by resource model and estimator."""

from .search import Models, explore
from .space import Space, parse_budget, parse_sweep, share_of
from .study import Design, Study, front

__all__ = ["Design", "Models", "Space", "Study", "explore", "front", "parse_budget", "parse_sweep",
           "share_of"]
