"""Pure tensor functions: the mathematics of training, importable with torch alone.

Its modules, and torch with them, load when they are first used: a config's objectives and algorithms are checked without them.
"""

import importlib.util
import sys

for _name in ("advantages", "correction", "kl", "logprobs", "losses", "masked", "preference", "ranking", "rewards"):
    _spec = importlib.util.find_spec(f"{__name__}.{_name}")
    _spec.loader = importlib.util.LazyLoader(_spec.loader)
    globals()[_name] = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(globals()[_name])
