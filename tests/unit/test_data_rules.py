"""What is said of mixes and templates that cannot be meant, before anything is read."""

from typing import Any

import pytest

from data.errors import UserError
from rlhf.config.check import check
from rlhf.config.load import load_config
from rlhf.config.schema import Config

ROWS = "some:rows"  # a data source that need not exist to be named
TEXT = {"text": "{title}: {body}"}
SAID = {"prompt": "{question}", "response": "{answer}"}
SCORED = {"reward": ["rewards:length"], "sampling": {"samples": 2, "max_new_tokens": 8}}


def config(kind: str, data: Any, corpora: dict[str, dict[str, Any]] | None = None, **phase: Any) -> Config:
    """corpora: what `web` and `law` have of their own."""
    corpora = [
        {"kind": "corpus", "name": name, "sources": [{"name": name, "path": ROWS}], "holdout": 0, **settings}
        for name, settings in ({"web": {}, "law": {}} | (corpora or {})).items()
    ]
    settings = {"kind": kind, "data": data, **phase}
    if kind == "sft" or (kind == "pretrain" and "phase:" not in str(data)):
        settings.setdefault("tokenizer", {})
    models = {"policy": {"architecture": {"model_type": "llama"}}, "reward": {"architecture": {"model_type": "llama"}}}
    return Config.model_validate(
        {"models": models, "pools": {"train": {}, "rollout": {}}, "phases": [*corpora, settings]}
    )


def advice(kind: str, data: Any, corpora: dict[str, dict[str, Any]] | None = None, **phase: Any) -> str:
    with pytest.raises(UserError) as error:
        check(config(kind, data, corpora, **phase))
    return str(error.value)


