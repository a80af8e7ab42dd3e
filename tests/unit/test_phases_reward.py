"""The pure parts of a reward phase: the rows that it reads, and the report on its held-out rows."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from data_cases import rows_of as rows
from data_cases import tokenizer

from data.batch import Batch
from data.errors import UserError
from data.examples import build_examples
from rlhf.config.resolved import ResolvedPhase, resolve
from rlhf.config.schema import Config, Dpo, RewardModel, Sft
from rlhf.objectives import Binary, KWise, Pairwise, Pointwise
from rlhf.phases.calibrate import calibrate, expect_numbers, questions_of, report_of, spec_of
from rlhf.phases.held_out import of_untied
from rlhf.phases.supervised import options_of
from rlhf.phases.supervised_rows import ALONE, Split, expect_margins, read_splits, rows_compared
from rlhf.rewards.model_scores import MOST_QUESTIONS, RewardSpec

RANKING = {"prompt": "1 + 1?", "responses": ["two", "three", "four"], "ranks": [1, 2, 2]}
PAIR = {"prompt": "2 + 2?", "chosen": "four", "rejected": "five"}


def phase(loss="pairwise", **settings):
    return RewardModel.model_validate({"kind": "reward", "data": "rows.jsonl", "loss": loss, **settings})


def resolved(settings) -> ResolvedPhase:
    return resolve(Config(phases=[settings])).phases[0]


def test_a_loss_names_the_rows_that_a_phase_reads():
    losses = ("pairwise", "kwise", "plackett_luce", "pointwise", "binary", "process")
    kinds = ["preference", "ranking", "ranking", "rating", "binary", "steps"]
    assert [resolved(phase(loss)).rows for loss in losses] == kinds
    dpo = Dpo.model_validate({"kind": "dpo", "data": "rows.jsonl"})
    kto = dpo.model_copy(update={"loss": dpo.loss.model_copy(update={"name": "kto"})})
    assert [resolved(dpo).rows, resolved(kto).rows] == ["preference", "thumbs"]
    assert resolved(Sft.model_validate({"kind": "sft", "data": "rows.jsonl"})).rows == "chat"


def test_reward_models_learn_from_ties_and_dpo_does_not():
    options = options_of(phase("pointwise", attributes={"helpful": 2.0}, annotators="agreement"))
    assert (options.ties, options.attributes, options.annotators) == (True, {"helpful": 2.0}, "agreement")
    assert not options_of(Dpo.model_validate({"kind": "dpo", "data": "rows.jsonl"})).ties


def test_a_micro_batch_has_room_for_the_largest_ranking():
    rankings = build_examples("ranking", rows(RANKING), tokenizer(), 64)
    pairs = build_examples("ranking", rows(PAIR, PAIR | {"prompt": "1 + 3?"}), tokenizer(), 64)
    assert rows_compared(KWise(), {ALONE: Split(pairs, rankings)}) == 3
    assert rows_compared(Pairwise(), {ALONE: Split(*pairs.split(1, seed=0))}) == 2
    assert rows_compared(Pointwise(), {ALONE: Split(rankings, rankings)}) == 1


def test_a_loss_with_margins_refuses_rows_without():
    bare, told = (build_examples("preference", rows(row), tokenizer(), 64) for row in (PAIR, PAIR | {"margin": 2}))
    expect_margins(Pairwise(margin=True), told)
    expect_margins(Pairwise(), bare)
    with pytest.raises(UserError, match=r"rows.jsonl: loss.margin is on, but no row says by how much"):
        expect_margins(Pairwise(margin=True), bare)


def test_figures_are_means_over_comparisons_without_a_tie():
    assert of_untied({"accuracy": 0.3, "margin": 0.5, "untied": 0.5, "loss": 1.0}) == {
        "accuracy": 0.6,
        "margin": 1.0,
        "untied": 0.5,
        "loss": 1.0,
    }
    assert of_untied({"accuracy": 0.3, "loss": 1.0}) == {"accuracy": 0.3, "loss": 1.0}
    ties = {"accuracy": 0.0, "margin": 0.0, "untied": 0.0, "loss": 0.7}
    assert of_untied(ties) == {"untied": 0.0, "loss": 0.7}  # an accuracy of nothing is none


def test_weights_of_annotators_apply_to_training_rows_only():
    rated = [{"prompt": f"{n}?", "response": "four", "rating": n, "annotator": "ab"[n % 2]} for n in range(4)]
    sets = {"rows.jsonl": rows(*rated), "other.jsonl": rows(*(row | {"annotator": "zoe"} for row in rated))}
    reports, settings = [], phase("pointwise", annotators={"a": 3}, eval_data="other.jsonl")
    context = SimpleNamespace(
        resolved=resolved(settings),
        phase=settings,
        models=resolved(settings).models,
        open=lambda data: sets[data.path],
        tokenizer=tokenizer(),
        read=reports.append,
        seed=0,
    )
    split = read_splits(context, Pointwise(), resolved(settings).rows, options_of(settings))[ALONE]
    train, held_out = split.train, split.held_out
    assert train.batch(range(4)).weights.tolist() == [1.5, 0.5, 1.5, 0.5]
    assert "weights" not in held_out.batch(range(4))
    assert len(reports) == 2


def batch_of(group_ids, **columns):
    """Rows of two answer tokens after one of a prompt, the last row's answer of one."""
    count = len(group_ids)
    tokens = [[1, 2, 3]] * (count - 1) + [[1, 2]]
    masks = [[False, True, True]] * (count - 1) + [[False, True]]
    return Batch.from_rows(tokens, masks, group_ids=group_ids, **columns)


