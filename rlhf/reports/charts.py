"""A run's and a corpus's figures as SVG inside a page: text and axes take the page's colour, light or dark."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

Row = Mapping[str, Any]  # a line of metrics.jsonl; null = not finite

INK = "#010203"  # stands for the page's text colour; no other element has it
BLUE, ORANGE, GREY = "#2f81d6", "#e0752d", "#8b949e"  # readable on white and on black
WIDTH = 11  # inches
PER_LINE = 4  # panels


def curves(rows: Sequence[Row], names: Sequence[str]) -> Markup:
    """A small panel for each metric over the steps; held-out values of the same name as dots."""
    lines = math.ceil(len(names) / PER_LINE)
    height = 1.9 * lines

    def paint(figure: Figure) -> None:
        # fixed margins (0.25 inches above and below): a layout engine takes as long as all the drawing
        figure.subplots_adjust(0.062, 0.25 / height, 0.99, 1 - 0.25 / height, wspace=0.33, hspace=0.4)
        for place, name in enumerate(names, 1):
            axis = figure.add_subplot(lines, PER_LINE, place)
            axis.plot(*_course(rows, name), color=BLUE, linewidth=1.3, marker="." if len(rows) < 20 else None)
            axis.plot(*_course(rows, f"held_out/{name}"), "o", color=ORANGE, markersize=4)
            axis.set_title(name, fontsize=9, loc="left")
            axis.spines["right"].set_visible(False)

    return svg(height, paint, layout=None)


def overoptimisation(looks: Sequence[Row], stopped_at: float | None) -> Markup:
    """Proxy and gold over the square root of KL (Gao, Schulman and Hilton 2023, figure 1), each on its own axis. A look
    is a dot; gold's bars are one standard error; lines mark gold's best look and the look at which the run stopped."""
    distance = [math.sqrt(max(look["watch/kl"], 0.0)) for look in looks]  # an estimate of KL may be below 0
    golds = [look["watch/gold"] for look in looks]
    best = golds.index(max(golds))
    marks = [(f"gold's best, step {looks[best]['step']}", distance[best])]
    if stopped_at is not None:
        marks.append((f"stopped, step {stopped_at:.0f}", distance[-1]))
    drawn = {"marker": "o", "markersize": 4, "linewidth": 1.3}

    def paint(figure: Figure) -> None:
        proxy = figure.add_subplot()
        gold = proxy.twinx()
        proxy.plot(distance, [_value(look, "watch/proxy") for look in looks], color=ORANGE, **drawn)
        errors = [look.get("watch/gold_error") or 0.0 for look in looks]
        gold.errorbar(distance, golds, errors, color=BLUE, capsize=2, **drawn)
        for height, (text, where) in zip((1.02, 1.08), marks):  # above the figure, where no curve is
            proxy.axvline(where, color=GREY, linestyle="--", linewidth=1)
            proxy.annotate(text, (where, height), xycoords=("data", "axes fraction"), color=GREY, ha="center")
        proxy.set_xlabel("√KL(policy ‖ reference), KL in nats an answer")
        proxy.set_ylabel("reward (proxy)", color=ORANGE)
        gold.set_ylabel("gold", color=BLUE)

    return svg(4.2, paint)


def stacked_bars(rows: Sequence[tuple[str, int, int]], names: tuple[str, str]) -> Markup:
    """A bar for each row (label, count, count), the first row on top: its two counts end to end, the first one's number
    beside."""

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

    return svg(0.9 + 0.3 * len(rows), paint)


def columns(counts: Sequence[tuple[str, int]]) -> Markup:
    """A column for each count, with its name below and its number above."""

    def paint(figure: Figure) -> None:
        axis = figure.add_subplot()
        drawn = axis.bar([name for name, _ in counts], [count for _, count in counts], color=BLUE)
        axis.bar_label(drawn, [f"{count:,}" for _, count in counts], padding=2)
        axis.tick_params(axis="x", rotation=30)
        axis.spines["right"].set_visible(False)

    return svg(2.6, paint)


def _value(row: Row, name: str) -> float:
    value = row.get(name)
    return math.nan if value is None else value


def _course(rows: Sequence[Row], name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of the rows that have the metric."""
    own = [row for row in rows if name in row]
    return [row["step"] for row in own], [_value(row, name) for row in own]


def svg(height: float, paint: Callable[[Figure], None], layout: str | None = "constrained") -> Markup:
    """The SVG of a figure that `paint` draws on. height: in inches."""
    import matplotlib
    from markupsafe import Markup
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    ink = dict.fromkeys(("text.color", "xtick.color", "ytick.color", "axes.edgecolor", "axes.labelcolor"), INK)
    # names are no formulas: one may hold a $
    with matplotlib.rc_context({**ink, "svg.fonttype": "none", "font.size": 8, "text.parse_math": False}):
        figure = Figure((WIDTH, height), layout=layout)
        figure.patch.set_visible(False)
        paint(figure)
        for axis in figure.axes:
            axis.patch.set_visible(False)
            axis.spines["top"].set_visible(False)
            axis.grid(alpha=0.25)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = text.getvalue()
    return Markup(drawn[drawn.index("<svg") :].replace(INK, "currentColor"))
