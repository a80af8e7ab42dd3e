"""The run report: `report.html` in the run directory, one file that needs nothing from outside. It may be written at
any time, of a run that is going on too."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config.load import load_config
from rlhf.config.schema import Phase
from rlhf.corpus import PAGE
from rlhf.phases.spikes import Incident, read_incidents
from rlhf.reports.curves import Row, curves, overoptimisation
from rlhf.reports.page import Html, element, listing, number, page, picture, png, table
from rlhf.reports.sets import HEADINGS, sets_of
from rlhf.rundir import Artifact, RunDirectory, write_atomically
from rlhf.summary import BEHIND_GOALS, Outcome, outcomes_of, readable

REPORT = "report.html"
CALIBRATION = "calibration.png"  # of a reward phase's artifact
# in this order, where a phase has them; then each part of the reward
CURVES = (
    "loss",
    "accuracy",
    "margin",
    "reward",
    "kl",
    "length",
    "truncated",
    "policy/loss",
    "policy/clip_fraction",
    "critic/loss",
    "dropped",
    "grad_norm",
    "lr",
    "tokens/s",
)
DRIFT = ("watch/length", "watch/repetition", "watch/truncated", "watch/entropy", "watch/format")
OVEROPTIMISATION = (
    "Orange is the reward that the policy is trained on, blue the gold reward, which it never sees, with one standard"
    " error. Where blue falls while orange rises, the policy has learned what the reward gets wrong."
)


@dataclass(frozen=True)
class PhaseFiles:
    """What a run directory holds of one phase."""

    phase: Phase
    artifact: Artifact | None  # None: not finished
    rows: Sequence[Row]  # of metrics.jsonl
    alarms: Sequence[Row]
    incidents: Sequence[Incident]
    outcomes: Sequence[Outcome]

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.artifact.metrics if self.artifact else {}


def write_report(root: Path) -> Path:
    """Writes the report of the run in this directory; returns its path. Raises UserError where config.yaml is not a
    config."""
    config = load_config(root / "config.yaml")
    artifacts = RunDirectory(root).finished(phase.name for phase in config.phases)
    rows, alarms = _by_phase(root / "metrics.jsonl"), _by_phase(root / "alarms.jsonl")
    outcomes = outcomes_of(config, artifacts)
    phases = [
        PhaseFiles(
            phase,
            artifacts.get(phase.name),
            rows[phase.name],
            alarms[phase.name],
            _incidents_of(RunDirectory(root), phase.name, artifacts.get(phase.name)),
            [outcome for outcome in outcomes if outcome.phase == phase.name],
        )
        for phase in config.phases
    ]
    body = [element("h1", config.run.name), element("p", str(root), class_="soft"), _summary(phases)]
    write_atomically(
        root / REPORT, page(config.run.name, *body, *(_section(each) for each in phases if each.rows or each.artifact))
    )
    return root / REPORT


def _incidents_of(run: RunDirectory, phase: str, artifact: Artifact | None) -> Sequence[Incident]:
    """Of the finished phase, or of the checkpoint that an unfinished one would go on from."""
    current = run.root / "checkpoints" / phase / "CURRENT"
    if artifact:
        return read_incidents(run.incidents(phase), artifact.id)
    if not current.exists():
        return ()
    progress = json.loads((current.parent / current.read_text().strip() / "progress.json").read_text())
    return read_incidents(run.incidents(phase), progress["owner"])


def _by_phase(path: Path) -> dict[str, list[Row]]:
    """The complete lines of a file: a run that is going on may be writing the last one."""
    found = defaultdict(list)
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.endswith("}"):
            row = json.loads(line)
            found[row["phase"]].append(row)
    return found


def _summary(phases: Sequence[PhaseFiles]) -> Html:
    rows = []
    for each in phases:
        goals = {outcome.figure: outcome for outcome in each.outcomes}
        figures = [*goals, *(name for name in BEHIND_GOALS if name in each.metrics and name not in goals)]
        state = f"{each.artifact.seconds:.0f} s" if each.artifact else "not finished"
        heading = element("td", element("strong", each.phase.name), " ", element("span", state, class_="soft"))
        for figure in figures or [None]:
            rows.append(
                [heading, *(_figure_cells(figure, each.metrics.get(figure), goals.get(figure)) if figure else ())]
            )
            heading = element("td")
    return table(("phase", "figure", "value", "goal", ""), rows)


def _figure_cells(figure: str, value: float | None, outcome: Outcome | None) -> list[str | Html]:
    shown = number("missing" if value is None else f"{value:.4g}")
    if outcome is None:
        return [element("td", readable(figure), class_="soft"), shown, "", ""]
    mark = element("td", "reached", class_="good") if outcome.reached else element("td", "missed", class_="bad")
    return [readable(figure), shown, number(outcome.wanted), mark]


def _section(each: PhaseFiles) -> Html:
    kind = each.phase.kind if each.phase.kind != each.phase.name else ""
    parts = [
        element("h2", each.phase.name, " ", element("span", kind, class_="soft")),
        *_corpus(each),
        *_alarms(each),
        *_incidents(each),
        *_training(each),
        *_sets(each),
        *_watch(each),
        *_calibration(each),
        *_data(each),
        *_answers(each),
    ]
    return element("section", *parts)


def _corpus(each: PhaseFiles) -> list[Html]:
    if not each.artifact or not (each.artifact.path / PAGE).exists():
        return []
    link = f"artifacts/{each.phase.name}/{PAGE}"
    return [element("p", element("a", "What each step dropped, and why", href=link))]


def _alarms(each: PhaseFiles) -> list[Html]:
    texts = [f"step {alarm['step']}: {alarm['text']}" for alarm in each.alarms]
    return [listing(texts, class_="alarms")] if texts else []


def _incidents(each: PhaseFiles) -> list[Html]:
    if not each.incidents:
        return []
    rows = [
        [number(str(found.step)), found.reason, number(str(found.back_to)), number(f"{found.skipped:,}")]
        for found in each.incidents
    ]
    headings = ("step", "what went wrong", "back to step", "rows skipped")
    return [element("h3", "Incidents"), table(headings, rows)]


def _sets(each: PhaseFiles) -> list[Html]:
    rows = [[cells[0], *map(number, cells[1:])] for cells in (found.cells for found in sets_of(each.metrics))]
    return [element("h3", "Held-out rows of each data set"), table(HEADINGS, rows)] if rows else []


def _training(each: PhaseFiles) -> list[Html]:
    known = {name for row in each.rows for name in row}
    names = [name for name in CURVES if name in known]
    parts = sorted(name for name in known if name.startswith("reward/"))
    names += parts if len(parts) > 1 else []  # a single part is the reward itself
    held_out = "; orange dots are held-out rows" if any(f"held_out/{name}" in known for name in names) else ""
    return [picture(curves(each.rows, names), f"Over the steps{held_out}.")] if names else []


def _watch(each: PhaseFiles) -> list[Html]:
    looks = [row for row in each.rows if "watch/proxy" in row]
    names = [name for name in DRIFT if any(name in look for look in looks)]
    found = [picture(curves(looks, names), "What answers were like, at each look of the watch.")] if names else []
    measured = [look for look in looks if look.get("watch/gold") is not None and look.get("watch/kl") is not None]
    if measured:
        figure = overoptimisation(measured, each.metrics.get("stopped_at"))
        found = [element("h3", "Reward and gold over KL"), picture(figure, OVEROPTIMISATION), *found]
    return found


def _calibration(each: PhaseFiles) -> list[Html]:
    path = each.artifact and each.artifact.path / CALIBRATION
    if not path or not path.exists():
        return []
    return [element("h3", "Calibration"), picture(png(path), "How often the model is right, by how sure it is.")]


def _data(each: PhaseFiles) -> list[Html]:
    if not each.artifact or not each.artifact.data:
        return []
    rows = [
        [
            report["name"],
            *(number(f"{report[name]:,}") for name in ("rows", "units", "tokens")),
            element("td", *(element("div", line) for line in _became(report))),
        ]
        for report in each.artifact.data
    ]
    return [element("h3", "Data"), table(("data set", "rows", "units left", "tokens", "what became of them"), rows)]


def _became(report: Mapping[str, Any]) -> list[str]:
    """Lines: what was dropped and why, what rows were made of others, how far annotators agree, warnings."""
    lines = [f"{count:,} dropped: {reason}" for reason, count in report["dropped"].items()]
    if report["truncated"]:
        lines.append(f"{report['truncated']:,} cut into several rows")
    # absent from the artifacts of older runs
    if converted := report.get("converted"):
        lines.append(converted)
    if agreement := report.get("agreement"):
        lines.append(f"agreement: {_told(agreement)}")
    return lines + [f"warning: {text}" for text in report.get("warnings", ())]


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_told(inner)}" for name, inner in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _answers(each: PhaseFiles) -> list[Html]:
    if not each.artifact or not each.artifact.answers:
        return []
    rows = [
        [element("td", answer[part] or "", class_="text") for part in ("prompt", "before", "after")]
        for answer in each.artifact.answers
    ]
    return [element("h3", "Answers"), table(("prompt", "before", "after"), rows)]
