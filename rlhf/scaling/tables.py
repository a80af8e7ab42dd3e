"""The rows of a scaling report's tables, the same for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from rlhf.reports.tables import terminal_table

POINTS = ("size", "parameters", "tokens", "FLOPs", "loss", "predicted", "error", "seconds")
BUDGETS = (
    "FLOPs",
    "times the largest training",
    "best parameters",
    "best tokens",
    "loss",
    "loss, leave-one-out",
    "best of these sizes",
)
Figures = Mapping[str, Any]  # the content of scaling.json


def point_rows(figures: Figures) -> list[Sequence[str]]:
    """Of `POINTS`, the held-out ones last."""
    return [
        (
            point["size"] + (" (held out)" if point["held_out"] else ""),
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
    """Of `BUDGETS`."""
    return [
        (
            f"{budget['compute']:.2e}",
            f"{budget['beyond']:.3g}",
            count(budget["parameters"]),
            count(budget["tokens"]),
            f"{budget['loss']:.4f}",
            "{:.4f} to {:.4f}".format(*budget["loss_between"]),
            f"{budget['best_size']['name']}: {count(budget['best_size']['tokens'])} tokens, {budget['best_size']['loss']:.4f}",
        )
        for budget in figures["budgets"]
    ]


def show(figures: Figures, console: Console) -> None:
    """Prints the law, its errors, the budgets and the trainings."""
    for headings, rows in ((POINTS, point_rows(figures)), (BUDGETS, budget_rows(figures))):
        table = terminal_table(*headings)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in (
        law_text(figures),
        f"fitted without one training: {range_text(figures)}",
        error_text(figures),
        *figures["notes"],
    ):
        console.print(Text(line), soft_wrap=True)


def law_text(figures: Figures) -> str:
    """The law as a line."""
    law = figures["law"]
    return f"L(N, D) = {law['E']:.4g} + {law['A']:.4g} / N^{law['alpha']:.4g} + {law['B']:.4g} / D^{law['beta']:.4g}"


def range_text(figures: Figures) -> str:
    """Each parameter's range among the leave-one-out fits."""
    laws = figures["without_one"]
    ranges = {letter: [law[letter] for law in laws] for letter in figures["law"]} if laws else {}
    return ", ".join(f"{letter} {min(values):.3g} to {max(values):.3g}" for letter, values in ranges.items())


def error_text(figures: Figures) -> str:
    """How well the law tells what it was fitted to, and what it was not."""
    told = f"largest error of a fitted loss {figures['fit_error']:.2%}"
    error = figures["held_out_error"]
    return told + (", nothing held out" if error is None else f", of a held-out one {error:.2%}")


def count(value: float) -> str:
    """Three digits with a unit: 1.23M."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
