import pytest
import torch
from oracle_arrays import Oracle


@pytest.fixture(params=[torch.float64, torch.float32], ids=["fp64", "fp32"])
def oracle(request) -> Oracle:
    return Oracle(request.param)
