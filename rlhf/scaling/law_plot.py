"""The plot of a scaling law: losses over tokens for each size, and the lowest loss over compute. Sizes differ in marker
and shade, so the plot is readable without colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf.scaling.law import FLOPS_PER_PARAMETER_AND_TOKEN, Law
from rlhf.scaling.law_tables import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GREY = "#24292f", "#9aa3ad"
MARKERS = "osD^vPX<>p"
Figures = Mapping[str, Any]  # the content of scaling.json


def draw(figures: Figures, law: Law, path: Path) -> None:
    """Writes both panels as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    looks = _looks(figures)
    for panel, axis in ((_over_tokens, left), (_over_compute, right)):
        axis.set_xscale("log")
        panel(axis, figures, law, looks)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(GREY)
        axis.tick_params(colors=INK, labelsize=9)
        axis.grid(color=GREY, alpha=0.25, linewidth=0.8)
        axis.set_axisbelow(True)
    figure.savefig(path)


def _looks(figures: Figures) -> dict[str, dict[str, Any]]:
    """Colour and marker of each size; larger sizes are darker."""
    from matplotlib import colormaps

    sizes = sorted({(point["parameters"], point["size"]) for point in figures["points"]})
    shades = np.linspace(0.72, 0.05, len(sizes))
    return {
        name: {"color": colormaps["viridis"](shade), "marker": MARKERS[place % len(MARKERS)]}
        for place, ((_, name), shade) in enumerate(zip(sizes, shades))
    }


def _over_tokens(axis: Axes, figures: Figures, law: Law, looks: Mapping[str, Mapping[str, Any]]) -> None:
    """For each size a curve of the law, and dots for measured losses; a held-out size has a dashed curve and hollow
    dots."""
    from matplotlib.ticker import NullLocator

    points = figures["points"]
    tokens = [point["tokens"] for point in points]
    course = np.geomspace(min(tokens) / 1.15, max(tokens) * 1.15, 100)
    for name, look in looks.items():
        own = [point for point in points if point["size"] == name]
        held_out = own[0]["held_out"]
        label = f"{name}: {count(own[0]['parameters'])}{', held out' if held_out else ''}"
        line = "--" if held_out else "-"
        axis.plot(course, law.loss(own[0]["parameters"], course), color=look["color"], linewidth=1.4, linestyle=line)
        _dots(axis, own, "tokens", look, label)
    axis.set_xticks(sorted(set(tokens)), [count(value) for value in sorted(set(tokens))])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set(xlabel="tokens trained on", ylabel="held-out loss, nats a token")
    axis.legend(frameon=False, fontsize=8, title="parameters", title_fontsize=8)
    axis.set_title("Measured, and the fitted law", loc="left", fontsize=11, fontweight="bold", color=INK)


def _over_compute(axis: Axes, figures: Figures, law: Law, looks: Mapping[str, Mapping[str, Any]]) -> None:
    """The lowest loss for each amount of compute, and for each budget the size that reaches it."""
    computes = [point["compute"] for point in figures["points"]]
    budgets = figures["budgets"]
    course = np.geomspace(min(computes), max(computes + [budget["compute"] for budget in budgets]), 100)
    if not figures["untold"]:
        axis.plot(course, [law.optimum(compute).loss for compute in course], color=INK, linewidth=1.6)
    for name, look in looks.items():
        _dots(axis, [point for point in figures["points"] if point["size"] == name], "compute", look)
    for budget in budgets:
        axis.plot(budget["compute"], budget["loss"], marker="*", markersize=11, color=INK)
        told = f"{count(budget['parameters'])}\n{count(budget['tokens'])} tokens"
        axis.annotate(
            told,
            (budget["compute"], budget["loss"]),
            (0, -9),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
        )
    axis.margins(x=0.12, y=0.18)
    compute = f"compute, floating-point operations ({FLOPS_PER_PARAMETER_AND_TOKEN} x parameters x tokens)"
    axis.set(xlabel=compute, ylabel="loss, nats a token")
    axis.set_title(
        "Best size and tokens for each amount of compute", loc="left", fontsize=11, fontweight="bold", color=INK
    )


def _dots(
    axis: Axes, points: list[Mapping[str, Any]], over: str, look: Mapping[str, Any], label: str | None = None
) -> None:
    hollow = points[0]["held_out"]
    axis.plot(
        [point[over] for point in points],
        [point["loss"] for point in points],
        linestyle="none",
        markersize=7,
        markeredgecolor=look["color"],
        markerfacecolor="white" if hollow else look["color"],
        markeredgewidth=1.6,
        marker=look["marker"],
        label=label,
    )
