"""What the run says at its end."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from rlhf.config.schema import Config, Goal
from rlhf.rundir import Artifact
from rlhf.summary import Outcome, figures_of, summarise


def test_a_goal_is_missed_below_above_and_where_the_figure_is_absent():
    assert Outcome("sft", "x", Goal(at_least=0.9), 0.9).reached
    assert not Outcome("sft", "x", Goal(at_least=0.9), 0.89).reached
    assert not Outcome("sft", "x", Goal(at_most=0.5), 0.51).reached
    assert not Outcome("sft", "x", Goal(at_least=0.9), None).reached
    assert not Outcome("sft", "x", Goal(at_least=0.9), float("nan")).reached


def test_a_phase_without_figures_has_its_line(tmp_path):
    config = Config.model_validate({"phases": [{"kind": "sft", "data": "x"}]})
    screen = io.StringIO()
    summarise(config, {"sft": Artifact(tmp_path, "id", {}, {}, 12.0)}, 0.0, tmp_path).show(Console(file=screen))
    assert "sft  12 s" in screen.getvalue()


def summary_of(tmp_path: Path, startup: float):
    config = Config.model_validate(
        {"phases": [{"kind": "sft", "data": "x", "goals": {"format_rate": {"at_least": 0.9}}}]}
    )
    answers = [{"prompt": "p", "before": None, "after": "[red]a"}]
    artifact = Artifact(tmp_path, "id", {"format_rate": 0.5}, {}, 12.0, {"count": 2, "failed": 0}, answers=answers)
    return summarise(config, {"sft": artifact}, startup, tmp_path)


def test_the_summary_is_written_and_start_up_time_survives_a_second_look(tmp_path):
    summary_of(tmp_path, 3.0)
    summary = summary_of(tmp_path, 0.0)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written == summary.figures
    assert written["seconds"] == {"startup": 3.0, "sft": 12.0, "total": 15.0}
    assert written["weight_syncs"] == {"count": 2, "failed": 0}


def test_the_table_says_what_was_missed_and_prints_answers_as_they_are(tmp_path):
    screen = io.StringIO()
    summary = summary_of(tmp_path, 0.0)
    summary.show(Console(file=screen, width=140))
    assert [outcome.figure for outcome in summary.missed] == ["format_rate"]
    assert "missed" in screen.getvalue()
    assert "≥ 0.9" in screen.getvalue()
    assert "[red]a" in screen.getvalue()


def test_every_figure_of_a_phase_is_in_the_table_and_goals_come_first():
    metrics = {"loss": 1.0, "my_own": 2.0, "stories/loss": 1.0, "margin": 3.0, "loss_before": 4.0, "gold": 0.5}
    assert figures_of(metrics, ["gold", "absent"]) == ["gold", "absent", "loss_before", "loss", "my_own"]
