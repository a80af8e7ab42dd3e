"""What the extractors hand back: a text and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Extracted:
    text: str
    language: str = ""  # ISO 639-1, where the record itself says it
    marks: Mapping[str, Any] = field(default_factory=dict)
