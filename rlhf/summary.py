"""What a run came to: `summary.json`, and the table at the end with every goal reached or missed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from rlhf.config.schema import Config, Goal
from rlhf.reports.sets import HEADINGS, SetFigures, sets_of
from rlhf.rundir import Artifact, write_atomically

# shown beside the goals, where a phase has them
BEHIND_GOALS = (
    "records_read",
    "documents",
    "quarantined",
    "tokens",
    "tokens_per_byte",
    "perplexity",
    "unigram_perplexity",
    "loss_before",
    "loss",
    "pair_accuracy",
    "accuracy",
    "mae",
    "ece",
    "length_correlation",
    "gold",
    "gold_before",
    "gold_after",
    "gold_best",
    "reward",
    "reward_kept",
    "rows",
    "labelled",
    "position_bound",
    "first_position",
    "agreement_before_swap",
    "agreement",
    "kl",
    "watch_proxy",
    "watch_gold",
    "gold_at_best",
    "kl_at_best",
    "step_at_best",
    "stopped_at",
    "incidents",
)


@dataclass(frozen=True)
class Outcome:
    """One goal: what was wanted and what came."""

    phase: str
    figure: str
    goal: Goal
    value: float | None

    @property
    def reached(self) -> bool:
        low, high = self.goal.at_least, self.goal.at_most
        return self.value is not None and (low is None or self.value >= low) and (high is None or self.value <= high)

    @property
    def wanted(self) -> str:
        bounds = [(self.goal.at_least, "≥"), (self.goal.at_most, "≤")]
        return " and ".join(f"{sign} {bound:g}" for bound, sign in bounds if bound is not None)


@dataclass(frozen=True)
class Summary:
    """The run's result. `figures` is the content of summary.json."""

    directory: Path
    figures: dict[str, Any]
    outcomes: list[Outcome]
    answers: dict[str, list[dict[str, Any]]]

    @property
    def missed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.reached]

    def show(self, console: Console | None = None) -> None:
        """Prints the table of goals and the answers."""
        (console or Console()).print(render(self))


def summarise(config: Config, artifacts: Mapping[str, Artifact], startup: float, root: Path) -> Summary:
    """Builds the summary from the artifacts and writes summary.json. Start-up time is that of the run which trained."""
    path = root / "summary.json"
    if not startup and path.exists():
        startup = json.loads(path.read_text())["seconds"].get("startup", 0.0)
    seconds = {"startup": round(startup, 2)} | {name: artifact.seconds for name, artifact in artifacts.items()}
    syncs = [artifact.syncs for artifact in artifacts.values()]
    figures = {
        "phases": {name: artifact.metrics for name, artifact in artifacts.items()},
        "weight_syncs": {key: sum(sync.get(key, 0) for sync in syncs) for key in ("count", "failed")},
        "seconds": seconds | {"total": round(sum(seconds.values()), 2)},
    }
    write_atomically(path, json.dumps(figures, indent=2) + "\n")
    answers = {name: artifact.answers for name, artifact in artifacts.items() if artifact.answers}
    return Summary(root, figures, outcomes_of(config, artifacts), answers)


def outcomes_of(config: Config, artifacts: Mapping[str, Artifact]) -> list[Outcome]:
    """Every goal of the phases that have finished."""
    return [
        Outcome(phase.name, figure, goal, artifacts[phase.name].metrics.get(figure))
        for phase in config.phases
        if phase.name in artifacts
        for figure, goal in phase.goals.items()
    ]


def render(summary: Summary) -> RenderableType:
    """A table with every goal and the figures behind it, then answers before and after."""
    table = Table(box=box.SIMPLE_HEAD, title=str(summary.directory), title_justify="left", title_style="bold")
    for heading, justify in (
        ("phase", "left"),
        ("figure", "left"),
        ("value", "right"),
        ("goal", "right"),
        ("", "left"),
    ):
        table.add_column(heading, justify=justify)
    seconds = summary.figures["seconds"]
    for phase, metrics in summary.figures["phases"].items():
        outcomes = {outcome.figure: outcome for outcome in summary.outcomes if outcome.phase == phase}
        heading = Text.assemble((phase, "bold"), (f"  {seconds[phase]:.0f} s", "dim"))
        figures = [*outcomes, *(name for name in BEHIND_GOALS if name in metrics and name not in outcomes)]
        if not figures:
            table.add_row(heading)
        for figure in figures:
            value = metrics.get(figure)
            shown = "missing" if value is None else number(value)
            if figure in outcomes:
                table.add_row(heading, readable(figure), shown, outcomes[figure].wanted, mark(outcomes[figure].reached))
            else:
                table.add_row(heading, Text(readable(figure), "dim"), Text(shown, "dim"))
            heading = Text()
        table.add_section()
    syncs = summary.figures["weight_syncs"]
    if syncs["count"]:
        heading = Text.assemble(("every sync", "bold"), (f"  {syncs['count']}", "dim"))
        table.add_row(heading, "failed checksums and canaries", str(syncs["failed"]), "≤ 0", mark(not syncs["failed"]))
        table.add_section()
    table.add_row(Text.assemble(("total", "bold"), (f"  {seconds['total']:.0f} s", "dim")))
    mixes = {phase: sets for phase, metrics in summary.figures["phases"].items() if (sets := sets_of(metrics))}
    return Group(
        table,
        *(render_sets(phase, sets) for phase, sets in mixes.items()),
        *(render_answers(phase, answers) for phase, answers in summary.answers.items()),
    )


def number(value: float) -> str:
    """Counts in full, everything else to three digits behind the point."""
    return f"{value:,.0f}" if value >= 100 and value == int(value) else f"{value:.3f}"


def mark(reached: bool) -> Text:
    return Text("reached", "green") if reached else Text("missed", "bold red")


def readable(figure: str) -> str:
    return "KL to the reference, nats" if figure == "kl" else figure.replace("_", " ").replace("kl", "KL")


def render_sets(phase: str, sets: list[SetFigures]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{phase}: held-out rows of each data set", title_justify="left", title_style="bold"
    )
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == HEADINGS[0] else "right")
    for each in sets:
        table.add_row(*each.cells)
    return table


def render_answers(phase: str, answers: list[dict[str, Any]]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{phase}: answers", title_justify="left", title_style="bold", show_lines=True
    )
    before = any(answer["before"] is not None for answer in answers)
    for heading in ("prompt", "before", "after") if before else ("prompt", "answer"):
        table.add_column(heading, ratio=1)
    for answer in answers:
        cells = [answer["prompt"], *([answer["before"]] if before else []), answer["after"]]
        table.add_row(*(Text(cell or "") for cell in cells))
    return table
