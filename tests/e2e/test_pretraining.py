"""Every objective of pretraining on real text: its held-out loss falls, and plain transformers loads what it leaves and agrees."""

from __future__ import annotations

import pytest
import torch
from runs import ROOT, figures, lines, run_phases
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

from data.denoising.denoised import Denoised
from data.denoising.vocabulary import Vocabulary
from data.examples import build_examples
from data.sources import open_rows
from rlhf.objectives import resolve_text_objective

PLAY = ROOT.parent / "shared" / "data" / "tinyshakespeare.txt"
LENGTH, HELD_OUT, VOCABULARY = 96, 24, 400
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
QWEN = {"model_type": "qwen3", "head_dim": 16, "num_key_value_heads": 2, "max_position_embeddings": 192, **SHAPE}
BERT = {"model_type": "bert", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **SHAPE}
T5 = {"model_type": "t5", "d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
RUNS = {
    "causal": ("causal", QWEN),
    "prefix": ("prefix", SHAPE),
    "masked": ({"name": "masked", "whole_words": True}, BERT),
    "spans": ("spans", T5),
    "denoisers": ("denoisers", SHAPE),
    "denoisers_t5": ("denoisers", T5),
    "experts": (
        {"name": "causal", "z_loss": 1e-4},
        {
            "model_type": "mixtral",
            "num_local_experts": 4,
            "num_key_value_heads": 2,
            "output_router_logits": True,
            **SHAPE,
        },
    ),
}
TASKS = {
    "plays": {"path": str(PLAY), "rows": "text", "holdout": HELD_OUT, "weight": 0.25},
    "sums": {
        "path": "data.demo.tasks:instructions",
        "args": {"rows": 200},
        "holdout": HELD_OUT,
        "cap": 100,
    },
    "inverse": {
        "path": "data.demo.tasks:instructions",
        "args": {"rows": 200},
        "holdout": HELD_OUT,
        "templates": [
            {"prompt": "Which request has this answer? {response}", "response": "{prompt}"},
            {"prompt": "What was asked? {response}", "response": "{prompt}"},
        ],
    },
}
RAMP = {"batch_size": 4, "tokens": 100 * LENGTH}
PLAIN = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "spans": AutoModelForSeq2SeqLM}


def phase(name: str) -> dict:
    objective, architecture = RUNS[name]
    return {
        "kind": "pretrain",
        "name": name,
        "objective": objective,
        "models": {"policy": {"architecture": architecture}},
        "data": {"path": str(PLAY), "holdout": HELD_OUT},
        "tokenizer": {"vocab_size": VOCABULARY},
        "max_length": LENGTH,
        "batch_size": 16,
        "steps": 25,
        "optim": {"lr": 3.0e-3},
    } | ({"ramp": RAMP} if name == "causal" else {})


LEARN = {"kind": "sft", "max_length": 192, "batch_size": 16, "steps": 12, "optim": {"lr": 1.0e-3}}
TUNED = [
    {"name": "many", "models": {"policy": "phase:causal"}, "data": {"mix": TASKS, "temperature": 2}, **LEARN},
    {"name": "written", "objective": "prefix", "models": {"policy": "phase:spans"}, **LEARN}
    | {"data": {"path": "data.demo.tasks:instructions", "args": {"rows": 200}, "holdout": HELD_OUT}},
]


@pytest.fixture(scope="module")
def run(ray_cluster, tmp_path_factory):
    if not PLAY.exists():
        pytest.skip("there is no ../shared/data/tinyshakespeare.txt")
    directory = tmp_path_factory.mktemp("pretraining")
    run_phases(directory, [*(phase(name) for name in RUNS), *TUNED])
    return directory / "run"


@pytest.mark.parametrize("name", RUNS)
def test_the_held_out_loss_falls(run, name):
    found = figures(run, name)
    assert found["loss"] < found["loss_before"] - 0.7, found


