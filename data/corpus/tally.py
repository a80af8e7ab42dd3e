"""Counts what a step did with the documents, with the reasons and a few examples of each."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from data.corpus.document import Document
from data.corpus.step import Dropped, Outcome

EXAMPLES = 3  # of each reason
EXCERPT = 300  # characters of an example
CHANGED = "changed"  # the key of the examples of changed texts


@dataclass
class Tally:
    """The counts of one step, for one unit or summed over units (`merged`)."""

    name: str
    seen: int = 0
    passed_by: int = 0  # of a kind or source that the step does not apply to
    kept: int = 0
    changed: int = 0  # of the kept documents
    characters_in: int = 0
    characters_out: int = 0
    seconds: float = 0.0  # CPU time
    reasons: Counter[str] = field(default_factory=Counter)  # number of dropped documents, by reason
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)  # by reason: id and excerpt

    @property
    def dropped(self) -> int:
        return self.reasons.total()

    def note(self, before: Document, after: Outcome) -> None:
        self.seen += 1
        self.characters_in += len(before.text)
        if isinstance(after, Dropped):
            self.reasons[after.reason] += 1
            self.show(after.reason, before.id, before.text[:EXCERPT])
            return
        self.kept += 1
        self.characters_out += len(after.text)
        if after.text != before.text:
            self.changed += 1
            if self._wants(CHANGED):  # to find the excerpt takes as long as some steps
                self.show(CHANGED, before.id, excerpt_of_change(before.text, after.text))

    def show(self, reason: str, identity: str, text: str) -> None:
        if self._wants(reason):
            self.examples.setdefault(reason, []).append({"id": identity, "text": text})

    def _wants(self, reason: str) -> bool:
        return len(self.examples.get(reason, ())) < EXAMPLES

    def as_dict(self) -> dict[str, Any]:
        """The fields and `dropped`, as JSON values."""
        return {**asdict(self), "reasons": dict(self.reasons), "dropped": self.dropped}


def merged(tallies: Iterable[Mapping[str, Any]]) -> Tally:
    """The sum of one step's tallies (as `as_dict` gives them), with the first examples in the order of the units."""
    total: Tally | None = None
    for tally in tallies:
        total = total or Tally(tally["name"])
        for name in ("seen", "passed_by", "kept", "changed", "characters_in", "characters_out", "seconds"):
            setattr(total, name, getattr(total, name) + tally[name])
        total.reasons.update(tally["reasons"])
        for reason, examples in tally["examples"].items():
            for example in examples:
                total.show(reason, example["id"], example["text"])
    if total is None:
        raise ValueError("no tallies to merge")
    return total


def excerpt_of_change(before: str, after: str) -> str:
    """The changed text around its first difference; shows nothing that was removed."""
    lengths = range(1, min(len(before), len(after)) + 1)
    same = bisect_left(lengths, True, key=lambda length: before[:length] != after[:length])
    start = max(0, same - EXCERPT // 3)
    return ("…" if start else "") + after[start : start + EXCERPT]
