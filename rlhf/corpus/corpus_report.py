"""The report of a corpus, as JSON values: what each source and step kept and dropped, why, and examples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from data.corpus.clean import Cleaned
from data.corpus.source import Quarantined
from data.corpus.step import Stage
from data.unit import DataReport

QUARANTINE_SHOWN = 200  # entries in the report; quarantine.jsonl has all


def survey(stage: Stage, unit: int) -> dict[str, Any]:
    """Piece of work: the number of one unit's documents and their UTF-8 bytes, in all and by language; number of documents
    by log2(words + 1)."""
    found: dict[str, Any] = {"documents": 0, "bytes": 0}
    languages: dict[str, Counter[str]] = {}
    lengths: Counter[str] = Counter()
    for placed in stage.read(unit):
        document = placed.document
        size = len(document.text.encode())
        found["documents"] += 1
        found["bytes"] += size
        languages.setdefault(document.language or "unknown", Counter()).update(documents=1, bytes=size)
        lengths[str(int(math.log2(len(document.text.split()) + 1)))] += 1
    return {**found, "languages": languages, "lengths": lengths}


def corpus_report(
    cleaned: Cleaned,
    surveys: Sequence[Mapping[str, Any]],  # by unit
    tokens: Mapping[str, Mapping[str, int]],  # by source: training and held-out tokens; empty without a tokenizer
    fertility: Mapping[str, Any],
    kinds: Mapping[str, str],  # by source
    references: Iterable[str],
    unread: Sequence[Quarantined],  # files that are in no unit
) -> dict[str, Any]:
    """The content of report.json."""
    known, quarantined = set(references), Counter(each.source for each in unread)
    for unit, count in cleaned.quarantine.counts.items():
        quarantined[cleaned.stage.sources[unit]] += count
    in_all = quarantined.total()
    units = list(zip(cleaned.stage.sources, surveys, strict=True))
    written = [survey for source, survey in units if source not in known]
    sources = []
    for name, tallies in cleaned.by_source.items():
        left = _sum(survey for source, survey in units if source == name)
        sources.append(
            {
                "name": name,
                "kind": kinds[name],
                "reference": name in known,
                "read": tallies[0].seen,
                "quarantined": quarantined.pop(name, 0),
                "documents": left["documents"],
                "bytes": left["bytes"],
                "dropped": dict(sum((tally.reasons for tally in tallies), Counter())),
                **tokens.get(name, {}),
            }
        )
    for name, count in quarantined.items():  # sources without any readable file
        sources.append({"name": name, "kind": kinds[name], "reference": name in known, "read": 0, "quarantined": count})
    return {
        "sources": sources,
        "steps": [
            {**tally.as_dict(), "preparation_s": cleaned.seconds.get(tally.name, {})} for tally in cleaned.tallies
        ],
        "figures": cleaned.figures,
        **_sum(written),
        "tokens_per_byte": fertility,
        "quarantined": [each.as_dict() for each in islice(chain(unread, cleaned.quarantine), QUARANTINE_SHOWN)],
        "quarantined_in_all": in_all,
    }


def _sum(surveys: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    documents = size = 0
    languages: dict[str, Counter[str]] = {}
    lengths: Counter[str] = Counter()
    for survey in surveys:
        documents += survey["documents"]
        size += survey["bytes"]
        lengths.update(survey["lengths"])
        for language, counts in survey["languages"].items():
            languages.setdefault(language, Counter()).update(counts)
    ordered = sorted(languages.items(), key=lambda item: -item[1]["bytes"])
    return {
        "documents": documents,
        "bytes": size,
        "languages": {name: dict(counts) for name, counts in ordered},
        "lengths": {power: lengths[power] for power in sorted(lengths, key=int)},
    }


def data_reports(report: Mapping[str, Any]) -> list[DataReport]:
    """One for each source, for the run report."""
    return [
        DataReport(
            source["name"],
            source["read"],
            source.get("documents", 0),
            source.get("tokens", 0) + source.get("held_out_tokens", 0),
            dropped=Counter(source.get("dropped", {})) + Counter({"no tokens": source.get("without_tokens", 0)}),
            warnings=[f"{source['quarantined']} files or places could not be read: quarantine.jsonl"]
            if source["quarantined"]
            else [],
        )
        for source in report["sources"]
    ]
