"""A scaling law in tables and lines, the same for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from rlhf.reports.html import png, render
from rlhf.reports.plan_tables import terminal_table

POINTS = ("size", "N", "D", "FLOPs", "loss", "predicted", "error", "s")
BUDGETS = ("FLOPs", "of the largest", "best N", "best D", "loss", "between", "best of the sizes")
LEGEND = (
    "N: all parameters; D: tokens trained on; *: held out, not fitted; between: lowest and highest loss by the fits that leave "
    "one training out; s: seconds of the last attempt"
)
CAPTION = (
    "Left: each size's losses over tokens, with the law's curves; a held-out size, which the fit did not see, is dashed."
    " Right: the lowest loss for each amount of compute; a star is a budget, with the size and tokens that reach it."
)
NOTHING = 1e-6  # nats: a lower irreducible loss is shown as 0; the fit works on its logarithm and cannot reach 0
Figures = Mapping[str, Any]  # the content of scaling.json


def point_rows(figures: Figures) -> list[Sequence[str]]:
    """Rows under the headings `POINTS`, held-out trainings last."""
    return [
        (
            point["size"] + ("*" if point["held_out"] else ""),
            count(point["parameters"]),
            count(point["tokens"]),
            f"{point['compute']:.2e}",
            f"{point['loss']:.4f}",
            f"{point['predicted']:.4f}",
            f"{point['error']:+.2%}",
            f"{point['seconds']:.0f}",
        )
        for point in figures["points"]
    ]


def budget_rows(figures: Figures) -> list[Sequence[str]]:
    """Rows under the headings `BUDGETS`."""
    return [
        (
            f"{budget['compute']:.2e}",
            f"{budget['beyond']:.3g} x",
            count(budget["parameters"]),
            count(budget["tokens"]),
            f"{budget['loss']:.3f}",
            "{:.3f}-{:.3f}".format(*budget["loss_between"]),
            budget["best_size"]["name"],
        )
        for budget in figures["budgets"]
    ]


def scaling_page(name: str, figures: Figures, plot: Path) -> str:
    """The HTML page. plot: the PNG that the page holds."""
    return render(
        "scaling.html",
        title=f"{name}: scaling",
        law=law_text(figures),
        errors="; ".join(text for text in (error_text(figures), range_text(figures)) if text),
        notes=figures["notes"],
        plot=png(plot),
        caption=CAPTION,
        budgets=budget_rows(figures),
        budget_headings=BUDGETS,
        points=point_rows(figures),
        point_headings=POINTS,
        legend=LEGEND,
    )


def show(figures: Figures, console: Console) -> None:
    """Prints the law, its errors, the budgets and the trainings."""
    for headings, rows in ((POINTS, point_rows(figures)), (BUDGETS, budget_rows(figures))):
        if not rows:
            continue
        table = terminal_table(*headings)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    ranges = range_text(figures)
    for line in (LEGEND, law_text(figures), *([ranges] if ranges else []), error_text(figures), *figures["notes"]):
        console.print(Text(line), soft_wrap=True)


def law_text(figures: Figures) -> str:
    """The law as a line."""
    law = figures["law"]
    irreducible = 0.0 if law["E"] < NOTHING else law["E"]
    return f"L(N, D) = {irreducible:.4g} + {law['A']:.4g} / N^{law['alpha']:.4g} + {law['B']:.4g} / D^{law['beta']:.4g}"


def range_text(figures: Figures) -> str:
    """Each parameter's range over the fits that leave one training out, as a line; empty where there are no such
    fits."""
    laws = figures["without_one"]
    ranges = {letter: [law[letter] for law in laws] for letter in figures["law"]} if laws else {}
    told = ", ".join(f"{letter} {min(values):.3g} to {max(values):.3g}" for letter, values in ranges.items())
    return f"fits that leave one training out: {told}" if told else ""


def error_text(figures: Figures) -> str:
    """The largest errors of fitted and of held-out losses, as a line."""
    told = f"largest error of a fitted loss {figures['fit_error']:.2%}"
    error = figures["held_out_error"]
    return told + (", nothing held out" if error is None else f", of a held-out one {error:.2%}")


def count(value: float) -> str:
    """Three digits with a unit: 1.23M."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
