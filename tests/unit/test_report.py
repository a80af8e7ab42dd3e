"""The run report: one file, nothing of a run's text becomes markup, and every part is there that the run has."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from typer.testing import CliRunner

import launch
from rlhf.config.load import dump_config, load_config
from rlhf.reports.html import _environment, render
from rlhf.reports.run_report import write_report
from rlhf.rundir import Artifact, RunDirectory

ROOT = Path(__file__).resolve().parents[2]
EVIL = "<script>alert('$x_1$')</script>"
VOID = {"meta", "img"}
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Tags(HTMLParser):
    """The page's tags, in their order; balanced or an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.linked: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.linked += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def artifact(run: RunDirectory, phase: str, metrics: dict, **more) -> None:
    data = {"name": EVIL, "rows": 1200, "units": 1197, "tokens": 9000, "trained_tokens": 50, "truncated": 4}
    data |= {"dropped": {f"no answer {EVIL}": 3}, "agreement": {"alpha": 0.512345}, "warnings": ["7 cycles"]}
    staging = run.staging(phase)
    Artifact(run.artifact(phase), "id", metrics, {}, seconds=12.0, data=[data], **more).commit(staging)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run whose rl phase was stopped by its watch."""
    tmp_path = tmp_path_factory.mktemp("run")
    watch = 'phases.rl.watch={gold: ["data.demo.gold:gold"], every: 2}'
    goal = "phases.rl.goals={gold_at_best: {at_least: 0.5}}"
    config = load_config(ROOT / "configs" / "grpo.yaml", [watch, goal, f"run.output={tmp_path}"])
    (tmp_path / "config.yaml").write_text(dump_config(config))
    directory = RunDirectory(tmp_path)
    artifact(directory, "sft", {"loss": 1.5})
    answers = [{"prompt": f"say {EVIL}", "before": None, "after": EVIL}]
    artifact(directory, "rl", {"reward": 0.9, "gold_at_best": 0.4, "stopped_at": 9.0}, answers=answers)
    (directory.artifact("sft") / "calibration.png").write_bytes(PIXEL)
    rows = [{"phase": "rl", "step": step, "time": 0, "reward": 0.1 * step, "kl": None} for step in range(1, 9)]
    rows += [
        {"phase": "rl", "step": step, "watch/proxy": 0.1 * step, "watch/gold": gold, "watch/gold_error": 0.02}
        | {"watch/kl": step - 1.1, "watch/length": 30.0, f"reward/{EVIL}": 1.0, "reward/b": 2.0}
        for step, gold in ((1, 0.2), (3, 0.4), (5, 0.4), (7, 0.2), (9, 0.1))
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"phase": "rl", "step": 10, "rew')
    alarm = {"phase": "rl", "step": 7, "time": 0, "text": f"answers are {EVIL}"}
    (tmp_path / "alarms.jsonl").write_text(json.dumps(alarm) + "\n")
    return tmp_path


@pytest.fixture(scope="module")
def page(run) -> str:
    return write_report(run).read_text()


def test_text_of_a_run_never_becomes_markup(page):
    assert "<script" not in page.lower()
    markup = Tags(page)
    shown = "".join(markup.text)
    assert "script" not in markup.tags
    for text in (EVIL, f"say {EVIL}", f"3 dropped: no answer {EVIL}", f"step 7: answers are {EVIL}", f"reward/{EVIL}"):
        assert text in shown


def test_the_report_needs_nothing_from_outside(page):
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in Tags(page).linked)
    assert "@import" not in page
    assert "url(http" not in page


def test_every_part_that_the_run_has_is_shown(page):
    markup = Tags(page)
    shown = "".join(markup.text)
    assert markup.tags.count("svg") == 3  # training curves, drift, gold over KL
    assert "gold's best, step 3" in shown
    assert "stopped, step 9" in shown
    assert base64.b64encode(PIXEL).decode() in page
    for text in ("≥ 0.5", "missed", "1,200", "agreement: alpha 0.5123", "warning: 7 cycles", "4 cut into several rows"):
        assert text in shown
    assert "not finished" in shown  # pretrain
    assert shown.index("pretrain") < shown.index("sft")


def test_a_run_that_has_just_begun_has_a_report(tmp_path):
    (tmp_path / "config.yaml").write_text(dump_config(load_config(ROOT / "configs" / "demo.yaml")))
    shown = "".join(Tags(write_report(tmp_path).read_text()).text)
    assert shown.count("not finished") == 5  # phases


def test_values_are_escaped_and_markup_is_not():
    shown = _environment().from_string('<p class="{{ one }}">{{ two }}{{ three }}</p>')
    assert shown.render(one='"x', two="<b>", three=Markup("<i></i>")) == '<p class="&#34;x">&lt;b&gt;<i></i></p>'


def test_a_value_that_the_template_lacks_is_an_error():
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        render("page.html")


def test_the_command_writes_it_and_names_its_place(run):
    done = CliRunner().invoke(launch.app, ["report", str(run)])
    assert done.exit_code == 0
    assert done.stdout.strip() == str(run / "report.html")
    assert CliRunner().invoke(launch.app, ["report", str(run / "artifacts")]).exit_code == 2
