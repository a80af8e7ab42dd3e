"""What the tests of the corpus's reading share: sources and units of a few files."""

from data.corpus.readers import read_unit
from data.corpus.source import Part, Quarantined, Record, Source, Unit
from data.corpus.units import plan_units

LIMIT_BYTES = 100_000


def source_of(*paths, kind: str = "text", **fields) -> Source:
    return Source(fields.pop("name", "some"), tuple(map(str, paths)), kind, **fields)


def read_all(source: Source, unit_bytes: int = 10**6, limit_bytes: int = LIMIT_BYTES):
    """Everything that planning and reading give: the records, and what is in quarantine."""
    units, quarantined = plan_units([source], unit_bytes)
    found = [each for unit in units for each in read_unit(unit, limit_bytes)]
    records = [each for each in found if isinstance(each, Record)]
    return records, quarantined + [each for each in found if isinstance(each, Quarantined)]


def record_of(content, kind: str, name: str = "a.txt", **fields) -> Record:
    """A record as a reader would give it."""
    source = source_of("/nowhere", kind=kind, **{key: fields.pop(key) for key in ("column",) if key in fields})
    part = Part(f"/nowhere/{name}", name)
    return Record(content, Unit(source, (part,)), part, fields.pop("place", 0), **fields)
