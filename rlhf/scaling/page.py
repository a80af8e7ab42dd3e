"""The page about a scaling law: the law, the plot, every training, and the best size for each budget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.reports.page import element, listing, number, page, picture, png, table
from rlhf.scaling.tables import BUDGETS, LEGEND, POINTS, budget_rows, error_text, law_text, point_rows, range_text

CAPTION = (
    "Left: each size's losses over tokens, with the law's curves; a held-out size, which the fit did not see, is dashed."
    " Right: the least loss for each amount of compute; a star is a budget, with the size and tokens that reach it."
)


def scaling_page(name: str, figures: Mapping[str, Any], plot: Path) -> str:
    """HTML of the content of scaling.json."""
    notes, budgets = figures["notes"], [[*map(number, row[:-1]), row[-1]] for row in budget_rows(figures)]
    known = "; ".join(text for text in (error_text(figures), range_text(figures)) if text)
    return page(
        f"{name}: scaling",
        element("h1", f"{name}: scaling"),
        element("p", element("strong", law_text(figures))),
        element("p", known, class_="soft"),
        *([listing(notes, class_="alarms")] if notes else []),
        picture(png(plot), CAPTION),
        *([element("h2", "Budgets"), table(BUDGETS, budgets)] if budgets else []),
        element("h2", "Trainings"),
        table(POINTS, [[row[0], *map(number, row[1:])] for row in point_rows(figures)]),
        element("p", LEGEND, class_="soft"),
    )
