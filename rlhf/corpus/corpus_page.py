"""The HTML page of a corpus, from report.json: what was read, what each step dropped and why, what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data.corpus.tally import CHANGED
from rlhf.reports.charts import columns, stacked_bars
from rlhf.reports.page import Html, element, number, page, picture, table

Report = Mapping[str, Any]


def corpus_page(name: str, report: Report) -> str:
    """HTML of `rlhf.corpus.corpus_report.corpus_report`."""
    body = [
        element("h1", name),
        element("p", _in_short(report), class_="soft"),
        *_flow(report["steps"]),
        *_sources(report["sources"]),
        *_steps(report["steps"]),
        *_figures(report["figures"]),
        *_texts(report),
        *_tokens(report["tokens_per_byte"]),
        *_quarantine(report),
    ]
    return page(name, *body)


def _in_short(report: Report) -> str:
    read = sum(source["read"] for source in report["sources"])
    tokens = sum(source.get("tokens", 0) + source.get("held_out_tokens", 0) for source in report["sources"])
    count = len(report["sources"])
    told = (
        f"{read:,} records read from {count} source{'s' if count > 1 else ''}; {report['documents']:,} documents left"
    )
    told += f", {_size(report['bytes'])}"
    return told + (f", {tokens:,} tokens." if tokens else ".")


def _flow(steps: Sequence[Mapping[str, Any]]) -> list[Html]:
    rows = [(step["name"], step["kept"] + step["passed_by"], step["dropped"]) for step in steps]
    return [picture(stacked_bars(rows, ("left", "dropped")), "Documents that each step left, and dropped.")]


def _sources(sources: Sequence[Mapping[str, Any]]) -> list[Html]:
    headings = ("source", "kind", "read", "quarantined", "documents left", "size", "tokens", "held out")
    rows = [
        [
            element("td", element("strong", source["name"]), " (reference)" if source["reference"] else None),
            source["kind"],
            *(number(f"{source.get(name, 0):,}") for name in ("read", "quarantined", "documents")),
            number(_size(source.get("bytes", 0))),
            *(number(f"{source.get(name, 0):,}") for name in ("tokens", "held_out_tokens")),
        ]
        for source in sources
    ]
    return [element("h2", "Sources"), table(headings, rows)]


def _steps(steps: Sequence[Mapping[str, Any]]) -> list[Html]:
    headings = ("step", "looked at", "dropped", "changed", "kept", "MB a CPU second", "why, with examples")
    rows = []
    for step in steps:
        share = f"{step['kept'] / step['seen']:.1%}" if step["seen"] else ""
        seconds = step["seconds"] + sum(step["preparation_s"].values())
        speed = f"{step['characters_in'] / seconds / 1e6:.2f}" if seconds > 0.01 else ""
        rows.append(
            [
                element("td", element("strong", step["name"])),
                *(number(f"{step[name]:,}") for name in ("seen", "dropped", "changed")),
                number(share),
                number(speed),
                element("td", *_reasons(step)),
            ]
        )
    return [element("h2", "Steps"), table(headings, rows)]


def _reasons(step: Mapping[str, Any]) -> list[Html]:
    counts = dict(sorted(step["reasons"].items(), key=lambda item: (-item[1], item[0])))
    if step["changed"]:
        counts[CHANGED] = step["changed"]
    return [
        element(
            "details",
            element("summary", f"{count:,} {reason}"),
            *(_example(example) for example in step["examples"].get(reason, ())),
        )
        for reason, count in counts.items()
    ]


def _example(example: Mapping[str, str]) -> Html:
    return element("div", element("div", example["id"], class_="soft"), element("pre", example["text"]))


def _figures(figures: Mapping[str, Any]) -> list[Html]:
    parts = []
    for name, found in figures.items():
        parts += [element("h3", name), _tree(found)]
    return [element("h2", "What steps told"), *parts] if parts else []


def _tree(value: Any) -> Html:
    """Nested mappings as nested tables; single values as text."""
    if isinstance(value, Mapping):
        return table(("", ""), [[str(name), element("td", _tree(inner))] for name, inner in value.items()])
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return element("span", f"{value:.4g}" if isinstance(value, float) else str(value))


def _texts(report: Report) -> list[Html]:
    if not report["documents"]:
        return []
    lengths = [
        (f"{2 ** int(power) - 1:,} to {2 ** (int(power) + 1) - 2:,}", count)
        for power, count in report["lengths"].items()
    ]
    languages = [
        [name, number(f"{found['documents']:,}"), number(_size(found["bytes"]))]
        for name, found in report["languages"].items()
    ]
    return [
        element("h2", "Documents left"),
        picture(columns(lengths), "Documents by their number of words."),
        element("h3", "Languages"),
        table(("language", "documents", "size"), languages),
    ]


def _tokens(fertility: Mapping[str, Any]) -> list[Html]:
    if not fertility:
        return []
    rows = [["all", *_fertility(fertility)]]
    for group in ("sources", "languages"):
        rows += [[f"{group[:-1]} {name or 'unknown'}", *_fertility(found)] for name, found in fertility[group].items()]
    return [element("h2", "Tokens per byte"), table(("", "tokens per byte", "bytes per token", "size"), rows)]


def _fertility(found: Mapping[str, Any]) -> list[Html]:
    share = found["tokens_per_byte"]
    return [number(f"{share:.3f}"), number(f"{1 / share:.2f}" if share else ""), number(_size(found["bytes"]))]


def _quarantine(report: Report) -> list[Html]:
    if not report["quarantined"]:
        return []
    rows = [
        [each["source"], each["file"], "" if each["place"] is None else number(f"{each['place']:,}"), each["reason"]]
        for each in report["quarantined"]
    ]
    told = f"{report['quarantined_in_all']:,} files or places could not be read; quarantine.jsonl lists them all."
    return [
        element("h2", "Quarantine"),
        element("p", told, class_="soft"),
        table(("source", "file", "place", "why"), rows),
    ]


def _size(count: int) -> str:
    """Bytes as people read them."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"
