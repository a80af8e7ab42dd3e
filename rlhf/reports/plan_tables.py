"""Tables for the terminal: where a config's models would run, and what its phases would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from rlhf.config.resolved import Resolved
from rlhf.config.schema import Phase


def terminal_table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def placement_table(rows: Sequence[Mapping[str, Any]], on_gpus: bool) -> Table:
    """rows: of `actors.placement.Placement`."""
    table = terminal_table("pool", "devices", "role", "ranks", f"{'GPU' if on_gpus else 'CPU'} of each rank")
    pool = None
    for row in rows:
        first = [row["pool"], str(row["devices"])] if row["pool"] != pool else ["", ""]
        table.add_row(*first, row["role"], str(row["ranks"]), f"{row['share']:g}")
        pool = row["pool"]
    return table


def phases_table(resolved: Resolved) -> Table:
    table = terminal_table("phase", "kind", "models start from", "data", "steps")
    for phase in resolved.phases:
        starts = "\n".join(f"{role}: {model.path or 'scratch'}" for role, model in phase.needed.items())
        inputs, extent = "\n".join(_inputs(phase.settings)), _extent(phase.settings)
        table.add_row(phase.name, phase.kind.name, starts, inputs, extent)
    return table


def _inputs(phase: Phase) -> list[str]:
    if phase.kind == "corpus":
        return [source.name for source in phase.sources]
    mixed = [f"{name}: {path}" for name, part in phase.data.mix.items() for path in part.paths]
    return mixed or phase.data.paths


def _extent(phase: Phase) -> str:
    if phase.kind == "corpus":
        return ", ".join(step.name for step in phase.steps)
    if phase.kind == "rl":
        return f"{phase.steps} x {phase.prompts_per_step} prompts x {phase.sampling.samples}"
    if phase.kind == "best_of_n":
        return f"{phase.keep} of {phase.sampling.samples} samples a prompt"
    if phase.kind == "label":
        return f"{phase.sampling.samples} samples a prompt, compared"
    passes = f"{phase.epochs} epoch{'s' if phase.epochs > 1 else ''}"
    length = f"{phase.steps} steps" if phase.steps else passes
    return f"{length} of {phase.batch_size} rows"
