"""What the tests of the corpus share: sources and units of a few files, and a test of linear time."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.corpus.readers import read_unit
from data.corpus.source import CorpusSource, FilePart, FileUnit, Quarantined, Record
from data.corpus.units import plan_units

LIMIT_BYTES = 100_000


def source_of(*paths, kind: str = "text", **fields) -> CorpusSource:
    return CorpusSource(fields.pop("name", "some"), tuple(map(str, paths)), kind, **fields)


def read_all(source: CorpusSource, unit_bytes: int = 10**6, limit_bytes: int = LIMIT_BYTES):
    """Everything that planning and reading give: the records, and what is in quarantine."""
    units, quarantined = plan_units([source], unit_bytes)
    found = [each for unit in units for each in read_unit(unit, limit_bytes)]
    records = [each for each in found if isinstance(each, Record)]
    return records, quarantined + [each for each in found if isinstance(each, Quarantined)]


def quarantine(path: Path, content: bytes, **fields):
    """(contents of the records, (place, reason, read) of the rest) of a file with this content."""
    path.write_bytes(content)
    records, quarantined = read_all(source_of(path, **fields))
    return [each.content for each in records], [(each.place, each.reason, each.read) for each in quarantined]


def record_of(content, kind: str, name: str = "a.txt", place: int = 0, column: str = "text", **fields) -> Record:
    """A record as a reader would give it."""
    part = FilePart(f"/nowhere/{name}", name)
    return Record(content, FileUnit(source_of("/nowhere", kind=kind, column=column), (part,)), part, place, **fields)


def grows_in_proportion(run: Callable[[str], Any], text_of: Callable[[int], str]) -> None:
    """`run` takes at most 8 times as long for 4 times the text; if its time were quadratic, 16 times."""

    def seconds(characters: int) -> float:
        text, least = text_of(characters), math.inf
        for _ in range(3):
            start = time.process_time()
            run(text)
            least = min(least, time.process_time() - start)
        return least

    assert seconds(40_000) < 8 * max(seconds(10_000), 0.002)  # 2 ms: shorter times are not measured exactly
