"""From raw text to an aligned assistant. The names below load on first use, so `import rlhf` costs nothing."""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "run": "rlhf.api",
    "load_config": "rlhf.config.load",
    "Algorithm": "rlhf.interfaces",
    "Batch": "data.batch",
    "Prompt": "data.sample",
    "Sample": "data.sample",
    "Conversation": "rlhf.rollout",
    "Environment": "rlhf.rollout",
    "ClippedPolicy": "rlhf.objectives",
    "ClippedValue": "rlhf.objectives",
}
_MODULES = ("testing",)
__all__ = [*_EXPORTS, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"rlhf.{name}")
    if name not in _EXPORTS:
        raise AttributeError(f"module 'rlhf' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
