"""What `launch.py scaling` leaves, and what `launch.py plan` makes of it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from data.errors import UserError
from data.tokenizer_training import train_tokenizer
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config
from rlhf.engine.build import from_scratch
from rlhf.rundir import Artifact
from rlhf.scaling import law_report
from rlhf.scaling.fit import fit, fits_without_one
from rlhf.scaling.forecast import forecast_table, forecasts
from rlhf.scaling.law import Law, Training
from rlhf.scaling.law_report import figures_of, write_report
from rlhf.scaling.law_tables import count, law_text, scaling_page
from rlhf.scaling.measure import Measurement, measurements, model_facts, parameters_in, tokens_by_phase
from rlhf.scaling.size_grid import conditions, grid_directory, points_of
from rlhf.scaling.sizes import parameters_for

LAW = Law(irreducible=1.2, size_coef=80.0, size_exponent=0.4, token_coef=60.0, token_exponent=0.35)
PARAMETERS = {"small": 60_000, "middle": 200_000, "large": 800_000, "largest": 2_000_000}
MODEL = {
    "bos_token_id": None,
    "max_position_embeddings": 64,
    "vocab_size": 320,
    "eos_token_id": 0,
    "pad_token_id": 3,
}
ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}


@cache
def fits(points: tuple[Training, ...]) -> tuple[Law, list[Law]]:
    law = fit(points)
    return law, fits_without_one(points, law)


@pytest.fixture(autouse=True)
def equal_losses_are_fitted_once(monkeypatch):
    """Most tests differ in what they make of a law, not in the law."""
    monkeypatch.setattr(law_report, "fit", lambda points: fits(tuple(points))[0])
    monkeypatch.setattr(law_report, "fits_without_one", lambda points, law: fits(tuple(points))[1])


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


def measured(settings: Config, off: float = 1.0, passes: float = 0.5, law: Law = LAW) -> list[Measurement]:
    """Losses by the law; that of the held-out size is off by a factor."""
    found = []
    for point in points_of(settings.scaling):
        parameters = PARAMETERS[point.size]
        loss = law.loss(parameters, point.tokens) * (off if point.held_out else 1.0)
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
    report = write_report(settings, root, measured(settings, off=1.05), MODEL)
    assert report.missed == "held-out error 4.76 % is over scaling.held_out_error 3 %"
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
    alone = scaling_page("sizes", {**report.figures, "without_one": []}, report.directory / "scaling.png")
    assert "; fits that leave one training out" in page and "; </p>" not in alone
    assert all(f"<td>{name}" in page for name in PARAMETERS)
    assert law_text(report.figures) in page
    with Image.open(report.directory / "scaling.png") as picture:
        assert picture.size > (1000, 400)
    assert json.loads((report.directory / "scaling.json").read_text()) == json.loads(json.dumps(report.figures))


NARROW = {"hidden_size": 16, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("architecture", "objective"),
    [
        (ARCHITECTURE, "causal"),
        ({"model_type": "roberta", **NARROW}, "masked"),  # its positions begin after padding's
        ({"model_type": "modernbert", **NARROW}, "masked"),  # its own padding token is beyond this vocabulary
        ({"model_type": "t5", "d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2}, "spans"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["model_type"],
)
def test_parameters_are_counted_once_in_the_file_and_in_the_plan(tmp_path, architecture, objective):
    """Against transformers' own count of the model that the phase would train; embeddings are tied."""
    phase = resolve(config(tmp_path, {"objective": objective})).phases[0]
    model = from_scratch(architecture, MODEL, "masked" if objective == "masked" else "lm", "here")
    model.save_pretrained(tmp_path)
    counted = parameters_for(phase, architecture, MODEL, "here")
    assert parameters_in(tmp_path) == model.num_parameters() == counted


def test_an_architecture_that_cannot_be_built_is_told_with_its_setting(tmp_path):
    phase = resolve(config(tmp_path)).phases[0]
    for fields, told in (
        ({"hiden_size": 16}, "here.hiden_size: llama has no such field; nearest: hidden_size"),
        ({"hidden_size": 250, "num_attention_heads": 7}, "here: .*not a multiple of the number of attention heads"),
    ):
        with pytest.raises(UserError, match=told):
            parameters_for(phase, fields, MODEL, "here")


def test_what_sizes_have_in_common_is_their_tokenizers(tmp_path):
    tokenizer = train_tokenizer(["the fox sits in the barn"], 300)
    tokenizer.save_pretrained(tmp_path)
    facts = model_facts(tmp_path, 64)
    assert (facts["vocab_size"], facts["max_position_embeddings"]) == (len(tokenizer), 64)
    assert (facts["eos_token_id"], facts["pad_token_id"]) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


@pytest.mark.parametrize(
    ("metrics", "loss"),
    [
        ({"loss": 3.0}, 3.0),
        ({"loss": 3.0, "router_loss": 0.5}, 2.5),
        ({"loss": 3.1, "router_loss": 0.5, "z_loss": 0.1, "nll": 2.5}, 2.5),
    ],
)
def test_the_loss_that_a_law_is_fitted_to_is_the_texts_alone(tmp_path, metrics, loss):
    assert {each.training.loss for each in trained(config(tmp_path), tmp_path, metrics)} == {loss}


