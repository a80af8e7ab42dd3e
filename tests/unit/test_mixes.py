"""A mix of data sets: in the lineage, in the texts that a corpus must not contain, and in the preview with its tokenizer."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from data.errors import UserError
from data.tokenizer_training import train_tokenizer
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config
from rlhf.controller import Controller
from rlhf.corpus.reserved import open_reserved, reserved_sets, reserved_texts
from rlhf.phases.preview import preview, tokenizer_of
from rlhf.reports.plan_tables import phases_table
from rlhf.rundir import RunDirectory

TEMPLATES = [{"prompt": "What is {sum}?", "response": "{total}"}, {"prompt": "{sum} =", "response": "It is {total}."}]


@pytest.fixture
def files(tmp_path) -> Path:
    texts = [{"text": f"The town of number {n} lies by the river, and its mill has {n + 2} wheels."} for n in range(30)]
    sums = [{"sum": f"{n} + {n + 1}", "total": 2 * n + 1} for n in range(20)]
    for name, rows in {"towns": texts, "sums": sums}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def config(files: Path, **parts: dict[str, Any]) -> Config:
    """Towns and sums, and what else the parts' settings say."""
    towns = {"path": str(files / "towns.jsonl"), "rows": "text", **parts.get("towns", {})}
    sums = {"path": str(files / "sums.jsonl"), "templates": TEMPLATES, "weight": 0.5, **parts.get("sums", {})}
    corpus = {"kind": "corpus", "sources": [{"name": "one", "path": "some:rows"}]}
    phase = {
        "kind": "sft",
        "data": {"mix": {"towns": towns, "sums": sums}},
        "tokenizer": {"vocab_size": 300},
        "max_length": 96,
    }
    return Config.model_validate(
        {
            "run": {"output": str(files / "run")},
            "models": {"policy": {"architecture": {"model_type": "llama"}}},
            "phases": [corpus, phase],
        }
    )


def lineage(settings: Config) -> dict[str, Any]:
    controller = Controller(settings, lambda: None, console=Console(file=StringIO()))
    return controller.lineage(controller.resolved.phases[1], {})


def test_every_part_of_a_mix_is_in_the_lineage(files):
    first = lineage(config(files))
    assert set(first["data"]) == {"data.mix.towns", "data.mix.sums"}
    with (files / "sums.jsonl").open("a") as file:
        file.write(json.dumps({"sum": "2 + 2", "total": 4}) + "\n")
    second = lineage(config(files))
    assert first["data"]["data.mix.towns"] == second["data"]["data.mix.towns"]
    assert first["data"]["data.mix.sums"] != second["data"]["data.mix.sums"]


def test_changed_templates_or_weights_change_the_result(files):
    first = lineage(config(files))
    assert lineage(config(files)) == first
    assert lineage(config(files, sums={"templates": TEMPLATES[:1]})) != first
    assert lineage(config(files, sums={"weight": 0.4})) != first


def test_a_corpus_must_not_contain_what_a_part_holds_out(files):
    settings = config(files, sums={"holdout": 3})
    sets = reserved_sets(settings, settings.phases[0])
    assert list(sets) == ["sft.data.mix.sums"]
    texts = reserved_texts({name: open_reserved(data) for name, data in sets.items()}, {})
    assert list(texts["sft.data.mix.sums"]()) == [f"{n} + {n + 1}" for n in range(20)]  # and no template's words


def test_the_preview_shows_each_part_as_it_is_trained_on(files):
    settings = config(files, sums={"holdout": 2})
    found = preview(resolve(settings).phases[1], 3)
    assert {name: (report.rows, len(samples)) for name, (report, samples) in found.items()} == {
        "towns": (30, 3),
        "sums": (20, 3),
    }
    trained = ["".join(text for text, is_trained in pieces if is_trained) for pieces in found["sums"][1]]
    assert all("=" not in text and "What" not in text for text in trained)
    whole = "".join(text for pieces in found["sums"][1] for text, _ in pieces)
    assert "What is " in whole or " =" in whole
    assert all(pieces[-1][1] for pieces in found["towns"][1])  # to its end a text is trained on
    assert not (files / "run").exists()


def test_the_plan_names_every_part(files):
    console = Console(file=StringIO(), width=300)
    console.print(phases_table(resolve(config(files))))
    shown = console.file.getvalue()
    assert f"towns: {files}/towns.jsonl" in shown
    assert f"sums: {files}/sums.jsonl" in shown


def after_pretraining(files: Path, kind: str, pretrain: dict[str, Any], **settings: Any) -> Config:
    """A corpus of towns, a model from scratch that learns as `pretrain` says, and a phase that starts from it."""
    towns = str(files / "towns.jsonl")
    scratch = {"models": {"policy": {"architecture": {"model_type": "llama"}}}}
    phases = [
        {"kind": "corpus", "sources": [{"name": "towns", "path": towns}]},
        {"kind": "pretrain", "data": towns, **scratch, **pretrain},
        {"kind": kind, "name": "more", "data": towns, "models": {"policy": "phase:pretrain"}, **settings},
    ]
    return Config.model_validate({"run": {"output": str(files / "run")}, "phases": phases})


def test_the_preview_knows_the_tokens_that_an_earlier_phase_adds_for_its_objective(files):
    first = {"tokenizer": {"vocab_size": 300}, "objective": "spans"}
    settings = after_pretraining(files, "pretrain", first, objective="spans")
    ((_, samples),) = preview(resolve(settings).phases[2], 2).values()
    assert all("<extra_id_0>" in "".join(text for text, _ in pieces) for pieces in samples)
    other = after_pretraining(files, "sft", first | {"objective": "causal"})
    extended, plain = (tokenizer_of(resolve(each).phases[2], {}).get_vocab() for each in (settings, other))
    assert extended == plain | {f"<extra_id_{number}>": len(plain) + number for number in range(100)}


def test_the_preview_takes_a_corpus_tokenizer_where_the_phase_on_it_has_not_run(files):
    settings = after_pretraining(files, "pretrain", {"data": "phase:corpus"})
    with pytest.raises(
        UserError, match=r"phases\.pretrain: the corpus 'corpus' is not made yet; make it: launch\.py corpus"
    ):
        preview(resolve(settings).phases[2], 1)
    made = RunDirectory(files / "run").artifact("corpus")
    tokenizer = train_tokenizer(["the mill by the river"] * 9, 280)
    tokenizer.save_pretrained(made)
    (made / "phase.json").write_text(json.dumps({"id": "x", "metrics": {}, "lineage": {}}))
    ((report, _),) = preview(resolve(settings).phases[2], 1).values()
    assert report.rows == 30
    artifacts = RunDirectory(files / "run").finished(["corpus"])
    found = tokenizer_of(resolve(settings).phases[2], artifacts)
    assert found.get_vocab() == tokenizer.get_vocab()
