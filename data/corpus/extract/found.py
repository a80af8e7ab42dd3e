"""What the extractors hand back: a text and what is known of it, or why a record cannot be made into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data.corpus.source import Quarantined, Record


@dataclass(frozen=True)
class Extracted:
    text: str
    language: str = ""  # where the record itself says it, in its words
    marks: Mapping[str, Any] = field(default_factory=dict)


def refused(record: Record, reason: str) -> Quarantined:
    return Quarantined(record.unit.source.name, record.part.name, record.place, reason)
