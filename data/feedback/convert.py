"""Which feedback rows become which others, told from their columns alone."""

from __future__ import annotations

from collections.abc import Collection

# what says which of a row's `responses` is better; the first of these columns that is there
ORDERED_BY = ("ratings", "ranks", "correct", "answer")

CONVERSIONS = {  # (kind that is trained on, form of the rows) -> the conversion
    ("preference", "ratings"): "ratings → pairs with margin",
    ("preference", "ranking"): "ranking → pairs",
    ("preference", "verifiable"): "verifiable answers → pairs",
    ("ranking", "ratings"): "ratings → ranking",
    ("ranking", "verifiable"): "verifiable answers → ranking",
    ("thumbs", "pairs"): "pairs → thumbs",
    ("binary", "pairs"): "pairs → thumbs",
}
MANY = {"ranking": "rankings", "ratings": "rows of ratings", "verifiable answers": "rows of verifiable answers"}


def order_column(columns: Collection[str]) -> str | None:
    """Of rows of several responses: the column that orders them; None = they are listed from best to worst."""
    return next((name for name in ORDERED_BY if name in columns), None)


def conversion_of(kind: str, columns: Collection[str]) -> str | None:
    """What becomes of rows with these columns where a phase trains on `kind` (`data.examples.KINDS`): "ranking → pairs", say.
    None where they are read as they are, or cannot be read."""
    return CONVERSIONS.get((kind, _form(kind, columns)))


def counted(conversion: str, rows: int, units: int) -> str:
    """The conversion with numbers: "1,000 rankings into 3,112 pairs"."""
    source, target = conversion.split(" → ")
    return f"{rows:,} {MANY.get(source, source)} into {units:,} {MANY.get(target, target)}"


def _form(kind: str, columns: Collection[str]) -> str | None:
    present = set(columns)
    judged_alone = {"label"} if kind == "thumbs" else {"label", "rule", "question"}
    if kind in ("thumbs", "binary") and "response" in present and judged_alone & present:
        return None
    if {"chosen", "rejected"} <= present:
        return "pairs"
    if "responses" not in present:
        return None
    column = order_column(present)
    return {"ratings": "ratings", "correct": "verifiable", "answer": "verifiable"}.get(column, "ranking")
