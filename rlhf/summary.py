"""A run's result: `summary.json`, and the table at the end of the run with every goal reached or missed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from rlhf.config.schema import Config, Goal
from rlhf.rundir import Artifact, write_atomically

# Figures that the table leaves out, since others tell the same; summary.json and the curves have them.
DETAILS = {
    "accuracy_when_chosen_is_shorter",
    "chosen_reward",
    "desirable_share",
    "held_out_tokens",
    "kl_baseline",
    "length",
    "margin",
    "megabytes",
    "nll",
    "perplexity_before",
    "rejected_reward",
    "reward_of_desirable",
    "reward_of_undesirable",
    "untied",
    "watch_kl",
    "z_loss",
}
HEADINGS = ("data set", "perplexity before", "after", "change", "loss before", "after", "passes")


@dataclass(frozen=True)
class Outcome:
    """A goal and the figure that the phase reached."""

    phase: str
    figure: str
    goal: Goal
    value: float | None  # None: the phase has no such figure

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
    """The run's result. figures: the content of summary.json."""

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
    """Builds the summary from the artifacts and writes summary.json.

    startup: seconds until the first phase began; 0 where nothing was trained, which keeps the start-up time of the run
    that was.
    """
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
    """The goals of the phases that have finished."""
    return [
        Outcome(phase.name, figure, goal, artifacts[phase.name].metrics.get(figure))
        for phase in config.phases
        if phase.name in artifacts
        for figure, goal in phase.goals.items()
    ]


def figures_of(metrics: Mapping[str, float], goals: Iterable[str]) -> list[str]:
    """Names of a phase's figures in the order of the table: goals first, then what the phase returned, `x_before` ahead
    of `x`. Left out are DETAILS and figures of one part, such as `stories/loss`, which have tables and curves of their
    own."""
    shown = [name for name in metrics if "/" not in name and name not in DETAILS]
    in_pairs = [each for name in shown for each in (f"{name}_before", name) if each in shown]
    return list(dict.fromkeys([*goals, *in_pairs]))


@dataclass(frozen=True)
class SetFigures:
    """Held-out loss and perplexity of one data set, before and after training. None: not known."""

    name: str
    perplexity_before: float | None
    perplexity: float | None
    loss_before: float | None
    loss: float | None
    passes: float | None  # over its training rows

    @property
    def cells(self) -> list[str]:
        """As text, in the order of `HEADINGS`."""
        change = ""
        if self.perplexity and self.perplexity_before:
            change = f"{self.perplexity / self.perplexity_before - 1:+.1%}"
        perplexities = [_shown(value, ".2f") for value in (self.perplexity_before, self.perplexity)]
        losses = [_shown(value, ".3f") for value in (self.loss_before, self.loss)]
        return [self.name, *perplexities, change, *losses, _shown(self.passes, ".2f")]


def sets_of(metrics: Mapping[str, float]) -> list[SetFigures]:
    """The data sets of a phase that trained on a mix; empty for a phase with one data set."""
    names = [name.removesuffix("/loss") for name in metrics if name.endswith("/loss")]
    figures = ("perplexity_before", "perplexity", "loss_before", "loss")
    return [
        SetFigures(name, *(metrics.get(f"{name}/{figure}") for figure in figures), metrics.get(f"epochs/{name}"))
        for name in names
    ]


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def render(summary: Summary) -> RenderableType:
    """A table of goals and figures, then a table of data sets for each mix, then answers before and after."""
    table = Table(box=box.SIMPLE_HEAD, title=str(summary.directory), title_justify="left", title_style="bold")
    for heading in ("phase", "figure", "value", "goal", ""):
        table.add_column(heading, justify="right" if heading in ("value", "goal") else "left")
    seconds = summary.figures["seconds"]
    for phase, metrics in summary.figures["phases"].items():
        outcomes = {outcome.figure: outcome for outcome in summary.outcomes if outcome.phase == phase}
        heading = Text.assemble((phase, "bold"), (f"  {seconds[phase]:.0f} s", "dim"))
        figures = figures_of(metrics, outcomes)
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
    """Counts of at least 100 in full, other values with three decimals."""
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
