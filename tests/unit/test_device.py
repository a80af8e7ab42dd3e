"""The device decides backend and dtype; asking for a GPU that is not there is the user's error."""

import pytest
import torch

from data.errors import UserError
from rlhf.engine.device import Device, resolve


def test_a_cpu_runs_gloo_in_float32_and_a_gpu_nccl_in_bfloat16():
    assert (Device("cpu").backend, Device("cpu").dtype()) == ("gloo", torch.float32)
    assert (Device("cuda").backend, Device("cuda").dtype()) == ("nccl", torch.bfloat16)
    assert Device("cpu").dtype("bfloat16") == torch.bfloat16


def test_cpu_is_taken_where_it_is_asked_for():
    assert resolve("cpu") == Device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_the_users_error_and_auto_takes_the_cpu():
    assert resolve("auto") == Device("cpu")
    with pytest.raises(UserError, match="torch sees no GPU here; set device=cpu"):
        resolve("cuda")
