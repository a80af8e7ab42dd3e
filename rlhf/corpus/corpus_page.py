"""The HTML page of a corpus, from report.json: what was read, what each step dropped and why, what is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data.corpus.tally import CHANGED
from rlhf.reports.charts import columns, stacked_bars
from rlhf.reports.html import render


def corpus_page(name: str, report: Mapping[str, Any]) -> str:
    """report: of `rlhf.corpus.corpus_report.corpus_report`."""
    steps = report["steps"]
    flow = [(step["name"], step["kept"] + step["passed_by"], step["dropped"]) for step in steps]
    lengths = [
        (f"{2 ** int(power) - 1:,} to {2 ** (int(power) + 1) - 2:,}", count)
        for power, count in report["lengths"].items()
    ]
    return render(
        "corpus.html",
        title=name,
        summary=_summary(report),
        report=report,
        flow=stacked_bars(flow, ("left", "dropped")),
        lengths=columns(lengths) if lengths else "",
        steps=[{**step, **_derived(step)} for step in steps],
        fertility=list(_fertility(report["tokens_per_byte"])),
        size=_size,
    )


def _summary(report: Mapping[str, Any]) -> str:
    sources = report["sources"]
    read = sum(source["read"] for source in sources)
    tokens = sum(source.get("tokens", 0) + source.get("held_out_tokens", 0) for source in sources)
    given = f"{read:,} records read from {len(sources)} source{'s' if len(sources) > 1 else ''}"
    left = f"{report['documents']:,} documents left, {_size(report['bytes'])}"
    return f"{given}; {left}, {tokens:,} tokens." if tokens else f"{given}; {left}."


def _derived(step: Mapping[str, Any]) -> dict[str, Any]:
    """counts: (reason, documents), the most frequent first, then the changed documents."""
    seconds = step["seconds"] + sum(step["preparation_s"].values())
    counts = sorted(step["reasons"].items(), key=lambda item: (-item[1], item[0]))
    return {
        "share": f"{step['kept'] / step['seen']:.1%}" if step["seen"] else "",
        "speed": f"{step['characters_in'] / seconds / 1e6:.2f}" if seconds > 0.01 else "",
        "counts": counts + ([(CHANGED, step["changed"])] if step["changed"] else []),
    }


def _fertility(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if found:
        yield "all", found
        for group in ("sources", "languages"):
            yield from ((f"{group[:-1]} {name or 'unknown'}", part) for name, part in found[group].items())


def _size(count: int) -> str:
    """Bytes as people read them."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"
