"""A run's figures as SVG inside the page: text and axes take the page's colour, light or dark."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhf.reports.page import Html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]  # a line of metrics.jsonl; null = not finite

INK = "#010203"  # stands for the page's text colour; no other element has it
BLUE, ORANGE, GREY = "#2f81d6", "#e0752d", "#8b949e"  # readable on white and on black
PER_LINE = 4  # panels


def curves(rows: Sequence[Row], names: Sequence[str]) -> Html:
    """A small panel for each metric over the steps; held-out values of the same name as dots."""
    lines = math.ceil(len(names) / PER_LINE)

    def paint(figure: Figure) -> None:
        for place, name in enumerate(names, 1):
            axis = figure.add_subplot(lines, PER_LINE, place)
            axis.plot(*_course(rows, name), color=BLUE, linewidth=1.3, marker="." if len(rows) < 20 else None)
            axis.plot(*_course(rows, f"held_out/{name}"), "o", color=ORANGE, markersize=4)
            axis.set_title(name, fontsize=9, loc="left")
            axis.spines["right"].set_visible(False)

    return svg(11, 1.9 * lines, paint)


def overoptimisation(looks: Sequence[Row], stopped_at: float | None) -> Html:
    """Proxy and gold over the square root of KL (Gao, Schulman and Hilton 2023, figure 1), each on its own axis: a look
    a dot, gold's bars one standard error, lines at gold's best and where the run stopped."""
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

    return svg(11, 4.2, paint)


def _value(row: Row, name: str) -> float:
    value = row.get(name)
    return math.nan if value is None else value


def _course(rows: Sequence[Row], name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of the rows that have the metric."""
    own = [row for row in rows if name in row]
    return [row["step"] for row in own], [_value(row, name) for row in own]


def svg(width: float, height: float, paint: Callable[[Figure], None]) -> Html:
    """What is painted on a figure of this size, in inches."""
    import matplotlib
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    ink = dict.fromkeys(("text.color", "xtick.color", "ytick.color", "axes.edgecolor", "axes.labelcolor"), INK)
    # names are no mathematics: one may hold a $
    with matplotlib.rc_context({**ink, "svg.fonttype": "none", "font.size": 8, "text.parse_math": False}):
        figure = Figure((width, height), layout="constrained")
        figure.patch.set_visible(False)
        paint(figure)
        for axis in figure.axes:
            axis.patch.set_visible(False)
            axis.spines["top"].set_visible(False)
            axis.grid(alpha=0.25)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = text.getvalue()
    return Html(svg[svg.index("<svg") :].replace(INK, "currentColor"))