def scored(scores, *batches):
    """The scores dealt out to the batches' rows."""
    return list(zip(torch.tensor(scores).split([len(batch) for batch in batches]), batches))


def test_held_out_rankings_of_different_batches_have_different_ids():
    batches = [batch_of([0, 0, 1, 1], ranks=[1, 2, 1, 2]), batch_of([0, 0, 0], ranks=[1, 2, 2])]
    report = report_of("answer", scored([1.0, 0.0, 0.0, 1.0, 2.0, 1.0, 3.0], *batches))
    assert (report["kind"], report["pairs"], report["ties"]) == ("comparisons", 4, 1)
    assert report["accuracy"] == 0.5
    assert report["accuracy_when_chosen_is_longer"] == 0  # the last row of each batch is the shorter, and is preferred


STEPS = batch_of([0, 1], step_labels=[[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
VALUES = torch.tensor([[9.0, 2.0, 1.0], [9.0, -1.0, 9.0]])  # at the ends of steps: 2 and 1, and -1


def test_the_kind_of_labels_decides_the_report():
    assert report_of("answer", scored([1.0, -1.0], batch_of([0, 1], ratings=[1.0, 0.0])))["mae"] == 0.5
    good = scored([1.0, -1.0], batch_of([0, 1], desirable=[1.0, 1.0]))
    assert report_of("answer", good)["kind"] == "labels"
    assert report_of("questions", good)["kind"] == "questions"
    assert report_of("questions", good)["accuracy"] == 0.5
    report = report_of("steps", [(VALUES, STEPS)])
    assert (report["kind"], report["rows"], report["accuracy"]) == ("steps", 3, pytest.approx(1 / 3))
    assert report_of("answer", scored([1.0, -1.0], batch_of([0, 1]))) is None
    assert report_of("answer", []) is None


def test_a_models_directory_has_the_mean_of_its_rewards():
    pairs = scored([1.0, 2.0, 6.0], batch_of([0, 0], ranks=[1, 2]), batch_of([0], ranks=[1]))
    assert spec_of("answer", (), pairs) == RewardSpec("answer", (), 3.0, pytest.approx(7**0.5))
    weakest = [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))]
    found = spec_of("steps", (), [(VALUES, STEPS)])
    assert (found.mean, found.std) == pytest.approx((0.5, (weakest[0] - weakest[1]) / 2**0.5))
    asked = spec_of("questions", ("Is it right?",), scored([0.0, 0.0], batch_of([0, 1], desirable=[1.0, 0.0])))
    assert (asked.mean, asked.std, asked.questions) == (pytest.approx(-math.log(2)), 1.0, ("Is it right?",))
    assert spec_of("answer", (), []) == RewardSpec()


def test_each_question_of_the_rows_counts_once():
    asked = {"prompt": "2 + 2?", "response": "four", "question": "Is it right?", "answer": True}
    other = asked | {"question": "Is it kind?", "answer": 0.5}
    examples = build_examples("binary", rows(asked, other, asked | {"response": "five"}), tokenizer(), 128)
    assert questions_of(examples) == ("Is it right?", "Is it kind?")
    assert questions_of(build_examples("preference", rows(PAIR), tokenizer(), 64)) == ()


def test_nonfinite_scores_are_reported_with_their_row():
    pairs = build_examples("preference", rows(PAIR, PAIR | {"prompt": "1 + 3?"}), tokenizer(), 64)
    batches = [pairs.batch([0]), pairs.batch([1])]
    expect_numbers("rows.jsonl", [])
    expect_numbers("rows.jsonl", scored([1.0, 2.0, 3.0, 4.0], *batches))
    expected = r"rows.jsonl, row 2: .* score is nan \(2 of 4 held-out scores .* lower optim.lr, or .* float32"
    with pytest.raises(UserError, match=expected):
        expect_numbers("rows.jsonl", scored([1.0, 2.0, math.nan, -math.inf], *batches))


def test_only_scores_at_the_ends_of_steps_count():
    steps = build_examples("steps", rows({"prompt": "a", "steps": ["x", "y"], "labels": [1, 0]}), tokenizer(), 64)
    batch = steps.batch([0])
    elsewhere = torch.zeros_like(batch.step_labels).masked_fill(~batch.action_mask, math.nan)
    expect_numbers("rows.jsonl", [(elsewhere, batch)])
    with pytest.raises(UserError, match=r"row 1: .* \(2 of 2 "):
        expect_numbers("rows.jsonl", [(elsewhere.new_full(elsewhere.shape, math.nan), batch)])


def test_training_warns_of_more_questions_than_a_reward_may_ask(tmp_path):
    asked = {"prompt": "2 + 2?", "response": "four", "answer": True}
    few, many = (
        build_examples("binary", rows(*(asked | {"question": f"{n}?"} for n in range(count))), tokenizer(), 128)
        for count in (MOST_QUESTIONS, MOST_QUESTIONS + 1)
    )
    nothing = few.split(0, seed=0)[1]  # held out, so that no model is asked
    told = [[], []]
    for lines, train in zip(told, (few, many)):
        console = SimpleNamespace(print=lambda line, lines=lines, **_: lines.append(line))
        context = SimpleNamespace(staging=tmp_path, console=console, phase=SimpleNamespace(name="rules"))
        calibrate(SimpleNamespace(context=context, objective=Binary()), train, nothing)
        assert RewardSpec.read(tmp_path).questions == questions_of(train)
    assert told[0] == []
    assert "warning: the rows ask 65 questions; no reward asks more than 64" in told[1][0]
