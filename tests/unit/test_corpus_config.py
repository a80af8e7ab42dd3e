"""The config of a corpus: valid ones, and the message for each mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.corpus.document import Document
from data.corpus.step import Dropped
from data.errors import UserError
from rlhf.config.check import check
from rlhf.config.corpus import STEPS as DEFAULT
from rlhf.config.corpus import Mixture, StepConfig
from rlhf.config.schema import Config
from rlhf.corpus.cleaning_steps import STEPS, resolve_steps
from rlhf.corpus.reserved import open_reserved, reserved_sets, reserved_texts

FUNCTION = "rewards:length"  # a data source that need not exist to be named


def config(corpus: dict[str, Any] | None = None, pretrain: dict[str, Any] | None = None, *more: dict) -> Config:
    sources = [{"name": "one", "path": "some:rows"}, {"name": "two", "path": "other:rows"}]
    phases = [
        {"kind": "corpus", "sources": sources, **(corpus or {})},
        {"kind": "pretrain", "data": "phase:corpus", "steps": 10, **(pretrain or {})},
        *more,
    ]
    models = {"policy": {"architecture": {"model_type": "llama"}}}
    return Config.model_validate({"models": models, "pools": {"train": {}}, "phases": phases})


def advice(*args: Any) -> str:
    with pytest.raises(UserError) as error:
        check(config(*args))
    return str(error.value)


def test_a_corpus_and_a_model_that_trains_on_it_are_a_valid_config():
    check(config())


def test_every_step_of_the_table_is_there(tmp_path):
    (tmp_path / "words.txt").write_text("bad\n")
    required = {
        "word_list": {"path": str(tmp_path / "words.txt")},
        "classifier": {"good": ["good.jsonl"], "bad": ["bad.jsonl"]},
        "perplexity": {"model": "a/model"},
    }
    steps = config({"steps": [{"name": name, **required.get(name, {})} for name in STEPS]}).phases[0].steps
    assert [name for name, _ in resolve_steps(steps)] == list(STEPS)


def test_the_default_steps_are_of_the_table():
    assert set(DEFAULT) <= set(STEPS)


def test_a_step_that_comes_twice_is_numbered():
    steps = config({"steps": ["pii", "exact_duplicates", "pii"]}).phases[0].steps
    assert [name for name, _ in resolve_steps(steps)] == ["pii", "exact_duplicates", "pii 2"]


@pytest.mark.parametrize(
    ("corpus", "pretrain", "told"),
    [
        ({"steps": ["pi"]}, {}, "phases.corpus.steps: there is no step 'pi'; built in are"),
        (
            {"steps": [{"name": "pii", "phone": False}]},
            {},
            "step 'pii' has no parameter 'phone'; did you mean 'phones'?",
        ),
        (
            {"sources": [{"name": "one", "path": "some:rows"}, {"name": "one", "path": "some:rows"}]},
            {},
            "phases.corpus.sources: two are named 'one'; give each its own name",
        ),
        (
            {"sources": [{"name": "one", "path": "/no/such.txt"}]},
            {},
            "phases.corpus.sources.one: there is no /no/such.txt; relative paths start at",
        ),
        (
            {"sources": [{"name": "one", "path": "some:rows", "reference": True}]},
            {},
            "phases.corpus.sources: all are references, so nothing would be written; set reference=false for one",
        ),
        ({"steps": [{"name": "pii", "kinds": ["wbe"]}]}, {}, "step 'pii': kinds.0: Input should be 'web'"),
        (
            {"steps": [{"name": "pii", "sources": ["tow"]}]},
            {},
            "steps.pii.sources: there is no source 'tow'; did you mean two?",
        ),
        ({"reserved": {"exam": "/no/exam.jsonl"}}, {}, "phases.corpus.reserved.exam: there is no /no/exam.jsonl"),
        (
            {"steps": [{"name": "perplexity", "model": "phase:pretrain"}]},
            {},
            "phases.corpus.steps.perplexity.model: no phase 'pretrain' runs before 'corpus'",
        ),
        ({"tokenizer": None}, {}, "phases.pretrain.data: phases.corpus.tokenizer is null, so there are no tokens"),
        ({}, {"tokenizer": {}}, "phases.pretrain.tokenizer: the corpus 'corpus' is tokenised already; set it there"),
        (
            {},
            {"mixture": {"weights": {"tow": 1}}},
            "phases.pretrain.mixture: the corpus has no source 'tow'; did you mean two?",
        ),
        (
            {},
            {"mixture": {"weights": {"one": 0, "two": 0}}},
            "phases.pretrain.mixture: weights are shares, none below 0",
        ),
        (
            {},
            {"mixture": {"weights": {"one": 1}, "schedule": [[0, {"one": 1}]]}},
            "phases.pretrain.mixture: weights and a schedule of weights; keep one of them",
        ),
        (
            {},
            {"mixture": {"schedule": [[0.5, {"one": 1}], [0.2, {"one": 1}]]}},
            "phases.pretrain.mixture.schedule: shares of the training must rise, found [0.5, 0.2]",
        ),
        (
            {},
            {"data": FUNCTION, "tokenizer": {}, "mixture": {"temperature": 2}},
            "phases.pretrain.mixture: it mixes the sources",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(corpus, pretrain, told):
    assert told in advice(corpus, pretrain)


def test_only_a_pretrain_phase_reads_a_corpus():
    sft = {"kind": "sft", "data": "phase:corpus", "models": {"policy": "phase:pretrain"}}
    assert "phases.sft.data.path: phase 'corpus' leaves a corpus, which only the data of a pretrain phase" in advice(
        {}, {}, sft
    )


def test_evaluation_data_prompts_and_named_sets_are_reserved(tmp_path):
    for name in ("exam", "prompts", "held", "asked", "plain"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": f"{name}?", "other": "x"}) + "\n")

    def file(name: str, **fields: Any) -> dict[str, Any]:
        return {"path": str(tmp_path / f"{name}.jsonl"), **fields}

    policy = {"models": {"policy": "phase:pretrain"}}
    answers = {"data": file("asked"), "scores": {"length": "rewards:length"}}
    found = config(
        {"reserved": {"exam": file("exam", columns=["prompt"])}},
        {},
        {"kind": "sft", "data": file("held", holdout=1), "answers": answers, **policy},
        {"kind": "sft", "name": "plain", "data": file("plain"), **policy},
        {"kind": "rl", "data": file("prompts"), "reward": ["rewards:length"], **policy},
        {"kind": "sft", "name": "made", "data": "phase:rl", **policy},
    )
    sets = reserved_sets(found, found.phases[0])
    assert set(sets) == {"exam", "sft.data", "sft.answers", "rl.data"}
    texts = reserved_texts({name: open_reserved(data) for name, data in sets.items()}, {"exam": ["prompt"]})
    assert list(texts["exam"]()) == ["exam?"]
    assert list(texts["rl.data"]()) == ["prompts?", "x"]


DOCS = (Path(__file__).resolve().parents[2] / "docs/corpus.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


def test_the_configs_of_the_docs_are_valid():
    corpus, mixture = map(yaml.safe_load, blocks("yaml"))
    assert Config.model_validate(corpus).phases[1].mixture.temperature == 2
    assert Mixture.model_validate(mixture["mixture"]).schedule[2] == (1, {"pages": 0.2})


def test_the_step_of_the_docs_works(tmp_path, monkeypatch):
    (source,) = blocks("python")
    (tmp_path / "recipe_steps.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    steps = [StepConfig(name="recipe_steps:NoRecipes", at_least=0.3, kinds=["web"])]
    ((_, step),) = resolve_steps(steps)
    texts = ["a cup of flour in the oven", "a cup and an oven", "a house"]
    documents = [Document(text, "a", "s", "web", "f", 0) for text in texts]
    assert [step.look(document) for document in documents] == [documents[0], Dropped("a recipe"), documents[2]]
    assert not step.meant_for(Document("", "a", "s", "text", "f", 0))


def test_the_table_of_the_docs_has_every_step():
    assert set(STEPS) <= set(re.findall(r"`(\w+)`", DOCS))


@pytest.mark.parametrize(
    ("corpus", "pretrain", "told"),
    [
        (
            {"tokenizer": {"kind": "wordpiece", "vocab_size": 300}},
            {},
            "phases.corpus.tokenizer.vocab_size is 300; the 256",
        ),
        ({"tokenizer": {"special_tokens": ["a b"]}}, {}, "phases.corpus.tokenizer.special_tokens: 'a b' cannot be one"),
        ({"tokenizer": {"path": "/no/such"}}, {}, "phases.corpus.tokenizer.path: there is no directory /no/such"),
        ({"tokenizer": {"path": "phase:x"}}, {}, "phases.corpus.tokenizer.path: no phase 'x' runs before 'corpus'"),
        ({"tokenizer": {"path": "a/b", "kind": "unigram"}}, {}, "path loads a tokenizer, so kind would do nothing"),
        (
            {},
            {"data": {"path": "phase:corpus", "limit": 5}},
            "phases.pretrain.data: a corpus has no rows to choose, so limit",
        ),
        ({}, {"max_length": 2}, "phases.pretrain.max_length is 2: windows of a corpus have at least 3 tokens"),
        (
            {},
            {"mixture": {"weights": {"one": 3}}},
            "phases.pretrain.mixture: weights of 3 in all leave nothing for two",
        ),
        ({"reserved": {"sft.data": "some:rows"}}, {}, "phases.corpus.reserved: 'sft.data': names with a dot"),
    ],
)
def test_mistakes_that_would_show_after_hours_are_told_at_once(corpus, pretrain, told):
    assert told in advice(corpus, pretrain)


def test_an_evaluation_of_written_rows_and_a_file_reserves_the_file():
    evaluated = {"kind": "sft", "data": FUNCTION, "eval_data": {"path": ["phase:pretrain", "a:b"]}}
    found = config({}, {}, {**evaluated, "models": {"policy": "phase:pretrain"}})
    assert reserved_sets(found, found.phases[0])["sft.eval_data"].path == ["a:b"]
