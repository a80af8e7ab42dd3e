"""A model that ranks share, by data, matrix or layer, trains as plain PyTorch does in one process."""

import plain
import pytest
import torch
import torch.distributed as dist
from test_engine_training import Broken, weights_of

from rlhf.engine.device import resolve
from rlhf.engine.engine import Engine, Term
from rlhf.engine.grid import Grid, process_groups

BATCHES = [plain.make_batch(rows=8, seed=seed) for seed in range(3)]
NLL = plain.NegativeLogprob()

DATA: dict[str, int] = {}
TENSOR, PIPELINE, STAGES = {"tensor_parallel": 2}, {"pipeline_parallel": 2}, {"pipeline_parallel": 4}
BOTH = TENSOR | PIPELINE
# (ranks, ZeRO stage, sizes). Each two values of two settings that go together meet in one of the first; test_engine_training.py
# has one and two ranks without sizes.
PAIRWISE = [
    (4, 3, DATA),
    *[(2, 0, TENSOR), (4, 1, TENSOR), (4, 2, TENSOR), (2, 3, TENSOR)],
    *[(4, 0, PIPELINE), (2, 1, PIPELINE)],
    *[(4, stage, sizes) for stage in (0, 1) for sizes in (BOTH, STAGES)],
]
OTHERS = [
    *[(4, stage, DATA) for stage in (0, 1, 2)],
    *[(4, 0, TENSOR), (2, 1, TENSOR), (2, 2, TENSOR), (4, 3, TENSOR)],
    *[(2, 0, PIPELINE), (4, 1, PIPELINE)],
]
COMBINATIONS = [*PAIRWISE, *(pytest.param(*values, marks=pytest.mark.long) for values in OTHERS)]


def mine(batch, rank, world, build):
    """The rows of this rank's replica."""
    grid = Grid(world, build.tensor_parallel, build.pipeline_parallel)
    return plain.share(batch, grid.place(rank).replica, grid.replicas)


def train(rank, world, build, objective, batches):
    """Metrics of one step a batch, and the weights afterwards (rank 0)."""
    engine = Engine(build, resolve("cpu"))
    metrics = [engine.train(mine(batch, rank, world, build), objective) for batch in batches]
    weights = weights_of(engine)
    engine.close()
    return metrics, weights


def assert_plain(runs, path, objective=NLL, head="lm", batches=BATCHES):
    """Every rank's run is plain PyTorch's: losses to 1e-5 relative, gradient norms, and the weights."""
    model = plain.load(path, head)
    wanted = plain.train(model, batches, objective)
    for metrics, _ in runs:
        assert metrics == runs[0][0]
        for step, plainly in zip(metrics, wanted, strict=True):
            assert step["loss"] == pytest.approx(plainly["loss"], rel=1e-5)
            assert step["grad_norm"] == pytest.approx(plainly["grad_norm"], rel=5e-5)
    parameters = dict(model.named_parameters())
    assert runs[0][1].keys() == parameters.keys()
    for name, weight in runs[0][1].items():
        # not each number: AdamW turns the rounding of a gradient that is near zero into a step
        off = (weight - parameters[name].detach()).norm() / parameters[name].detach().norm()
        assert off < 1e-3, name


@pytest.mark.parametrize(("world", "stage", "sizes"), COMBINATIONS, ids=str)
def test_losses_norms_and_weights_are_those_of_one_process(groups, deep, world, stage, sizes):
    assert_plain(groups[world].run(train, plain.build(deep, zero_stage=stage, **sizes), NLL, BATCHES), deep)


@pytest.mark.parametrize(("stage", "sizes"), [(2, TENSOR), (0, PIPELINE), (1, BOTH)], ids=str)
def test_a_tied_output_layer_gets_the_gradient_of_both_of_its_uses(groups, tied_qwen, stage, sizes):
    assert_plain(groups[4].run(train, plain.build(tied_qwen, zero_stage=stage, **sizes), NLL, BATCHES), tied_qwen)


@pytest.mark.parametrize(
    ("objective", "sizes"), [(plain.SquaredError(), TENSOR), (plain.BetterFirst(), PIPELINE)], ids=["values", "pairs"]
)
def test_a_scalar_head_trains_as_in_plain_pytorch(groups, scalar, objective, sizes):
    build = plain.build(scalar, role="critic", head="scalar", zero_stage=1, **sizes)
    assert_plain(groups[4].run(train, build, objective, BATCHES), scalar, objective, "scalar")