def test_a_training_that_came_to_no_number_is_told(tmp_path):
    with pytest.raises(UserError, match=r"held-out loss of small-100000 is nan: set a lower scaling\.sizes\.small\.lr"):
        trained(config(tmp_path), tmp_path, {"loss": float("nan")})


def trained(settings: Config, root: Path, metrics: dict[str, float]) -> list[Measurement]:
    """As the grid's trainings would leave them, all with the same figures."""
    points = points_of(settings.scaling)
    steps = [{"phase": point.name, "step": 1, "tokens": point.tokens} for point in points]
    (root / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    data = [{"tokens": 400_000}]
    artifacts = {point.name: Artifact(root, "", metrics, {}, data=data) for point in points}
    return measurements(settings, root, artifacts)


def test_no_best_size_is_told_where_losses_do_not_depend_on_tokens(tmp_path):
    settings, root = config(tmp_path), tmp_path / "run-scaling"
    root.mkdir()
    flat = Law(irreducible=1.0, size_coef=30.0, size_exponent=0.3, token_coef=0.0, token_exponent=1.0)
    report = write_report(settings, root, measured(settings, law=flat), MODEL)
    assert report.figures["budgets"] == []
    assert any("do not tell what more tokens would change" in note for note in report.figures["notes"])
    assert "Budgets" not in report.page.read_text()
    (found,) = forecasts(resolve(settings))
    assert found.best is None and found.expected.loss == pytest.approx(flat.loss(found.parameters, 1), rel=1e-3)
    assert "the law gives no best size" in printed(forecast_table([found]))


def printed(table) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table)
    return " ".join(capture.get().split())  # a caption is wrapped to the table's width


def test_tokens_are_those_of_the_log(tmp_path):
    rows = [{"phase": "a", "step": 1, "tokens": 10.0}, {"phase": "b", "step": 1, "tokens": 3.0}]
    rows += [{"phase": "a", "step": 2, "tokens": 11.0}, {"phase": "a", "step": 2, "held_out/loss": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tokens_by_phase(tmp_path / "metrics.jsonl") == {"a": 21, "b": 3}


@cache
def fitted() -> dict[str, Any]:
    settings = config(Path())
    return figures_of(settings, measured(settings)) | {"model": MODEL}


def leave_law(settings: Config) -> None:
    """What the plan reads of a report."""
    file = grid_directory(settings) / "scaling.json"
    file.parent.mkdir()
    file.write_text(json.dumps(fitted() | {"holds_for": conditions(settings.phases[0])}))


def test_the_plan_expects_the_laws_loss_of_phases_with_the_same_data(tmp_path):
    settings = config(tmp_path)
    assert forecasts(resolve(settings)) == []
    leave_law(settings)
    (found,) = forecasts(resolve(settings))
    tokens = 1000 * 8 * 64
    assert found.expected.tokens == tokens
    assert found.expected.loss == pytest.approx(LAW.loss(found.parameters, tokens), rel=1e-4)
    assert found.best.loss < found.expected.loss
    assert found.best.compute == pytest.approx(found.expected.compute)
    assert forecast_table([found]).row_count == 1
    assert forecasts(resolve(config(tmp_path, {"data": "other.txt"}))) == []
    (ramped,) = forecasts(resolve(config(tmp_path, {"ramp": {"batch_size": 4, "tokens": 64 * 100}})))
    # 100 rows in steps of 4: 25 of them, then 975 of 8
    assert ramped.expected.tokens == (25 * 4 + 975 * 8) * 64
    (in_passes,) = forecasts(resolve(config(tmp_path, {"steps": None, "epochs": 3})))
    assert in_passes.expected.tokens == pytest.approx(3 * 100_000 / 0.5)


def test_the_plan_does_not_guess_the_tokens_of_passes_over_a_mix(tmp_path):
    """The grid knows of a mix only how often its most repeated part came."""
    mixed = {"data": {"mix": {"one": "one.txt", "two": "two.txt"}}}
    settings = config(tmp_path, mixed)
    leave_law(settings)
    (by_steps,) = forecasts(resolve(settings))
    assert by_steps.expected.tokens == 1000 * 8 * 64
    (by_passes,) = forecasts(resolve(config(tmp_path, {**mixed, "steps": None, "epochs": 2})))
    assert by_passes.expected is None
    assert "set steps for a forecast" in printed(forecast_table([by_passes]))


def test_the_plan_names_the_setting_of_a_model_that_cannot_be_built(tmp_path):
    settings = config(tmp_path)
    leave_law(settings)
    wrong = config(tmp_path, {"models": {"policy": {"architecture": {"hiden_size": 16}}}})
    with pytest.raises(
        UserError, match=r"phases\.pretrain\.models\.policy\.architecture\.hiden_size: llama has no such"
    ):
        forecasts(resolve(wrong))


@pytest.mark.parametrize(
    ("value", "told"), [(999.7, "1k"), (63_776, "63.8k"), (1_870_000, "1.87M"), (2.5e9, "2.5B"), (12, "12")]
)
def test_counts_have_three_digits_and_a_unit(value, told):
    assert count(value) == told
