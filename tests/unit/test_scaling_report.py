"""What `launch.py scaling` leaves, and what `launch.py plan` makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from rlhf.config.schema import Config
from rlhf.scaling.grid import points_of
from rlhf.scaling.measure import Measurement, model_facts, parameters_in, tokens_by_phase
from rlhf.scaling.plan import forecast_table, forecasts, parameters_of
from rlhf.scaling.predict import Law, Training
from rlhf.scaling.report import figures_of, write_report
from rlhf.scaling.tables import count, law_text

LAW = Law(irreducible=1.2, size_coef=80.0, size_exponent=0.4, token_coef=60.0, token_exponent=0.35)
PARAMETERS = {"small": 60_000, "middle": 200_000, "large": 800_000, "largest": 2_000_000}
MODEL = {"class": "LlamaForCausalLM", "vocab_size": 320}
ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}


def config(tmp_path: Path, phase: dict | None = None, **scaling) -> Config:
    pretrain = {"kind": "pretrain", "data": "text.txt", "max_length": 64, "batch_size": 8, "steps": 1000}
    return Config.model_validate(
        {
            "run": {"output": str(tmp_path / "run")},
            "models": {"policy": {"architecture": ARCHITECTURE}},
            "scaling": {
                "sizes": {name: {"architecture": {"hidden_size": 16}} for name in PARAMETERS},
                "tokens": [100_000, 200_000, 400_000],
                "held_out": [{"size": "largest", "tokens": 400_000}],
                **scaling,
            },
            "phases": [{**pretrain, **(phase or {})}],
        }
    )


def measured(settings: Config, off: float = 1.0, passes: float = 0.5) -> list[Measurement]:
    """Losses by the law; that of the held-out size is off by a factor."""
    found = []
    for point in points_of(settings.scaling):
        parameters = PARAMETERS[point.size]
        loss = LAW.loss(parameters, point.tokens) * (off if point.held_out else 1.0)
        found.append(Measurement(point, Training(parameters, point.tokens, loss), passes, 1.0))
    return found


def test_the_held_out_error_is_that_of_a_loss_that_the_fit_did_not_see(tmp_path):
    settings = config(tmp_path)
    figures = figures_of(settings, measured(settings, off=1.05))
    assert figures["held_out_error"] == pytest.approx(1 - 1 / 1.05, rel=1e-4)
    assert figures["fit_error"] < 1e-6
    assert list(figures["law"].values()) == pytest.approx(list(LAW.letters().values()), rel=1e-4)


def test_a_held_out_error_above_what_the_config_allows_is_missed(tmp_path):
    settings = config(tmp_path, held_out_error=0.03)
    (tmp_path / "run-scaling").mkdir()
    root = tmp_path / "run-scaling"
    assert write_report(settings, root, measured(settings, off=1.05), MODEL).missed
    assert not write_report(settings, root, measured(settings, off=1.02), MODEL).missed


def test_budgets_name_the_best_size_and_how_far_they_are_beyond_what_was_measured(tmp_path):
    settings = config(tmp_path, budgets=[1e12, 1e15])
    budgets = figures_of(settings, measured(settings))["budgets"]
    assert [budget["compute"] for budget in budgets] == [1e12, 1e15]
    assert budgets[1]["beyond"] == pytest.approx(1e15 / (6 * 2_000_000 * 400_000))
    assert budgets[1]["loss"] == pytest.approx(LAW.optimum(1e15).loss, rel=1e-4)
    assert budgets[1]["best_size"]["name"] == "largest"


def test_repeated_tokens_are_told(tmp_path):
    settings = config(tmp_path)
    assert figures_of(settings, measured(settings))["notes"] == []
    (note,) = figures_of(settings, measured(settings, passes=2.5))["notes"]
    assert note.startswith("10 of 10 trainings saw tokens again, up to 2.5 passes")


def test_the_page_and_the_picture_show_every_training(tmp_path):
    settings = config(tmp_path)
    (tmp_path / "run-scaling").mkdir()
    report = write_report(settings, tmp_path / "run-scaling", measured(settings), MODEL)
    page = report.page.read_text()
    assert all(f"<td>{name}" in page for name in PARAMETERS)
    assert law_text(report.figures) in page
    with Image.open(report.directory / "scaling.png") as picture:
        assert picture.size > (1000, 400)
    assert json.loads((report.directory / "scaling.json").read_text()) == json.loads(json.dumps(report.figures))


def test_parameters_are_counted_once_in_the_file_and_in_the_plan(tmp_path):
    """Against transformers' own count; the embeddings are tied."""
    fields = {name: value for name, value in ARCHITECTURE.items() if name != "model_type"}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=320, max_position_embeddings=64, **fields))
    model.save_pretrained(tmp_path)
    assert parameters_in(tmp_path) == model.num_parameters() == parameters_of(ARCHITECTURE, MODEL, 64)
    assert model_facts(tmp_path) == MODEL


def test_tokens_are_those_of_the_log(tmp_path):
    rows = [{"phase": "a", "step": 1, "tokens": 10.0}, {"phase": "b", "step": 1, "tokens": 3.0}]
    rows += [{"phase": "a", "step": 2, "tokens": 11.0}, {"phase": "a", "step": 2, "held_out/loss": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tokens_by_phase(tmp_path / "metrics.jsonl") == {"a": 21, "b": 3}


def test_the_plan_expects_the_laws_loss_of_phases_with_the_same_data(tmp_path):
    settings = config(tmp_path)
    assert forecasts(settings) == []
    (tmp_path / "run-scaling").mkdir()
    write_report(settings, tmp_path / "run-scaling", measured(settings), MODEL)
    (found,) = forecasts(settings)
    tokens = 1000 * 8 * 64
    assert found.expected.tokens == tokens
    assert found.expected.loss == pytest.approx(LAW.loss(parameters_of(ARCHITECTURE, MODEL, 64), tokens), rel=1e-4)
    assert found.best.loss < found.expected.loss
    assert found.best.compute == pytest.approx(found.expected.compute)
    assert forecast_table([found]).row_count == 1
    assert forecasts(config(tmp_path, {"data": "other.txt"})) == []
    (in_passes,) = forecasts(config(tmp_path, {"steps": None, "epochs": 3}))
    assert in_passes.expected.tokens == pytest.approx(3 * 100_000 / 0.5)


@pytest.mark.parametrize(
    ("value", "told"), [(999.7, "1k"), (63_776, "63.8k"), (1_870_000, "1.87M"), (2.5e9, "2.5B"), (12, "12")]
)
def test_counts_have_three_digits_and_a_unit(value, told):
    assert count(value) == told
