"""Where ranks stand on a grid, against DeepSpeed's own topology."""

import pytest
import torch
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

from rlhf.engine.grid import Grid, Place, gradient_norm


@pytest.mark.parametrize(("parts", "stages", "replicas"), [(1, 1, 3), (2, 1, 2), (1, 2, 2), (2, 3, 2)])
def test_places_are_those_of_deepspeed(parts, stages, replicas):
    grid = Grid(parts * stages * replicas, parts, stages)
    theirs = PipeModelDataParallelTopology(num_pp=stages, num_mp=parts, num_dp=replicas)
    for rank in range(grid.world):
        coordinate = theirs.get_coord(rank)
        assert grid.place(rank) == Place(coordinate.data, coordinate.pipe, coordinate.model)
        assert grid.rank(grid.place(rank)) == rank
    assert grid.replicas == replicas and grid.cut == (parts * stages > 1)


def test_each_replica_has_one_leader_a_stage():
    grid = Grid(8, parts=2, stages=2)
    assert grid.leaders() == [0, 2] and grid.leaders(1) == [4, 6]
    assert Grid(3).leaders() == [0, 1, 2]


def test_ranks_that_do_not_divide_are_an_error():
    with pytest.raises(ValueError, match="6 ranks are no multiple of 2 parts x 2 stages"):
        Grid(6, 2, 2)


def test_the_norm_is_that_of_all_gradients():
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (5,))]
    for weight in weights[:2]:
        weight.grad = torch.randn(weight.shape)
    wanted = torch.cat([weight.grad.flatten() for weight in weights[:2]]).norm()
    assert gradient_norm(weights, Grid(1)) == pytest.approx(float(wanted))
