"""The run report: `report.html` in the run directory, one file that needs nothing from outside. It can be written at
any time, also while the run is going on."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config.load import load_config
from rlhf.config.schema import Phase
from rlhf.corpus import PAGE
from rlhf.phases.spikes import Incident, read_incidents
from rlhf.reports.charts import Row, curves, overoptimisation
from rlhf.reports.html import png, render
from rlhf.rundir import Artifact, RunDirectory, write_atomically
from rlhf.summary import HEADINGS, Outcome, figures_of, outcomes_of, readable, sets_of

if TYPE_CHECKING:
    from markupsafe import Markup

REPORT = "report.html"
CALIBRATION = "calibration.png"  # of a reward phase's artifact
# Panels in this order, where a phase has the metric; then each part of the reward.
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
NOT_FINISHED = dict.fromkeys(("corpus_page", "sets", "calibration", "data", "answers"))
OVEROPTIMISATION = (
    "Orange is the reward that the policy is trained on, blue the gold reward, which it never sees, with one standard"
    " error. Where blue falls while orange rises, the policy has learned what the reward gets wrong."
)


def write_report(root: Path) -> Path:
    """Writes the report of the run in this directory; returns its path. Raises UserError where config.yaml is not a
    config."""
    config = load_config(root / "config.yaml")
    run = RunDirectory(root)
    artifacts = run.finished(phase.name for phase in config.phases)
    rows, alarms = _by_phase(root / "metrics.jsonl"), _by_phase(root / "alarms.jsonl")
    outcomes = outcomes_of(config, artifacts)
    phases = []
    for phase in config.phases:
        artifact, own = artifacts.get(phase.name), [outcome for outcome in outcomes if outcome.phase == phase.name]
        phases.append(
            {
                **_of_phase(phase, artifact, own),
                **(_of_artifact(artifact) if artifact else NOT_FINISHED),
                **_charts(rows[phase.name], artifact.metrics if artifact else {}),
                "begun": bool(rows[phase.name] or artifact),
                "alarms": [f"step {alarm['step']}: {alarm['text']}" for alarm in alarms[phase.name]],
                "incidents": _incidents_of(run, phase.name, artifact),
            }
        )
    captions = {"set_headings": HEADINGS, "overoptimisation_caption": OVEROPTIMISATION}
    text = render("run.html", title=config.run.name, root=str(root), phases=phases, **captions)
    write_atomically(root / REPORT, text)
    return root / REPORT


def _incidents_of(run: RunDirectory, phase: str, artifact: Artifact | None) -> Sequence[Incident]:
    """Of the finished phase, or of the checkpoint from which an unfinished phase would go on."""
    current = run.root / "checkpoints" / phase / "CURRENT"
    if artifact:
        return read_incidents(run.incidents(phase), artifact.id)
    if not current.exists():
        return ()
    progress = json.loads((current.parent / current.read_text().strip() / "progress.json").read_text())
    return read_incidents(run.incidents(phase), progress["owner"])


def _by_phase(path: Path) -> dict[str, list[Row]]:
    """The file's complete lines; a run that is going on may be writing the last line."""
    found = defaultdict(list)
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.endswith("}"):
            row = json.loads(line)
            found[row["phase"]].append(row)
    return found


def _of_phase(phase: Phase, artifact: Artifact | None, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The phase's headings and its lines in the table on top."""
    goals = {outcome.figure: outcome for outcome in outcomes}
    metrics = artifact.metrics if artifact else {}
    figures = [
        {"name": readable(name), "value": _shown(metrics.get(name)), "outcome": goals.get(name)}
        for name in figures_of(metrics, goals)
    ]
    return {
        "name": phase.name,
        "kind": phase.kind if phase.kind != phase.name else "",
        "state": f"{artifact.seconds:.0f} s" if artifact else "not finished",
        "figures": figures,
    }


def _of_artifact(artifact: Artifact) -> dict[str, Any]:
    """What a finished phase left: its tables and pictures, None or empty where it has none."""
    corpus, calibration = artifact.path / PAGE, artifact.path / CALIBRATION
    return {
        "corpus_page": f"artifacts/{artifact.path.name}/{PAGE}" if corpus.exists() else None,
        "sets": [each.cells for each in sets_of(artifact.metrics)],
        "calibration": png(calibration) if calibration.exists() else None,
        "data": [{**report, "notes": _notes(report)} for report in artifact.data],
        "answers": artifact.answers,
    }


def _charts(rows: Sequence[Row], metrics: Mapping[str, float]) -> dict[str, Markup | str | None]:
    """rows: the phase's lines of metrics.jsonl. metrics: of its artifact."""
    known = {name for row in rows for name in row}
    names = [name for name in CURVES if name in known]
    parts = sorted(name for name in known if name.startswith("reward/"))
    names += parts if len(parts) > 1 else []  # a single part is the reward itself
    held_out = "; orange dots are held-out rows" if any(f"held_out/{name}" in known for name in names) else ""
    looks = [row for row in rows if "watch/proxy" in row]
    drift = [name for name in DRIFT if any(name in look for look in looks)]
    measured = [look for look in looks if look.get("watch/gold") is not None and look.get("watch/kl") is not None]
    return {
        "training": curves(rows, names) if names else None,
        "training_caption": f"Over the steps{held_out}.",
        "drift": curves(looks, drift) if drift else None,
        "overoptimisation": overoptimisation(measured, metrics.get("stopped_at")) if measured else None,
    }


def _notes(report: Mapping[str, Any]) -> list[str]:
    """Lines about a data set: rows dropped and why, rows cut or converted, how far annotators agree, warnings."""
    lines = [f"{count:,} dropped: {reason}" for reason, count in report["dropped"].items()]
    if report["truncated"]:
        lines.append(f"{report['truncated']:,} cut into several rows")
    # absent from the artifacts of older runs
    if converted := report.get("converted"):
        lines.append(converted)
    if agreement := report.get("agreement"):
        lines.append(f"agreement: {_in_words(agreement)}")
    return lines + [f"warning: {text}" for text in report.get("warnings", ())]


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_words(inner)}" for name, inner in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4g}"
