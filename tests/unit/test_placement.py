"""Pools become bundles that fit the cluster, and roles become shares that fit their bundles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import placement
from actors.placement import Placement, Resources
from data.errors import UserError
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config


def config(
    pools: dict, rollout: dict | None = None, device: str = "auto", kinds: tuple[str, ...] = ("rl",), **models: str
) -> Config:
    return Config.model_validate(
        {
            "device": device,
            "pools": {name: {"devices": devices} for name, devices in pools.items()},
            "models": {role: {"path": "somewhere", "pool": pool} for role, pool in models.items()},
            "rollout": rollout or {},
            "phases": [{"kind": kind, "name": f"{kind}{i}", "data": "rows.jsonl"} for i, kind in enumerate(kinds)],
        }
    )


def plan(config: Config, available: Resources) -> Placement:
    return placement.plan(resolve(config), available)


PPO = {"policy": "train", "critic": "train", "reference": "helper", "reward": "helper"}


def test_a_pool_alone_with_one_role_gives_it_whole_gpus():
    planned = plan(config({"train": 4}, kinds=("sft",)), Resources(cpus=32, gpus=4))
    assert planned.rows() == [{"pool": "train", "devices": 4, "role": "policy", "ranks": 4, "share": 1.0}]
    assert planned.pools["train"].bundles == ({"CPU": 1.0, "GPU": 1},) * 4


def test_roles_on_one_pool_share_its_gpus_in_time():
    phases = ("rl", "reward")
    planned = plan(
        config({"train": 2, "helper": 1, "rollout": 1}, {"pool": "rollout"}, kinds=phases, **PPO),
        Resources(cpus=16, gpus=4),
    )
    shares = {(row["pool"], row["role"]): row["share"] for row in planned.rows()}
    assert shares == {
        ("train", "policy"): 0.5,
        ("train", "critic"): 0.5,
        ("helper", "reference"): 0.5,
        ("helper", "reward"): 0.5,
        ("rollout", "rollout"): 1.0,
    }


def test_three_roles_on_one_gpu_do_not_add_up_to_more_than_it():
    planned = plan(config({"train": 1}, {"pool": "train"}, kinds=("rl",)), Resources(cpus=8, gpus=1))
    shares = [row["share"] for row in planned.rows()]
    assert shares == [0.25] * 4  # policy, reference, critic, rollout


def test_an_engine_over_two_gpus_gets_both_in_one_bundle():
    models = {"policy": "train", "critic": "train", "reference": "train"}
    planned = plan(
        config({"train": 2, "rollout": 4}, {"engines": 2, "tensor_parallel": 2}, **models), Resources(cpus=32, gpus=6)
    )
    assert [bundle["GPU"] for bundle in planned.pools["rollout"].bundles] == [2, 2]
    assert planned.pools["rollout"].seats["rollout"].gpus == 2


def test_an_engine_over_two_gpus_cannot_share_a_pool_with_models():
    with pytest.raises(UserError, match="tensor_parallel=2 needs a pool of its own"):
        plan(config({"train": 2}, {"pool": "train", "tensor_parallel": 2}), Resources(cpus=32, gpus=2))


def with_judge(judge_pool: str, devices: int, device: str = "auto", **rollout) -> Config:
    label = {"kind": "label", "data": "rows.jsonl", "judge": {"model": "somewhere", "pool": judge_pool}}
    pools = {name: {"devices": devices if name == judge_pool else 1} for name in ("train", "rollout", "judge")}
    settings = {"device": device, "pools": pools, "rollout": rollout, "phases": [label]}
    return Config.model_validate(settings | {"models": {"policy": "somewhere"}})


def test_a_judge_alone_spans_its_pool():
    on_gpus = plan(with_judge("judge", 2), Resources(cpus=8, gpus=4)).pools["judge"]
    assert on_gpus.bundles == ({"CPU": 1.0, "GPU": 2},)
    assert (on_gpus.seats["judge"].ranks, on_gpus.seats["judge"].gpus) == (1, 2)
    on_cpus = plan(with_judge("judge", 2), Resources(cpus=8)).pools["judge"]
    assert on_cpus.bundles == ({"CPU": 1.0},) and on_cpus.seats["judge"].ranks == 1


def test_a_judge_beside_others_has_a_share_and_no_bundle_is_empty():
    beside_engine = plan(with_judge("rollout", 2), Resources(cpus=8, gpus=4)).pools["rollout"]
    assert [seat.gpus for seat in beside_engine.seats.values()] == [0.5, 0.5]
    assert beside_engine.bundles == ({"CPU": 2.0, "GPU": 1},)
    beside_policy = plan(with_judge("train", 2), Resources(cpus=8)).pools["train"]
    assert [bundle["CPU"] for bundle in beside_policy.bundles] == [2.0, 1.0]


def test_pools_larger_than_the_cluster_say_what_they_need_and_what_there_is():
    with pytest.raises(UserError, match=r"need 8 GPUs \(train: 8 for policy\) but the cluster has 4"):
        plan(config({"train": 8}, kinds=("sft",)), Resources(cpus=64, gpus=4))
    with pytest.raises(UserError, match=r"need 500 processes \(train: 500 for policy\) but the cluster has 2 CPUs"):
        plan(config({"train": 500}, kinds=("sft",)), Resources(cpus=2))


def test_a_gpu_that_is_not_there_is_asked_for_in_vain():
    with pytest.raises(UserError, match="the cluster has no GPU"):
        plan(config({"train": 1}, device="cuda", kinds=("sft",)), Resources(cpus=2))
    assert not plan(config({"train": 1}, device="cpu", kinds=("sft",)), Resources(cpus=2, gpus=1)).on_gpus


def test_a_pool_that_no_phase_uses_takes_nothing():
    assert list(plan(config({"train": 1, "spare": 9}, kinds=("sft",)), Resources(cpus=2)).pools) == ["train"]


@given(
    train=st.integers(1, 6),
    helper=st.integers(1, 6),
    engines=st.integers(1, 6),
    cpus=st.integers(1, 64),
    shared=st.booleans(),
)
def test_on_cpus_everything_fits_into_the_cluster_and_into_its_bundle(train, helper, engines, cpus, shared):
    pools = {"train": train, "helper": helper, "rollout": engines}
    rollout = {"engines": engines, "pool": "train" if shared else "rollout"}
    planned = plan(config(pools, rollout, kinds=("rl", "dpo"), **PPO), Resources(cpus=cpus))
    assert sum(bundle["CPU"] for pool in planned.pools.values() for bundle in pool.bundles) <= cpus + 1e-9
    for pool in planned.pools.values():
        for index, bundle in enumerate(pool.bundles):
            seated = [
                seat for seat in pool.seats.values() for rank in range(seat.ranks) if rank % len(pool.bundles) == index
            ]
            assert sum(seat.cpus for seat in seated) <= bundle["CPU"] + 1e-9
            assert all(0 < seat.cpus <= 1 for seat in seated)
