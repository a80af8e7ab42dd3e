"""A corpus with planted faults through the command line: what is found, the same bytes from one process, from Ray Data and after
kills, and a model that learns from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from planted import COOKIES, FOOTER, NAVIGATION, PII, Planted, plant
from runs import ROOT, call, figures, kill_when, lines

from data.corpus.document import Document, read_documents

SHARED = ROOT.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"real texts are missing: {SHARED}")


def write_config(planted: Planted, output: Path, **corpus: Any) -> Path:
    sources = [
        {"name": "rows", "path": str(planted.root / "rows")},
        {"name": "pages", "path": str(planted.root / "pages"), "kind": "web", "weight": 0.2},
        {"name": "files", "path": str(planted.root / "files")},
        {"name": "late", "path": str(planted.root / "late")},
    ]
    steps = [
        {"name": "language", "allowed": ["en"]},
        {"name": "gopher_repetition", "kinds": ["web"]},
        "exact_duplicates",
        "near_duplicates",
        "decontaminate",
        {"name": "pii", "sources": ["late"]},
    ]
    pretrain = {"kind": "pretrain", "data": "phase:corpus", "max_length": 64, "batch_size": 8, "steps": 6}
    questions = str(planted.root / "evaluation.jsonl")
    sft = {"kind": "sft", "models": {"policy": "phase:pretrain"}, "data": questions, "eval_data": questions, "steps": 1}
    config = {
        "extends": str(ROOT / "configs/demo.yaml"),
        "run": {"output": str(output)},
        "phases": [
            {
                "kind": "corpus",
                "sources": sources,
                "steps": steps,
                "tokenizer": {"vocab_size": 600},
                "unit_mb": 0.02,
                "max_document_mb": 1,
                "holdout": 0.1,
                **corpus,
            },
            pretrain,
            sft,
        ],
    }
    path = output.parent / f"{output.name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def content(output: Path) -> dict[str, bytes]:
    """Every file of the corpus that must be the same, byte for byte."""
    root = output / "artifacts" / "corpus"
    files = [*root.glob("documents/*"), *root.glob("tokens/*"), root / "tokenizer.json", root / "quarantine.jsonl"]
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(files)}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Planted:
    return plant(tmp_path_factory.mktemp("planted"), SHARED)


@pytest.fixture(scope="module")
def made(planted, tmp_path_factory) -> Path:
    """The corpus of one process: its run directory."""
    output = tmp_path_factory.mktemp("one") / "run"
    done = call("corpus", str(write_config(planted, output)))
    assert done.returncode == 0, done.stderr[-4000:]
    return output


@pytest.fixture(scope="module")
def documents(made) -> list[Document]:
    files = sorted((made / "artifacts/corpus/documents").glob("*.parquet"))
    return [document for file in files for document in read_documents(file)]


@pytest.fixture(scope="module")
def report(made) -> dict[str, Any]:
    return json.loads((made / "artifacts/corpus/report.json").read_text())


def step(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(step for step in report["steps"] if step["name"] == name)


def test_every_planted_duplicate_goes_and_every_clean_text_stays(planted, documents, report):
    assert step(report, "exact_duplicates")["dropped"] == planted.exact
    assert step(report, "near_duplicates")["dropped"] == planted.near
    left = {document.text for document in documents}
    assert [text for text in planted.clean if text not in left] == []


def test_every_leak_of_the_runs_own_prompts_goes(planted, documents, report):
    assert step(report, "decontaminate")["dropped"] == planted.leaks
    assert list(step(report, "decontaminate")["reasons"]) == ["contains text of sft.eval_data"]
    questions = [json.loads(line)["prompt"] for line in (planted.root / "evaluation.jsonl").read_text().splitlines()]
    left = " ".join(" ".join(document.text.lower().split()) for document in documents)
    assert not [question for question in questions if " ".join(question.lower().split()) in left]


def test_private_data_are_masked(documents):
    (document,) = [document for document in documents if "pii" in document.marks]
    assert not [value for value in PII.values() if value in document.text]
    assert document.marks["pii"] == {"address": 1, "card": 1, "email": 1, "ip": 1, "name": 1, "phone": 1}
    assert "write to <EMAIL_1> today" in document.text


def test_pages_lose_their_boilerplate(documents):
    pages = [document.text for document in documents if document.source == "pages"]
    assert len(pages) == 60
    assert not [text for text in pages for part in (NAVIGATION, COOKIES, FOOTER) if part in text]


def test_what_cannot_be_read_is_listed_and_the_run_goes_on(planted, made):
    quarantine = [json.loads(line) for line in (made / "artifacts/corpus/quarantine.jsonl").read_text().splitlines()]
    assert {entry["file"] for entry in quarantine} == planted.bad_files
    assert all(entry["reason"] for entry in quarantine)


def test_nothing_is_lost_silently(documents, report):
    for one in report["steps"]:
        assert one["seen"] == one["kept"] + one["dropped"]
    for one, following in zip(report["steps"], report["steps"][1:]):
        assert one["kept"] + one["passed_by"] == following["seen"] + following["passed_by"]
    assert len(documents) == report["documents"] == report["steps"][-1]["kept"] + report["steps"][-1]["passed_by"]


def test_the_page_shows_sources_steps_and_examples(made):
    page = (made / "artifacts/corpus/corpus.html").read_text()
    for text in ("near_duplicates", "pages", "contains text of sft.eval_data", "torn.jsonl.gz", "Tokens per byte"):
        assert text in page


def kill_after(output: Path, pieces: int, *arguments: str) -> None:
    """Kills the command as soon as so many pieces of the corpus are done."""
    kill_when(lambda: len(list((output / "checkpoints").glob("**/*.json"))) >= pieces, *arguments)


@pytest.mark.parametrize("kills", [(30,), pytest.param((3, 30, 60), marks=pytest.mark.long)], ids=str)
def test_a_corpus_killed_again_and_again_ends_the_same(planted, made, tmp_path, kills):
    output = tmp_path / "run"
    config = str(write_config(planted, output))
    for pieces in kills:
        kill_after(output, pieces, "corpus", config)
    done = call("corpus", config)
    assert done.returncode == 0, done.stderr[-4000:]
    assert content(output) == content(made)


@pytest.mark.parametrize("kills", [(), pytest.param((20,), marks=pytest.mark.long)], ids=["whole", "killed"])
def test_ray_data_gives_the_same_bytes_and_a_model_learns_from_them(planted, made, tmp_path, ray_cluster, kills):
    output = tmp_path / "run"
    config = str(write_config(planted, output, workers=2))
    for pieces in kills:
        kill_after(output, pieces, "corpus", config)
    done = call("run", config)
    assert done.returncode == 0, done.stderr[-4000:]
    assert content(output) == content(made)
    steps = [row for row in lines(output, "pretrain") if "loss" in row]
    assert len(steps) == 6 and steps[-1]["loss"] < steps[0]["loss"]
    found = figures(output, "pretrain")
    assert found["loss"] < found["loss_before"]
    assert set(found) >= {f"epochs/{name}" for name in ("rows", "pages", "files", "late")}