def mixed(**parts: Any) -> dict[str, Any]:
    return {"mix": {name: {"path": ROWS, **part} for name, part in parts.items()}}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("pretrain", mixed(old={"weight": 0.2}, new={}, chat={"rows": "chat", "templates": [SAID]})),
        ("pretrain", mixed(old={"weight": 0, "holdout": 9}, new={"templates": [TEXT, TEXT]})),
        ("pretrain", mixed(old={"path": "phase:web", "weight": 0.2}, new={"cap": 5}) | {"temperature": 2}),
        ("pretrain", mixed(old={"weight": 30}, new={"weight": 70})),
        ("sft", mixed(maths={"templates": [SAID]}, books={"rows": "text", "templates": [TEXT]})),
        ("sft", {"path": ROWS, "templates": [SAID]}),
    ],
)
def test_a_sound_mix_is_not_spoken_of(kind, data):
    check(config(kind, data))


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        (
            "pretrain",
            mixed(old={}) | {"path": ROWS},
            "phases.pretrain.data: path and mix; make the path a part of the mix, or remove one",
        ),
        (
            "pretrain",
            {"path": ROWS, "temperature": 2},
            "phases.pretrain.data.temperature: it is of a mix's shares, and there is no mix",
        ),
        (
            "sft",
            mixed(old={}) | {"limit": 3, "holdout": 5},
            "phases.sft.data: in a mix, limit, holdout are of the parts; set phases.sft.data.mix.<part>.limit",
        ),
        (
            "sft",
            mixed(old={"weight": 0, "holdout": 1}, new={"weight": 0, "holdout": 1}),
            "phases.sft.data.mix: weights are shares, none below 0 and one above",
        ),
        (
            "sft",
            mixed(old={"weight": 0.7}, new={"weight": 0.3}, chat={}),
            "phases.sft.data.mix: weights of 1 in all leave nothing for chat: lower them, or give these a weight",
        ),
        (
            "sft",
            mixed(old={"weight": 1}, new={"weight": 2}) | {"temperature": 3},
            "phases.sft.data.temperature: every part has its weight, so it would do nothing",
        ),
        (
            "sft",
            mixed(old={"weight": 1, "cap": 9}, new={"weight": 2}),
            "phases.sft.data.mix.old.cap: a part with a weight has its share whatever its rows are",
        ),
        (
            "sft",
            mixed(old={"temperature": 2}, new={}),
            "phases.sft.data.mix.old.temperature: it is of the whole mix; set phases.sft.data.temperature",
        ),
        (
            "sft",
            mixed(old={"weight": 0}, new={}),
            "phases.sft.data.mix.old: of weight 0 nothing is trained on, and nothing is held out",
        ),
        (
            "sft",
            mixed(old={"path": "/nowhere/rows.jsonl"}, new={}),
            "phases.sft.data.mix.old.path: there is no /nowhere/rows.jsonl",
        ),
        (
            "sft",
            mixed(old={"path": "phase:web"}, new={}),
            "phases.sft.data.mix.old.path: phase 'web' leaves a corpus, which only the data of a pretrain phase can be",
        ),
        (
            "pretrain",
            mixed(old={"path": "phase:web", "limit": 5, "rows": "text"}, new={}),
            "phases.pretrain.data.mix.old: a corpus has no rows to choose, so limit, rows would do nothing",
        ),
        (
            "pretrain",
            mixed(old={"path": "phase:web", "holdout": 5}, new={}),
            "phases.pretrain.data.mix.old.holdout: the corpus set no document aside; set phases.web.holdout",
        ),
        (
            "pretrain",
            {"path": ROWS, "templates": [TEXT, SAID]},
            "phases.pretrain.data.templates[1]: text missing: the rows are read as text",
        ),
        (
            "sft",
            mixed(old={"templates": [{"prompt": "{question}"}]}, new={}),
            "phases.sft.data.mix.old.templates[0]: response missing: the rows are read as chat; for the other kind, set the "
            "part's rows: text",
        ),
        (
            "reward",
            {"path": ROWS, "templates": [SAID]},
            "phases.reward.data.templates: a phase of kind reward reads comparisons and labels",
        ),
        (
            "reward",
            mixed(old={}),
            "phases.reward.data.mix: only the data of phases of kind pretrain and sft can be a mix",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(kind, data, told):
    assert told in advice(kind, data)


def test_evaluations_and_prompts_are_one_data_set():
    assert "phases.sft.eval_data.mix: only the data of phases" in advice("sft", ROWS, eval_data=mixed(a={}))
    assert "phases.rl.data.mix: only the data of phases" in advice("rl", mixed(a={}), **SCORED)
    assert "phases.sft.eval_data: a mix is evaluated on what each part holds out" in advice(
        "sft", mixed(a={}), eval_data=ROWS
    )


def test_prompts_may_be_phrased_without_a_response():
    asked = {"path": ROWS, "templates": [{"prompt": "{question}"}]}
    check(config("sft", ROWS, answers={"data": asked, "scores": {"length": "data.demo.gold:well_formed"}}))
    told = advice("rl", {"path": ROWS, "templates": [TEXT]}, **SCORED)
    assert "phases.rl.data.templates[0]: prompt missing: the rows are read as prompts" in told


def test_a_corpus_in_a_mix_follows_no_schedule_and_brings_the_tokenizer():
    data = mixed(old={"path": "phase:web"}, new={})
    scheduled = {"schedule": [[0, {"web": 1}], [1, {"web": 1}]]}
    assert "phases.pretrain.mixture.schedule: it follows a training on one corpus alone" in advice(
        "pretrain", data, mixture=scheduled
    )
    assert "phases.pretrain.tokenizer: the corpus 'web' is tokenised already" in advice("pretrain", data, tokenizer={})


BOTH = mixed(old={"path": "phase:law"}, new={"path": "phase:web"})
ONE_TOKENIZER = {"law": {"tokenizer": {"path": "phase:web"}}}


@pytest.mark.parametrize(
    "corpora",
    [
        ONE_TOKENIZER,
        {name: {"tokenizer": {"path": "some/model"}} for name in ("web", "law")},
        ONE_TOKENIZER | {"old": {"tokenizer": {"path": "phase:law"}}},
    ],
)
def test_corpora_of_one_tokenizer_are_mixed(corpora):
    check(config("pretrain", mixed(**{name: {"path": f"phase:{name}"} for name in reversed(corpora)}, new={}), corpora))
    check(config("pretrain", BOTH, corpora))


@pytest.mark.parametrize("law", [{}, {"tokenizer": {"path": "some/model"}}])
def test_corpora_with_tokenizers_of_their_own_are_not_mixed(law):
    told = advice("pretrain", BOTH, {"law": law})
    assert told == (
        "phases.pretrain.data.mix: the corpora 'web' and 'law' have tokenizers of their own, and one model reads both; set "
        "phases.law.tokenizer.path=phase:web"
    )


def test_a_corpus_without_a_tokenizer_has_none_for_another():
    told = advice("pretrain", "phase:law", {"web": {"tokenizer": None}} | ONE_TOKENIZER)
    assert told == (
        "phases.law.tokenizer.path: phases.web.tokenizer is null, so there is none to load; set its vocab_size or path"
    )


def test_a_corpus_of_weight_0_is_evaluated_on_what_it_set_aside():
    data = mixed(old={"path": "phase:web", "weight": 0}, new={})
    check(config("pretrain", data, {"web": {"holdout": 0.1}}))
    told = advice("pretrain", data)
    assert told == (
        "phases.pretrain.data.mix.old: of weight 0 nothing is trained on, and nothing is held out to be evaluated on; set "
        "phases.web.holdout, or remove it"
    )


@pytest.mark.parametrize(("name", "shown"), [("a.b", "'a.b'"), ("''", "''"), ("a b", "'a b'"), ("7", "7")])
def test_a_part_has_a_name_that_settings_can_say(tmp_path, name, shown):
    file = tmp_path / "run.yaml"
    file.write_text(f"phases: [{{kind: sft, data: {{mix: {{{name}: '{ROWS}'}}}}}}]")
    with pytest.raises(UserError) as error:
        load_config(file)
    assert str(error.value).endswith(f": found the name {shown}, wanted letters, digits, '_' and '-'")
    file.write_text(f"phases: [{{kind: sft, data: {{mix: {{2024-web_a: '{ROWS}'}}}}}}]")
    load_config(file, ["phases.sft.data.mix.2024-web_a.limit=3"])


def test_weights_of_sources_need_one_corpus():
    data = mixed(old={"path": "phase:web"}, new={"path": "phase:law"})
    check(config("pretrain", data, ONE_TOKENIZER, mixture={"temperature": 2}))
    told = advice("pretrain", data, ONE_TOKENIZER, mixture={"weights": {"web": 1}})
    assert told == (
        "phases.pretrain.mixture.weights: of which corpus, web and law? give weights to their sources, where they are defined"
    )


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{text: 'the same'}", "templates[0]: it names no column, so every row would read the same; write {name}"),
        ("{text: '{a}', prompt: '{a}'}", "templates[0]: give either text, or prompt and response"),
        ("{response: '{a}'}", "templates[0]: give either text, or prompt and response"),
        (
            "{text: '{a.b}'}",
            "templates[0]: '{a.b}': {a.b} is not the plain name of a column; map others with data.columns",
        ),
        (
            "{text: '{a'}",
            "templates[0]: '{a': expected '}' before end of string; write a brace that is meant as {{ or }}",
        ),
    ],
)
def test_a_template_that_cannot_be_read_is_told_as_the_file_is_read(tmp_path, template, told):
    file = tmp_path / "run.yaml"
    file.write_text(f"phases: [{{kind: sft, data: {{path: '{ROWS}', templates: [{template}]}}}}]")
    with pytest.raises(UserError) as error:
        load_config(file)
    assert f"phases[0].data.{told}" in str(error.value)


def test_a_mix_in_a_mix_is_refused(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(f"phases: [{{kind: sft, data: {{mix: {{a: {{path: '{ROWS}', mix: {{b: '{ROWS}'}}}}}}}}}}]")
    with pytest.raises(UserError, match=r"phases\[0\]\.data\.mix\.a\.mix"):
        load_config(file)
