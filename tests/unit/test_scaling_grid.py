"""A config's scaling section becomes one run, a phase for each training; mistakes in it are told before anything is spawned."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

import launch
from data.errors import UserError
from rlhf import api
from rlhf.config.check import check
from rlhf.config.load import dump_config, load_config
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config
from rlhf.scaling.size_grid import grid_config, phases_before, points_of
from rlhf.scaling.trainings import scale

SIZES = {
    "small": {"architecture": {"hidden_size": 32}, "lr": 0.01},
    "middle": {"architecture": {"hidden_size": 64}},
    "large": {"architecture": {"hidden_size": 128}, "batch_size": 16},
    "largest": {"architecture": {"hidden_size": 256}},
}
OF_ONE_BATCH = {name: {"architecture": size["architecture"]} for name, size in SIZES.items()}
SCALING = {"sizes": SIZES, "tokens": [4096, 1024, 2048], "held_out": [{"size": "largest", "tokens": 4096}]}
PRETRAIN = {
    "kind": "pretrain",
    "data": {"path": "data.demo.tasks:corpus", "args": {"rows": 8}, "holdout": 2},
    "tokenizer": {"vocab_size": 300},
    "max_length": 64,
    "batch_size": 8,
    "optim": {"lr": 0.003},
    "goals": {"loss": {"at_most": 1.0}},
}


def config(tmp_path: Path, scaling: dict[str, Any] | None = None, phases: list[dict[str, Any]] | None = None) -> Config:
    return Config.model_validate(
        {
            "run": {"name": "sizes", "output": str(tmp_path / "run")},
            "models": {"policy": {"architecture": {"model_type": "llama", "num_hidden_layers": 2}}},
            "scaling": {**SCALING, **(scaling or {})},
            "phases": phases or [PRETRAIN],
        }
    )


def test_every_size_meets_every_token_count_and_held_out_sizes_only_their_own(tmp_path):
    points = points_of(config(tmp_path).scaling)
    assert {(point.size, point.tokens) for point in points if not point.held_out} == {
        (size, tokens) for size in ("small", "middle", "large") for tokens in (1024, 2048, 4096)
    }
    assert [(point.size, point.tokens) for point in points if point.held_out] == [("largest", 4096)]
    assert len(points) == 10


def test_a_training_is_the_phase_with_its_sizes_fields_and_its_tokens_steps(tmp_path):
    settings = config(tmp_path)
    grid = grid_config(resolve(settings))
    check(grid)
    phases = {phase.name: phase for phase in grid.phases}
    small, large = phases["small-2048"], phases["large-2048"]
    assert resolve(grid)[small.name].models["policy"].architecture == {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 32,
    }
    assert (small.steps, small.batch_size, small.optim.lr) == (2048 // (8 * 64), 8, 0.01)
    assert (large.steps, large.batch_size, large.optim.lr) == (2048 // (16 * 64), 16, 0.003)
    assert small.goals == {}
    assert (small.data, small.tokenizer, small.seed) == (
        settings.phases[0].data,
        settings.phases[0].tokenizer,
        settings.phases[0].seed,
    )
    assert grid.run.directory == settings.run.directory + "-scaling"


def test_the_grids_config_can_be_read_back(tmp_path):
    grid = grid_config(resolve(config(tmp_path)))
    (tmp_path / "config.yaml").write_text(dump_config(grid))
    assert load_config(tmp_path / "config.yaml") == grid


@pytest.mark.parametrize(
    ("scaling", "told"),
    [
        ({"phase": "pretrian"}, "scaling.phase: there is no pretrain phase 'pretrian'; did you mean pretrain?"),
        (
            {"held_out": [{"size": "larges", "tokens": 1}]},
            "scaling.held_out: there is no size 'larges'; did you mean large",
        ),
        ({"held_out": [{"size": name, "tokens": 1} for name in ("large", "largest")]}, "scaling.sizes: 2 of them"),
        (
            {"held_out": [{"size": "largest", "tokens": tokens} for tokens in (1, 2, 1)]},
            "scaling.held_out: largest on 1 tokens is there 2 times; name each training once",
        ),
        (
            {"held_out": [], "held_out_error": 0.1},
            "scaling.held_out_error: no training is held out whose loss it could bound; set scaling.held_out, or remove it",
        ),
        ({"tokens": [1024, 2048, 1024]}, "scaling.tokens: different ones: 2; a law needs at least 3"),
        (
            {"tokens": [2560, 3584, 4608], "sizes": OF_ONE_BATCH},
            "scaling.tokens: in whole steps they lie within a factor of 1.8",
        ),
        (
            {"tokens": [512, 600, 2048], "sizes": OF_ONE_BATCH},
            "scaling.tokens: 512 and 600 both come to 1 step of 512 tokens",
        ),
    ],
)
def test_a_grid_that_cannot_tell_a_law_is_refused(tmp_path, scaling, told):
    with pytest.raises(UserError) as error:
        check(config(tmp_path, scaling))
    assert str(error.value).startswith(told)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"path": "data.demo.tasks:corpus"}, "phases.pretrain.data.holdout, or its eval_data"),
        (
            {"mix": {"one": "data.demo.tasks:corpus", "two": "data.demo.tasks:corpus"}},
            "phases.pretrain.data.mix.one.holdout",
        ),
        ("phase:corpus", "phases.corpus.holdout"),
    ],
)
def test_a_grid_without_held_out_rows_is_refused(tmp_path, data, told):
    made = {"kind": "corpus", "sources": [{"name": "one", "path": "data.demo.tasks:corpus"}], "holdout": 0.0}
    before = [made] if data == "phase:corpus" else []
    phase = {**PRETRAIN, "data": data} | ({"tokenizer": None} if before else {})
    with pytest.raises(UserError, match=r"phase 'pretrain' holds nothing out: set ") as error:
        check(config(tmp_path, phases=[*before, phase]))
    assert str(error.value).endswith(told)
    held_out = (
        {"mix": {**data["mix"], "two": {"path": "data.demo.tasks:corpus", "holdout": 2}}} if "mix" in data else data
    )
    if before:
        check(config(tmp_path, phases=[{**made, "holdout": 0.1}, phase]))
    elif "mix" in data:
        check(config(tmp_path, phases=[{**phase, "data": held_out}]))
    else:
        check(config(tmp_path, phases=[{**phase, "eval_data": data}]))


FOUR_LAYERS = {"intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"small": {"hiden_size": 32}}, r"^scaling\.sizes\.small\.architecture\.hiden_size: llama has no such field"),
        (
            {"largest": {"hidden_size": 250, "num_attention_heads": 7}},
            r"^scaling\.sizes\.largest\.architecture: .*not a multiple",
        ),
        (
            {name: {"hidden_size": width} for name, width in (("small", 32), ("middle", 36), ("large", 40))},
            r"^scaling\.sizes: small .*, middle .*, large .* parameters \(with a vocabulary of 300\) are too close",
        ),
    ],
)
def test_sizes_that_cannot_be_built_or_tell_a_law_are_told_before_a_cluster_starts(tmp_path, changes, told):
    sizes = {name: {"architecture": {**FOUR_LAYERS, **size["architecture"]}} for name, size in SIZES.items()}
    api.check_scaling(config(tmp_path, {"sizes": sizes}))
    for name, fields in changes.items():
        sizes[name] = {"architecture": {**FOUR_LAYERS, **fields}}
    with pytest.raises(UserError, match=told):
        api.scaling_law(config(tmp_path, {"sizes": sizes}), address="nowhere")


def test_fresh_removes_nothing_where_a_check_fails(tmp_path):
    sizes = {**SIZES, "largest": {"architecture": {"hiden_size": 16}}}
    file, left = tmp_path / "config.yaml", tmp_path / "run-scaling"
    written = {"run": {"output": str(tmp_path / "run")}, "scaling": {**SCALING, "sizes": sizes}, "phases": [PRETRAIN]}
    written["models"] = {"policy": {"architecture": {"num_hidden_layers": 2}}}
    file.write_text(yaml.safe_dump(written))
    left.mkdir()
    (left / "config.yaml").touch()
    done = CliRunner().invoke(launch.app, ["scaling", str(file), "--fresh"])
    assert (done.exit_code, left.exists()) == (2, True)
    assert "hiden_size" in done.stderr


def test_only_phases_that_the_scaled_one_needs_are_run_before_it(tmp_path):
    first = {**PRETRAIN, "name": "first"}
    made = {
        "kind": "corpus",
        "sources": [{"name": "one", "path": "data.demo.tasks:corpus"}],
        "tokenizer": {"path": "phase:first"},
    }
    tuned = {"kind": "sft", "data": "data.demo.tasks:instructions", "models": {"policy": "phase:first"}}
    scaled = {**PRETRAIN, "name": "scaled", "data": "phase:corpus", "tokenizer": None}
    settings = config(tmp_path, {"phase": "scaled"}, [first, tuned, made, scaled])
    assert [phase.name for phase in phases_before(resolve(settings))] == ["first", "corpus"]


def test_two_pretrain_phases_must_be_told_apart(tmp_path):
    phases = [PRETRAIN, {**PRETRAIN, "name": "other"}]
    with pytest.raises(UserError, match=r"scaling\.phase: which one\? Name one of pretrain, other"):
        check(config(tmp_path, phases=phases))
    check(config(tmp_path, {"phase": "other"}, phases))


def test_a_model_that_is_there_already_has_no_other_sizes(tmp_path):
    (tmp_path / "model").mkdir()
    phase = {**PRETRAIN, "models": {"policy": str(tmp_path / "model")}, "tokenizer": None}
    with pytest.raises(
        UserError, match="scaling: the policy of phase 'pretrain' starts from a path, so its size is given"
    ):
        check(config(tmp_path, phases=[phase]))


def test_a_mistake_in_a_sizes_architecture_names_its_training(tmp_path):
    sizes = {**SIZES, "small": {"architecture": {"hidden_size": 32, "max_position_embeddings": 16}}}
    with pytest.raises(UserError, match=r"phases\.small-1024\.max_length 64 is over the 16 positions"):
        check(grid_config(resolve(config(tmp_path, {"sizes": sizes}))))


class ClusterWanted(Exception):
    pass


def test_phases_before_belong_to_the_configs_own_run_and_are_shared(tmp_path):
    texts = "\n".join(
        json.dumps({"text": f"the fox number {number} sits in the barn and eats plums"}) for number in range(40)
    )
    (tmp_path / "texts.jsonl").write_text(texts + "\n")
    made = {
        "kind": "corpus",
        "sources": [{"name": "one", "path": str(tmp_path / "texts.jsonl")}],
        "steps": [],
        "tokenizer": {"vocab_size": 300},
        "holdout": 0.2,
    }
    trained = {"kind": "pretrain", "data": "phase:corpus", "max_length": 16, "batch_size": 4}
    settings = config(tmp_path, phases=[made, trained])
    console = Console(file=io.StringIO(), width=200)

    def cluster_of(needed: Config):
        def connect():
            assert {phase.kind for phase in needed.phases} == {"pretrain"}
            raise ClusterWanted

        return connect

    for _ in range(2):
        with pytest.raises(ClusterWanted):
            scale(settings, cluster_of, console)
    assert (tmp_path / "run/artifacts/corpus/phase.json").exists()
    assert not (tmp_path / "run-scaling/artifacts/corpus").exists()
    assert "corpus    done before, inputs unchanged" in console.file.getvalue()


def test_a_config_without_the_section_is_told_where_to_read_about_it(tmp_path):
    settings = config(tmp_path).model_copy(update={"scaling": None})
    with pytest.raises(UserError, match=r"there is no section `scaling` in this config; see docs/scaling\.md"):
        api.scaling_law(settings)
