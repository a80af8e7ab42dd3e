"""The plot of a calibration report: accuracy by confidence and margin, and the effect of length on scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.reports.calibration import COUNTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREY, INK = "#2f6fb5", "#dd7a2b", "#9aa3ad", "#24292f"
LABEL = {"ha": "center", "va": "top", "fontsize": 8, "color": "white", "fontweight": "bold"}
Report = Mapping[str, Any]


def draw(report: Report, path: Path) -> None:
    """Writes the panels of the report's kind as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = PANELS[report["kind"]]
    columns = 3 if len(panels) == 3 else 2
    rows = len(panels) // columns
    figure = Figure(figsize=(5.2 * columns, 3.9 * rows), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns).flatten()
    for panel, ax in zip(panels, axes):
        panel(ax, report)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(GREY)
        ax.tick_params(colors=INK, labelsize=9)
        ax.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.8)
        ax.set_axisbelow(True)
    figure.savefig(path)


def reliability(ax: Axes, report: Report) -> None:
    """Accuracy over confidence; a point's area grows with the count of its bin."""
    bins, most = report["reliability"], max((part["count"] for part in report["reliability"]), default=1)
    ax.plot([0.5, 1], [0.5, 1], color=GREY, linestyle="--", linewidth=1.2, label="perfectly calibrated")
    confidence, accuracy = ([part[name] for part in bins] for name in ("confidence", "accuracy"))
    ax.plot(confidence, accuracy, color=BLUE, linewidth=1.6)
    sizes = [20 + 160 * part["count"] / most for part in bins]
    ax.scatter(
        confidence,
        accuracy,
        s=sizes,
        color=BLUE,
        edgecolor="white",
        zorder=3,
        label=f"larger = more {COUNTED[report['kind']]}",
    )
    ax.set(xlim=(0.485, 1.015), ylim=(min([0.45, *accuracy]) - 0.04, 1.04), xlabel="confidence", ylabel="accuracy")
    _title(ax, "Reliability", f"expected calibration error {_number(report['ece'])}")
    ax.legend(frameon=False, fontsize=8, loc="lower right")


def by_margin(ax: Axes, report: Report) -> None:
    parts = report["by_margin"]
    _accuracy_bars(ax, parts, report["accuracy"])
    ax.set(xlabel="difference of scores" if report["kind"] == "comparisons" else "|score|", ylabel="accuracy")
    _title(ax, "Accuracy by margin", f"overall {_number(report['accuracy'])}")


def by_length_difference(ax: Axes, report: Report) -> None:
    _accuracy_bars(ax, report["by_length_difference"], report["accuracy"], "{:.0f}")
    ax.set(xlabel="tokens by which the chosen answer is longer", ylabel="accuracy")
    shorter = report["accuracy_when_chosen_is_shorter"]
    _title(ax, "Accuracy by length difference", f"{_number(shorter)} where the chosen answer is shorter")


def score_by_length(ax: Axes, report: Report) -> None:
    parts = report["score_by_length"]
    places = [(part["from"] + part["to"]) / 2 for part in parts]
    ax.plot(places, [part["mean"] for part in parts], color=BLUE, marker="o", linewidth=1.6)
    ax.set(xlabel="tokens of the answer", ylabel="mean score")
    _title(ax, "Score by length", f"correlation with length {_number(report['length_correlation'])}")


def by_rating(ax: Axes, report: Report) -> None:
    parts = report["by_rating"]
    places = [(part["from"] + part["to"]) / 2 for part in parts]
    ends = [min([part["from"] for part in parts], default=0), max([part["to"] for part in parts], default=1)]
    ax.plot(ends, ends, color=GREY, linestyle="--", linewidth=1.2, label="as rated")
    ax.plot(places, [part["mean"] for part in parts], color=BLUE, marker="o", linewidth=1.6, label="mean score")
    ax.set(xlabel="rating", ylabel="score")
    _title(ax, "Score by rating", f"mean absolute error {_number(report['mae'])}")
    ax.legend(frameon=False, fontsize=8)


def scores(ax: Axes, report: Report) -> None:
    """Histograms over shared bins, as shares of each histogram's rows."""
    edges, *named = report["scores"].values()
    names = [name for name in report["scores"] if name != "edges"]
    for name, counts, colour in zip(names, named, (BLUE, ORANGE)):
        total = max(sum(counts), 1)
        ax.stairs([count / total for count in counts], edges, fill=True, color=colour, alpha=0.45, label=name)
        ax.stairs([count / total for count in counts], edges, color=colour, linewidth=1.4)
    counted = COUNTED[report["kind"]] if report["kind"] in ("steps", "questions") else "answers"
    ax.set(xlabel="score", ylabel=f"share of {counted}")
    _title(ax, "Scores", f"of {report['rows']:,} held-out {counted}")
    ax.legend(frameon=False, fontsize=9)


PANELS: Mapping[str, tuple[Callable[[Axes, Report], None], ...]] = {
    "comparisons": (reliability, by_margin, by_length_difference, scores),
    "labels": (reliability, by_margin, score_by_length, scores),
    "questions": (reliability, by_margin, scores),
    "steps": (reliability, by_margin, scores),
    "ratings": (by_rating, scores, score_by_length),
}


def _accuracy_bars(ax: Axes, parts: Sequence[Mapping[str, float]], overall: float | None, form: str = "{:.2g}") -> None:
    from matplotlib.ticker import MaxNLocator

    places = range(len(parts))
    ax.bar(places, [part["mean"] for part in parts], color=BLUE, width=0.72)
    for place, part in zip(places, parts):
        ax.text(place, max(part["mean"], 0.06) - 0.02, f"{part['mean']:.2f}", **LABEL)
    ax.axhline(0.5, color=GREY, linestyle="--", linewidth=1.2, zorder=0.5)
    if overall is not None:
        ax.axhline(overall, color=ORANGE, linewidth=1.2, zorder=0.5)
    ranges = [f"{form.format(part['from'])}\nto {form.format(part['to'])}" for part in parts]
    ax.set_xticks(list(places), ranges, fontsize=8)
    ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.set_ylim(0, 1.1)


def _title(ax: Axes, title: str, told: str) -> None:
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=20)
    ax.text(0, 1.02, told, transform=ax.transAxes, fontsize=9, color=INK, va="bottom")


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
