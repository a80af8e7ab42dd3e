"""The pure parts of weight sync: what travels, what proves that it arrived; and the seeds of samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from actors.vllm_engine import request_seed
from actors.weight_items import checksum, decode
from actors.weight_sync import canary_sequences, canary_tolerance, widest_gap
from rlhf.engine.weights import to_numpy


def items() -> list:
    generator = torch.Generator().manual_seed(0)
    return [to_numpy(f"layer.{i}.weight", torch.randn(3, 5 + i, generator=generator)) for i in range(4)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_tensor_survives_the_journey_bit_for_bit(dtype: torch.dtype):
    tensor = torch.randn(7, 3).to(dtype)
    name, dtype_name, array = to_numpy("weight", tensor)
    arrived = decode(dtype_name, array)
    assert (name, arrived.dtype, arrived.shape) == ("weight", dtype, tensor.shape)
    assert torch.equal(arrived, tensor)


def test_a_decoded_tensor_owns_its_memory():
    _, dtype, array = to_numpy("weight", torch.zeros(4))
    array.flags.writeable = False  # as the object store gives it
    decode(dtype, array).fill_(1.0)
    assert not array.any()


def test_the_checksum_depends_neither_on_order_nor_on_buckets():
    weights = items()
    whole = checksum(weights)
    assert checksum(weights[::-1]) == whole
    assert (checksum(weights[:1]) + checksum(weights[1:])) % 2**64 == whole


@pytest.mark.parametrize("element", [0, 7, 14])  # 15 float32 are 60 bytes: seven words and a rest of four bytes
def test_one_flipped_bit_changes_the_checksum(element: int):
    weights = items()
    before = checksum(weights)
    weights[0][2].reshape(-1).view(np.uint32)[element] ^= 1
    assert checksum(weights) != before


def test_swapped_names_and_other_shapes_change_the_checksum():
    (name_a, dtype, a), (name_b, _, b) = items()[:2]
    assert checksum([(name_a, dtype, a), (name_b, dtype, b)]) != checksum([(name_b, dtype, a), (name_a, dtype, b)])
    assert checksum([(name_a, dtype, a)]) != checksum([(name_a, dtype, a.T)])


def test_a_missing_tensor_changes_the_checksum():
    zero = to_numpy("bias", torch.zeros(4))
    assert checksum([*items(), zero]) != checksum(items())


def test_canary_sequences_are_fixed_and_fit():
    sequences = canary_sequences(vocabulary=100, max_length=8)
    assert sequences == canary_sequences(vocabulary=100, max_length=8)
    assert {len(sequence) for sequence in sequences} == {7}
    assert all(0 <= token < 100 for sequence in sequences for token in sequence)


def test_the_widest_gap_says_where_it_is():
    gap, row, column = widest_gap([[-1.0, -2.0], [-3.0, -4.0]], [[-1.0, -2.1], [-3.5, -4.0]])
    assert (gap, row, column) == (pytest.approx(0.5), 1, 0)


def test_a_nan_is_an_infinite_gap():
    assert widest_gap([[-1.0, math.nan]], [[-1.5, -2.0]])[0] == math.inf


def test_only_bfloat16_widens_the_canarys_tolerance():
    assert canary_tolerance("float32", 1e-3) == 1e-3
    assert canary_tolerance("bfloat16", 1e-3) > 0.1
    assert canary_tolerance("bfloat16", 2.0) == 2.0


def test_seeds_are_stable_and_distinct():
    assert (
        request_seed(0, 3, 5) == 8812060758649110519
    )  # recorded: another value changes the samples of every resumed run
    seeds = {request_seed(run, row, index) for run in range(5) for row in range(50) for index in range(20)}
    assert len(seeds) == 5 * 50 * 20
    assert all(0 <= seed < 2**63 for seed in seeds)