def held_out(run, name):
    """The rows that the phase was evaluated on, made anew: by the seed alone."""
    objective = resolve_text_objective(name, {"whole_words": True} if name == "masked" else {})
    tokenizer = AutoTokenizer.from_pretrained(run / "artifacts" / name)
    length = objective.raw_length(LENGTH) if hasattr(objective, "raw_length") else LENGTH
    rows = build_examples("text", open_rows(str(PLAY)), tokenizer, length).split(HELD_OUT, 0)[1]
    if hasattr(objective, "corrupt"):
        rows = Denoised(rows, objective, Vocabulary.of(tokenizer, objective.special_tokens), 0)
    return rows.batch(range(HELD_OUT))


def surprise(model, batch, row):
    """Sum over the row's trained tokens of -log p, by transformers alone."""
    tokens, mask = batch.tokens[row, : batch.lengths[row]].long(), batch.action_mask[row, : batch.lengths[row]]
    if "inputs" in batch:
        logits, targets = model(input_ids=batch.inputs[row : row + 1, : len(tokens)].long()).logits[0], tokens[mask]
        return torch.nn.functional.cross_entropy(logits[mask], targets, reduction="sum")
    if "prefix_lengths" in batch:
        prefix = int(batch.prefix_lengths[row])
        found = model(input_ids=tokens[None, :prefix], labels=tokens[None, prefix:])
        return found.loss * (len(tokens) - prefix)
    return model(input_ids=tokens[None], labels=tokens[None]).loss * (len(tokens) - 1)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_transformers_loads_the_model_and_finds_the_same_loss(run, name):
    model, report = PLAIN[name].from_pretrained(run / "artifacts" / name, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    batch = held_out(run, name)
    with torch.no_grad():
        total = sum(float(surprise(model.eval(), batch, row)) for row in range(len(batch)))
    assert total / int(batch.action_mask.sum()) == pytest.approx(figures(run, name)["loss"], rel=1e-4)


def test_an_encoder_decoders_lengths_and_a_masks_tokens_are_part_of_the_tokenizer(run):
    spans, masked = (AutoTokenizer.from_pretrained(run / "artifacts" / name) for name in ("spans", "masked"))
    assert "<extra_id_99>" in spans.all_special_tokens and masked.mask_token == "<mask>"


def test_the_parts_of_a_loss_are_told_apart(run):
    found = figures(run, "experts")
    assert found["loss"] == pytest.approx(found["nll"] + found["z_loss"] + found["router_loss"], rel=1e-6)
    assert found["router_loss"] > 0 and found["z_loss"] > 0
    assert found["perplexity"] == pytest.approx(torch.tensor(found["nll"]).exp().item(), rel=1e-5)


def test_each_data_set_of_a_mix_has_a_loss_of_its_own_and_its_share(run):
    found = figures(run, "many")
    for name in TASKS:
        assert found[f"{name}/loss"] < found[f"{name}/loss_before"]
    rows = 12 * 16
    left = {"sums": 100**0.5, "inverse": (200 - HELD_OUT) ** 0.5}
    for name, count in {"sums": 200 - HELD_OUT, "inverse": 200 - HELD_OUT}.items():
        share = 0.75 * left[name] / sum(left.values())
        assert found[f"epochs/{name}"] * count == pytest.approx(rows * share, abs=2)


def test_an_encoder_decoder_learns_to_answer(run):
    found = figures(run, "written")
    assert found["loss"] < found["loss_before"]
    model = AutoModelForSeq2SeqLM.from_pretrained(run / "artifacts" / "written")
    assert model.config.is_encoder_decoder


def test_a_ramps_steps_take_the_tokens_that_it_says(run):
    """All rows of the play but its last one are full."""
    tokens = [row["tokens"] for row in lines(run, "causal")]
    rows, wanted = 0, []
    for _ in tokens:
        size = 16 if rows >= 100 else 4 + (12 * rows // 100) // 4 * 4  # linear from 4 to 16 over 100 rows, in fours
        wanted.append(size * LENGTH)
        rows += size
    assert tokens == wanted and tokens[0] == 4 * LENGTH and tokens[-1] == 16 * LENGTH
