"""What an objective of pretraining or SFT cannot go with is told before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, LlamaConfig, T5Config

from data.errors import UserError
from rlhf.config import objective_rules
from rlhf.config.check import check
from rlhf.config.schema import Config

ROWS = "some:rows"  # a data source that need not exist to be named
CORPUS = {"kind": "corpus", "name": "web", "sources": [{"name": "web", "path": ROWS}]}


def pretrain(objective: Any = "causal", model: str | None = "llama", **settings: Any) -> dict[str, Any]:
    """From scratch, where a model type is named."""
    scratch = {"models": {"policy": {"architecture": {"model_type": model}}}, "tokenizer": {}} if model else {}
    return {"kind": "pretrain", "data": ROWS, "objective": objective, **scratch, **settings}


def after(parent: str, kind: str = "pretrain", **settings: Any) -> dict[str, Any]:
    """A phase that starts from the model of another."""
    return {"kind": kind, "name": "more", "data": ROWS, "models": {"policy": f"phase:{parent}"}, **settings}


def config(*phases: dict[str, Any]) -> Config:
    return Config.model_validate({"phases": phases})


def advice(*phases: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        check(config(*phases))
    return str(error.value)


@pytest.mark.parametrize(
    "phases",
    [
        [pretrain(objective, model)]
        for model, objectives in {
            "llama": ["causal", "prefix", "spans", "denoisers"],
            "bert": ["masked", {"name": "masked", "whole_words": True}],
            "modernbert": ["masked"],
            "t5": ["prefix", "spans", "denoisers"],
            "gpt2": ["causal"],
        }.items()
        for objective in objectives
    ],
)
def test_objectives_pass_with_the_architectures_that_the_docs_name(phases):
    check(config(*phases))


def test_phases_after_one_that_brings_the_tokens_pass():
    check(config(pretrain("spans"), after("pretrain", objective="spans")))
    check(config(pretrain("spans"), after("pretrain", name="next"), after("next", objective="spans")))
    check(config(pretrain("spans", "t5"), after("pretrain", "sft", objective="prefix")))
    check(config(pretrain(tokenizer={"special_tokens": ["<mask>"]}, model="bert", objective="masked")))
    check(config(pretrain("masked", "bert"), after("pretrain", objective="masked")))
    check(config({**after("x"), "models": {"policy": "some/model"}, "objective": "spans"}))  # its tokenizer says
    decodes = {"policy": {"architecture": {"model_type": "bert", "is_decoder": True}}}
    check(config(pretrain(models=decodes)))


@pytest.mark.parametrize(
    ("phases", "told"),
    [
        (
            [pretrain("spams")],
            "phases.pretrain.objective: there is no objective 'spams'; built in are causal, prefix, masked, spans, denoisers",
        ),
        ([pretrain({"name": "masked", "rate": 3}, "bert")], "phases.pretrain.objective: masked: rate is 3"),
        (
            [pretrain({"name": "masked", "rat": 0.1}, "bert")],
            "phases.pretrain.objective: objective 'masked' has no parameter 'rat'; did you mean 'rate'?",
        ),
        (
            [pretrain("spans", max_length=6)],
            "phases.pretrain.max_length is 6; a row of spans and sentinels needs 7 or more",
        ),
        (
            [CORPUS, pretrain("spans", data="phase:web", tokenizer=None, max_length=7)],
            "phases.pretrain.max_length is 7, which leaves 2 tokens of text to a row of objective spans, and windows of a corpus "
            "have at least 3: raise it",
        ),
        (
            [pretrain("masked")],
            "phases.pretrain.objective: masked masks tokens for an encoder, and llama is a decoder: take an architecture such as "
            "bert or modernbert, or objective causal",
        ),
        (
            [pretrain("causal", "bert")],
            "phases.pretrain.objective: bert is an encoder and restores masked tokens, which causal does not ask for: take "
            "objective masked, or an architecture such as llama",
        ),
        (
            [pretrain("prefix", "modernbert")],
            "modernbert is an encoder and restores masked tokens, which prefix does not",
        ),
        (
            [pretrain("causal", "t5")],
            "phases.pretrain.objective: causal has no source, which t5, an encoder-decoder, reads to write a target: take "
            "objective spans, denoisers or prefix",
        ),
        ([pretrain("masked", "t5")], "phases.pretrain.objective: masked has no source, which t5"),
        (
            [pretrain(), after("pretrain", "sft", objective="masked")],
            "phases.more.objective: masked restores masked tokens, but sft learns answers: take causal or prefix",
        ),
        (
            [pretrain("spans", "t5"), after("pretrain", "sft")],
            "phases.more.objective: causal has no source, which t5, an encoder-decoder, reads to write a target: take objective "
            "prefix",
        ),
        (
            [pretrain("masked", "bert"), after("pretrain", name="next", objective="masked"), after("next")],
            "phases.more.objective: bert is an encoder",
        ),
        (
            [pretrain("masked", "bert"), after("pretrain", "sft")],
            "which causal does not ask for: take an architecture such as llama",
        ),
        (
            [pretrain(), after("pretrain", objective="spans")],
            "phases.more.objective: phase:pretrain lacks <extra_id_0> and 99 others, which spans needs: list them in "
            "phases.pretrain.tokenizer.special_tokens, or train phase:pretrain with this objective",
        ),
        (
            [pretrain("spans"), after("pretrain", name="next"), after("next", objective="denoisers")],
            "phases.more.objective: phase:next lacks <mode_r> and 2 others, which denoisers needs: list them in "
            "phases.pretrain.tokenizer.special_tokens",
        ),
        (
            [CORPUS, pretrain(data="phase:web", tokenizer=None), after("pretrain", objective="spans")],
            "list them in phases.web.tokenizer.special_tokens",
        ),
        (
            [pretrain("masked", "bert"), after("pretrain", "dpo")],
            "phases.more.models.policy.path: bert is an encoder, and phases of kind dpo are for decoders: name a model such as llama",
        ),
        (
            [pretrain("spans", "t5"), after("pretrain", "reward", models={"reward": "phase:pretrain"})],
            "phases.more.models.reward.path: t5 is an encoder-decoder, and phases of kind reward are for decoders",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(phases, told):
    line = advice(*phases)
    assert told in line
    assert "\n" not in line


def test_tokens_that_a_corpus_brings_are_there():
    corpus = {**CORPUS, "tokenizer": {"special_tokens": [f"<extra_id_{number}>" for number in range(100)]}}
    named = pretrain(data="phase:web", tokenizer=None)
    check(config(corpus, named, after("pretrain", objective="spans")))
    law = {**CORPUS, "name": "law", "tokenizer": {"path": "phase:web"}}
    check(config(corpus, law, {**named, "data": "phase:law"}, after("pretrain", objective="spans")))


@pytest.mark.parametrize(
    ("architecture", "fits", "form"),
    [
        (LlamaConfig(), "causal", "decoder"),
        (BertConfig(), "masked", "encoder"),
        (T5Config(), "spans", "encoder-decoder"),
    ],
    ids=["llama", "bert", "t5"],
)
def test_a_directory_says_itself_what_its_model_is(tmp_path: Path, architecture, fits, form):
    architecture.save_pretrained(tmp_path)
    phase = {**after("x"), "models": {"policy": str(tmp_path)}, "max_length": 64}
    check(config({**phase, "objective": fits}))
    wrong = "masked" if fits == "causal" else "causal"
    assert form in advice({**phase, "objective": wrong})


@pytest.mark.parametrize("model_type", objective_rules.DECODERS)
def test_the_model_types_that_are_known_to_be_decoders_are_decoders(model_type, monkeypatch):
    monkeypatch.setattr(objective_rules, "DECODERS", ())
    assert objective_rules._form(model_type, {}) == "decoder"
