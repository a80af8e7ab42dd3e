"""A poisoned batch and a loss that is no number are found, skipped and recorded, and the training ends as well as without them."""

from __future__ import annotations

import json

import pytest
from runs import demo_with, figures, kill_when, lines, numbers, run_phases

from tests.e2e.planted_trouble import BATCH, POISONED_STEP

STEPS, EVERY = 36, 10
BACK_TO = POISONED_STEP // EVERY * EVERY


def phase(name: str, poison: bool, **settings: object) -> dict:
    data = {"path": "tests.e2e.planted_trouble:texts", "args": {"poison": poison}}
    return {
        "kind": "pretrain",
        "name": name,
        "tokenizer": {"vocab_size": 300},
        "data": data,
        "eval_data": {"path": "tests.e2e.planted_trouble:texts", "limit": 64},
        "max_length": 128,
        "batch_size": BATCH,
        "steps": STEPS,
        "checkpoint_every": EVERY,
        "optim": {"lr": 1.5e-3},  # twice as much makes a leap of its own
        **settings,
    }


@pytest.fixture(scope="module")
def done(ray_cluster, tmp_path_factory):
    directory = tmp_path_factory.mktemp("spikes")
    result = run_phases(
        directory,
        [
            phase("clean", poison=False, spikes={}),
            phase("poisoned", poison=True, spikes={}),
            phase("unguarded", poison=True),
            phase("early", poison=True, spikes={}, checkpoint_every=100, steps=POISONED_STEP + 3),
            phase("broken", poison=True, spikes={}, objective="tests.e2e.planted_trouble:BreaksOnce"),
        ],
    )
    return directory / "run", result


@pytest.mark.parametrize(("name", "reason"), [("poisoned", " leapt to "), ("broken", "non-finite loss (nan)")])
def test_the_planted_batch_is_found_skipped_and_recorded(done, name, reason):
    run, result = done
    (incident,) = json.loads((run / "incidents" / f"{name}.json").read_text())["incidents"]
    assert incident["step"] == POISONED_STEP + 1 and incident["back_to"] == BACK_TO and reason in incident["reason"]
    assert incident["skipped"] == (POISONED_STEP + 1 - BACK_TO) * BATCH and incident["skipped_from"] == BACK_TO * BATCH
    assert figures(run, name)["incidents"] == 1
    assert f"step {POISONED_STEP + 1}: " in result.stderr and f"back to step {BACK_TO}, past 128 rows" in result.stderr
    assert [row["step"] for row in lines(run, name) if "lr" in row] == list(range(1, STEPS + 1))


def test_until_the_trouble_all_runs_are_the_same(done):
    run, _ = done
    losses = {name: [row["loss"] for row in lines(run, name)][:BACK_TO] for name in ("clean", "unguarded", "broken")}
    assert losses["clean"] != losses["unguarded"]  # other texts train another tokenizer
    assert losses["unguarded"] == losses["broken"] == [row["loss"] for row in lines(run, "poisoned")][:BACK_TO]


def test_the_training_ends_as_well_as_without_the_trouble(done):
    run, _ = done
    clean, poisoned, broken = (figures(run, name)["loss"] for name in ("clean", "poisoned", "broken"))
    assert max(row["loss"] for row in lines(run, "unguarded")[20:]) > 2 * clean  # the poison is one
    assert max(row["loss"] for row in lines(run, "poisoned")[20:]) < 2 * clean
    assert poisoned == broken == pytest.approx(clean, rel=0.05)
    assert (run / "incidents").is_dir() and not (run / "incidents" / "clean.json").exists()


@pytest.mark.long
def test_a_run_that_is_killed_after_an_incident_passes_over_the_same_rows(done, tmp_path):
    """Killed before the next checkpoint: only the incident's file knows of it."""
    run, _ = done
    phases, output = [phase("poisoned", poison=True, spikes={})], tmp_path / "run"
    found = output / "incidents" / "poisoned.json"
    kill_when(
        lambda: found.exists() and BACK_TO + 2 < len(lines(output, "poisoned")) < BACK_TO + 6,
        *demo_with(tmp_path, phases),
    )
    run_phases(tmp_path, phases)
    assert numbers(lines(output, "poisoned")) == numbers(lines(run, "poisoned"))
    assert figures(output, "poisoned") == figures(run, "poisoned")


def test_without_a_checkpoint_the_phase_begins_anew_past_the_batches(done):
    run, _ = done
    (incident,) = json.loads((run / "incidents" / "early.json").read_text())["incidents"]
    assert (incident["step"], incident["back_to"], incident["skipped_from"]) == (POISONED_STEP + 1, 0, 0)
    assert incident["skipped"] == (POISONED_STEP + 1) * BATCH
    assert len(lines(run, "early")) == POISONED_STEP + 3
