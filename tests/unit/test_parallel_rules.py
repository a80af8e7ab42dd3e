"""What tensor_parallel and pipeline_parallel do not go with is told before anything starts."""

import json

import pytest

from data.errors import UserError
from rlhf.config.check import check
from rlhf.config.schema import Config

SFT = {"kind": "sft", "data": "rewards:length"}
LLAMA = {"model_type": "llama", "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 100}


def advice(devices=4, phases=(SFT,), **policy):
    tree = {"pools": {"train": {"devices": devices}}, "models": {"policy": {"path": "some/model"} | policy}}
    try:
        check(Config.model_validate(tree | {"phases": list(phases)}))
    except UserError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_tensor_parallel_goes_with_every_zero_stage(stage):
    assert advice(tensor_parallel=2, zero_stage=stage) == []


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("parts", [1, 2])
def test_pipelines_go_with_zero_0_and_1(stage, parts):
    assert advice(pipeline_parallel=2, tensor_parallel=parts, zero_stage=stage) == []


@pytest.mark.parametrize("stage", [2, 3])
def test_pipelines_do_not_go_with_zero_2_and_3(stage):
    assert advice(pipeline_parallel=2, zero_stage=stage) == [
        "models.policy.pipeline_parallel (phase sft): DeepSpeed's pipeline engine shards optimizer states, but neither gradients "
        "nor weights: set models.policy.zero_stage (phase sft) to 1 or 0"
    ]


def test_devices_are_a_multiple_of_one_model():
    assert advice(6, tensor_parallel=2, pipeline_parallel=2, zero_stage=1) == [
        "models.policy.tensor_parallel (phase sft): one policy takes 4 devices (tensor_parallel 2 x pipeline_parallel 2), which do "
        "not divide the 6 of pool 'train': set pools.train.devices to 4 or 8"
    ]
    (line,) = advice(1, pipeline_parallel=2, zero_stage=1)
    assert line.startswith("models.policy.pipeline_parallel") and line.endswith("set pools.train.devices to 2")


def test_heads_divide_wherever_the_architecture_comes_from(tmp_path):
    tokenizer = {"tokenizer": {"vocab_size": 300}}
    made = {"kind": "pretrain", "data": "rewards:length", "models": {"policy": {"architecture": LLAMA}}} | tokenizer
    pretrained = SFT | {"models": {"policy": "phase:pretrain"}}
    for line in (
        advice(path=None, architecture=LLAMA, tensor_parallel=2, phases=[SFT | tokenizer]),
        advice(tensor_parallel=2, phases=[made, pretrained])[1:],
    ):
        assert line == [
            "models.policy.tensor_parallel (phase sft): 2 does not divide the architecture's num_key_value_heads 3; take a divisor "
            "of it"
        ]
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"num_key_value_heads": 6, "intermediate_size": 101}))
    (line,) = advice(path=str(tmp_path), tensor_parallel=2)
    assert "does not divide the architecture's intermediate_size 101" in line


def test_a_stage_has_a_layer():
    layers = {"model_type": "llama", "num_hidden_layers": 3}
    (line,) = advice(
        path=None,
        architecture=layers,
        pipeline_parallel=4,
        zero_stage=1,
        phases=[SFT | {"tokenizer": {"vocab_size": 300}}],
    )
    assert line == (
        "models.policy.pipeline_parallel (phase sft): 4 stages, but the architecture has 3 layers; take at most as many"
    )


def test_float16_is_refused():
    assert (
        "models.policy.dtype (phase sft): float16 has not been tried with tensor_parallel or pipeline_parallel; take bfloat16"
        in (advice(tensor_parallel=2, dtype="float16"))
    )


def test_rows_divide_over_replicas_and_not_over_ranks():
    assert advice(phases=[SFT | {"batch_size": 2}], tensor_parallel=2) == []
    (line,) = advice(phases=[SFT | {"batch_size": 2}])
    assert "does not divide over the 4 ranks" in line