@pytest.mark.parametrize("sizes", [TENSOR, PIPELINE], ids=str)
def test_a_replica_without_rows_and_recomputed_activations_change_nothing(groups, deep, sizes):
    batches = [plain.make_batch(rows=2, seed=seed) for seed in range(2)]  # two neighbours: all on the first replica
    build = plain.build(deep, zero_stage=1, activation_checkpointing=True, **sizes)
    assert_plain(groups[4].run(train, build, NLL, batches), deep, batches=batches)


@pytest.mark.parametrize("sizes", [TENSOR, BOTH], ids=str)
def test_bfloat16_stays_near_float32(groups, deep, sizes):
    runs = groups[4].run(train, plain.build(deep, dtype="bfloat16", zero_stage=1, **sizes), NLL, BATCHES)
    wanted = plain.train(plain.load(deep, "lm"), BATCHES, NLL)
    for metrics, _ in runs:
        assert [step["loss"] for step in metrics] == pytest.approx([step["loss"] for step in wanted], abs=0.1)


def parts_that_differ(rank, world, build):
    """Names of the weights that are whole on each rank, but not the same on all after training."""
    engine = Engine(build, resolve("cpu"))
    for batch in BATCHES:
        engine.train(mine(batch, rank, world, build), NLL)
    whole = {
        name: weight.detach()
        for name, weight in engine._weights._parameters.items()
        if name not in engine._weights._axes
    }
    group = process_groups(Grid(world, build.tensor_parallel)).get_slice_parallel_group()
    differing = []
    for name, weight in whole.items():
        others = [torch.empty_like(weight) for _ in range(build.tensor_parallel)]
        dist.all_gather(others, weight.contiguous(), group=group)
        differing += [name for other in others if not torch.equal(other, weight)]
    engine.close()
    return len(whole), differing


def test_what_every_part_holds_stays_the_same_on_all(groups, deep):
    for count, differing in groups[4].run(parts_that_differ, plain.build(deep, **TENSOR)):
        assert count == 2 + 4 * 4 + 1 and differing == []


def beside(rank, world, build):
    engine = Engine(build, resolve("cpu"))
    first, second = (mine(batch, rank, world, build) for batch in BATCHES[:2])
    metrics = engine.train(first, NLL, 0.7, Term(second, plain.Entropic(), weight=0.5, name="ptx"))
    engine.close()
    return metrics


def test_a_second_loss_joins_the_step_of_stages_as_that_of_one_rank(groups, deep):
    (wanted,) = groups[1].run(beside, plain.build(deep, zero_stage=1))
    for metrics in groups[4].run(beside, plain.build(deep, zero_stage=1, **BOTH)):
        assert metrics == pytest.approx(wanted, rel=1e-5)


def break_and_continue(rank, world, build, how):
    """Metrics of a step that breaks, and of the next one; and of the latter where there was none that broke."""
    rows = mine(BATCHES[0], rank, world, build)
    steps = []
    for objectives in ([NLL, Broken(how=how), NLL], [NLL, NLL]):
        engine = Engine(build, resolve("cpu"))
        steps.append([engine.train(rows, objective) for objective in objectives])
        engine.close()
    return steps[0][1:], steps[1][1]


@pytest.mark.parametrize(
    ("stage", "sizes", "how", "dtype"),
    [
        (0, TENSOR, "loss", "float32"),
        (3, TENSOR, "gradient", "float32"),
        (0, PIPELINE, "gradient", "float32"),
        (1, BOTH, "gradient", "float32"),
        (2, TENSOR, "gradient", "bfloat16"),
        (1, PIPELINE, "loss", "bfloat16"),
    ],
    ids=str,
)
def test_what_is_not_finite_never_reaches_the_weights(groups, deep, stage, sizes, how, dtype):
    for (broken, after), without in groups[4].run(
        break_and_continue, plain.build(deep, zero_stage=stage, dtype=dtype, **sizes), how
    ):
        assert broken["skipped"] == 1
        assert after == without
