"""Counts as bars, in SVG inside the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf.reports.curves import BLUE, ORANGE, svg
from rlhf.reports.page import Html

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def stacked(rows: Sequence[tuple[str, int, int]], names: tuple[str, str]) -> Html:
    """A line for each row, the first on top: its two counts end to end, the second with its number."""

    def paint(figure: Figure) -> None:
        axis = figure.add_subplot()
        places = range(len(rows))
        first, second = [row[1] for row in rows], [row[2] for row in rows]
        axis.barh(places, first, color=BLUE, label=names[0])
        axis.barh(places, second, left=first, color=ORANGE, label=names[1])
        axis.set_yticks(places, [row[0] for row in rows])
        axis.invert_yaxis()
        for place, (_, left, dropped) in enumerate(rows):
            axis.annotate(f"{left:,}", (left + dropped, place), (5, 0), textcoords="offset points", va="center")
        axis.margins(x=0.08)
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
        axis.spines["right"].set_visible(False)

    return svg(11, 0.9 + 0.3 * len(rows), paint)


def bars(counts: Sequence[tuple[str, int]]) -> Html:
    """A column for each count, with its name below and its number above."""

    def paint(figure: Figure) -> None:
        axis = figure.add_subplot()
        drawn = axis.bar([name for name, _ in counts], [count for _, count in counts], color=BLUE)
        axis.bar_label(drawn, [f"{count:,}" for _, count in counts], padding=2)
        axis.tick_params(axis="x", rotation=30)
        axis.spines["right"].set_visible(False)

    return svg(11, 2.6, paint)
