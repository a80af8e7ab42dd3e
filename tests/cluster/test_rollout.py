"""Rollout engines and weight sync on real Ray and vLLM, against transformers' own log-probs of the same weights."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from actors.calls import WeightSyncError, WorkerError
from actors.cluster import by_value
from actors.rollout_engines import Engines
from actors.rollout_pool import EnginePool
from actors.vllm_engine import PREFILL_TOKENS
from actors.weight_items import WeightItem, checksum
from actors.weight_sync import canary_sequences, canary_tolerance, synchronise
from data.errors import UserError
from data.sample import Prompt, Sample, Sampling
from rlhf.config.schema import Rollout
from rlhf.engine.weights import to_numpy

MAX_LENGTH = 320
NAMESPACE = "test_rollout"  # of the engines' names
STOP = tuple(range(24))  # many, so that random weights end some answers early
SIZES = {
    "vocab_size": 257,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
CONFIGS = {
    "tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "untied": LlamaConfig(**SIZES, tie_word_embeddings=False),
}
SHORT = [Prompt(tuple(range(30 + row, 42 + row)), f"prompt {row}", row) for row in range(6)]
LONG = Prompt(tuple(30 + (7 * i) % 200 for i in range(280)), "fills blocks of the prefix cache", 6)
PROMPTS = [*SHORT, LONG]
SAMPLING = Sampling(24, samples=3, seed=(7, 1))


class Trainer:
    """The trainer's side of a sync, in plain transformers: one process that holds every model of the tests.

    Models are named by (path, dtype, lr). lr: 0, or that of one step of training after loading.
    """

    def __init__(self) -> None:
        self.models: dict[tuple, torch.nn.Module] = {}

    def bucket_count(self, *which) -> int:
        return len(self._buckets(*which))

    def bucket(self, index: int, *which) -> list[WeightItem]:
        return self._buckets(*which)[index]

    @torch.no_grad()
    def logprobs_of(self, sequences: list[list[int]], *which) -> list[list[float]]:
        return [logprobs(self._model(*which), sequence, 1.0).tolist() for sequence in sequences]

    def _model(self, path: str, dtype: torch.dtype, lr: float = 0.0) -> torch.nn.Module:
        key = path, dtype, lr
        if key not in self.models and lr:
            self.models[key] = trained(copy.deepcopy(self._model(path, dtype)), lr)
        elif key not in self.models:
            self.models[key] = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
        return self.models[key]

    def _buckets(self, *which) -> list[list[WeightItem]]:
        items = [to_numpy(name, parameter.detach()) for name, parameter in self._model(*which).named_parameters()]
        return [items[first : first + 3] for first in range(0, len(items), 3)]


def trained(model: torch.nn.Module, lr: float) -> torch.nn.Module:
    """The model after one step of AdamW on random tokens."""
    tokens = torch.randint(0, SIZES["vocab_size"], (8, 64), generator=torch.Generator().manual_seed(0))
    model(input_ids=tokens, labels=tokens).loss.backward()
    torch.optim.AdamW(model.parameters(), lr=lr).step()
    return model


class Source:
    """What `EnginePool.sync` takes, backed by the Trainer."""

    def __init__(
        self, trainer: ray.actor.ActorHandle, path: Path, dtype: torch.dtype = torch.float32, lr: float = 0.0
    ) -> None:
        self.trainer, self.which = trainer, (str(path), dtype, lr)

    def weight_plan(self, bucket_bytes: int) -> int:
        return ray.get(self.trainer.bucket_count.remote(*self.which))

    def weight_bucket(self, index: int) -> ray.ObjectRef:
        return self.trainer.bucket.remote(index, *self.which)

    def weight_checksum(self) -> int:
        """Of the buckets as they were made: the Trainer's."""
        indices = range(self.weight_plan(0))
        return sum(checksum(ray.get(Source.weight_bucket(self, index))) for index in indices) % 2**64

    def logprobs_of(self, sequences: list[list[int]]) -> list[list[float]]:
        return ray.get(self.trainer.logprobs_of.remote(sequences, *self.which))


class CorruptingSource(Source):
    """Flips one bit of one tensor on its way."""

    def weight_bucket(self, index: int) -> ray.ObjectRef:
        items = ray.get(super().weight_bucket(index))
        if index == 1:
            name, dtype, array = items[0]
            array = array.copy()
            array.reshape(-1).view("uint8")[5] ^= 1
            items[0] = (name, dtype, array)
        return ray.put(items)


class StaleSource(Source):
    """Trained by one step; sends, with a checksum that fits, the last layer as it was before."""

    def weight_bucket(self, index: int) -> ray.ObjectRef:
        path, dtype, _ = self.which
        before = Source(self.trainer, path, dtype).weight_bucket(index)
        pairs = zip(ray.get(before), ray.get(super().weight_bucket(index)), strict=True)
        return ray.put([old if old[0].startswith("model.layers.1.") else new for old, new in pairs])

    def weight_checksum(self) -> int:
        return sum(checksum(ray.get(self.weight_bucket(index))) for index in range(self.weight_plan(0))) % 2**64


@dataclass(frozen=True)
class Rig:
    """A pool, two models of its architecture, and what the pool sampled with the weights that it loaded."""

    pool: EnginePool
    trainer: ray.actor.ActorHandle
    loaded: Path
    other: Path
    first: list[Sample]


def logprobs(model: torch.nn.Module, tokens: list[int], temperature: float) -> torch.Tensor:
    """(T - 1,) log p of every token but the first."""
    logits = model(torch.tensor([tokens])).logits[0, :-1].float()
    return (logits / temperature).log_softmax(-1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


@torch.no_grad()
def widest_difference(samples: list[Sample], path: Path, temperature: float = 1.0) -> float:
    """Between the samples' log-probs and transformers'."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    differences = []
    for sample in samples:
        expected = logprobs(model, [*sample.prompt.tokens, *sample.tokens], temperature)[-len(sample.tokens) :]
        differences.append((torch.tensor(sample.logprobs) - expected).abs().max().item())
    return max(differences)


def answers(samples: list[Sample]) -> dict[tuple[int, int], tuple[int, ...]]:
    return {(sample.prompt.row, sample.index): sample.tokens for sample in samples}


@pytest.fixture(scope="module")
def trainer(ray_cluster) -> Iterator[ray.actor.ActorHandle]:
    actor = ray.remote(by_value(Trainer)).options(num_cpus=0).remote()
    yield actor
    ray.kill(actor)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Two checkpoints of random weights, biases and norms included, for each architecture."""
    alphabet = ["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    written = {}
    for name, config in CONFIGS.items():
        paths = tuple(tmp_path_factory.mktemp(f"{name}{version}") for version in range(2))
        for version, path in enumerate(paths):
            torch.manual_seed(version)
            model = AutoModelForCausalLM.from_config(config)
            for parameter in model.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
            model.save_pretrained(path)
            PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(path)
        written[name] = paths
    return written


RIGS = {"tied": ("tied", 2, "float32"), "untied": ("untied", 1, "float32"), "bfloat16": ("tied", 1, "bfloat16")}


@pytest.fixture(scope="module", params=["tied", "untied"])
def rig(request: pytest.FixtureRequest, trainer: ray.actor.ActorHandle, checkpoints: dict) -> Iterator[Rig]:
    """One of RIGS. The last test that takes one may ruin its pool."""
    architecture, engines, dtype = RIGS[request.param]
    loaded, other = checkpoints[architecture]
    placements = [{"num_cpus": 0.1, "namespace": NAMESPACE}] * engines
    settings = Rollout(memory_gib=0.1)
    pool = EnginePool(
        Engines(placements), str(loaded), MAX_LENGTH, settings=settings, stop_token_ids=STOP, dtype=dtype, seed=0
    )
    yield Rig(pool, trainer, loaded, other, pool.generate(PROMPTS, SAMPLING))
    pool.close()


def sync_beside_the_pool(rig: Rig, source: Source, dtype: str) -> float:
    """A sync after whose failure the pool goes on with its next one. Returns the canary's gap."""
    canary = canary_sequences(SIZES["vocab_size"], MAX_LENGTH)
    tolerance = canary_tolerance(dtype, Rollout().canary_tolerance)
    report = synchronise(rig.pool._engines, source, version=9, bucket_bytes=2**20, canary=canary, tolerance=tolerance)
    return report["canary_gap"]


def test_logprobs_of_the_loaded_weights_are_those_of_transformers(rig: Rig):
    assert {sample.version for sample in rig.first} == {0}
    assert widest_difference(rig.first, rig.loaded) < 1e-4


def test_after_a_sync_logprobs_are_those_of_the_new_weights(rig: Rig):
    for path in (rig.other, rig.loaded):
        report = rig.pool.sync(Source(rig.trainer, path))
        samples = rig.pool.generate(PROMPTS, SAMPLING)
        assert widest_difference(samples, path) < 1e-4
        assert {sample.version for sample in samples} == {report["version"]}
        assert report["canary_gap"] < 1e-4
    assert rig.pool.stats["failed"] == 0


def test_a_sync_reports_the_bytes_of_the_weights(rig: Rig):
    report = rig.pool.sync(Source(rig.trainer, rig.loaded))
    model = AutoModelForCausalLM.from_pretrained(rig.loaded, dtype=torch.float32)
    assert report["bytes"] == sum(parameter.nbytes for parameter in model.parameters())


def test_logprobs_are_those_of_the_sampling_temperature(rig: Rig):
    rig.pool.sync(Source(rig.trainer, rig.loaded))
    samples = rig.pool.generate(PROMPTS, Sampling(24, temperature=0.6, seed=(3,)))
    assert widest_difference(samples, rig.loaded, temperature=0.6) < 1e-4
    assert widest_difference(samples, rig.loaded, temperature=1.0) > 0.1


def test_samples_do_not_depend_on_order_company_or_engine(rig: Rig):
    together = rig.pool.generate(PROMPTS, SAMPLING)
    backwards = rig.pool.generate(PROMPTS[::-1], SAMPLING)
    alone = [sample for prompt in PROMPTS for sample in rig.pool.generate([prompt], SAMPLING)]  # all on one engine
    assert answers(together) == answers(backwards) == answers(alone)
    assert len(set(answers(together).values())) == len(PROMPTS) * SAMPLING.samples


def test_more_prompts_than_one_step_takes_are_answered(rig: Rig):
    crowd = [Prompt(tuple(range(30 + row, 130 + row)), "", row) for row in range(100)]
    assert sum(len(prompt.tokens) for prompt in crowd) > 2 * PREFILL_TOKENS
    samples = rig.pool.generate(crowd, Sampling(4, seed=(1,)))
    assert [sample.prompt.row for sample in samples] == list(range(100))


def test_another_seed_gives_other_samples(rig: Rig):
    same = Sampling(24, samples=3, seed=(7, 2))
    assert answers(rig.pool.generate(PROMPTS, same)) != answers(rig.pool.generate(PROMPTS, SAMPLING))


def test_samples_come_ordered_by_prompt_and_index(rig: Rig):
    order = [(sample.prompt.row, sample.index) for sample in rig.first]
    assert order == [(row, index) for row in range(len(PROMPTS)) for index in range(SAMPLING.samples)]


def test_an_answer_ends_with_its_first_stop_token_or_is_truncated(rig: Rig):
    for sample in rig.first:
        assert not set(sample.tokens[:-1]) & set(STOP)
        assert sample.truncated == (sample.tokens[-1] not in STOP)
        assert not sample.truncated or len(sample.tokens) == SAMPLING.max_new_tokens
    assert {sample.truncated for sample in rig.first} == {True, False}


def test_an_answer_is_truncated_where_prompt_and_answer_reach_the_maximal_length(rig: Rig):
    prompt = Prompt((50,) * (MAX_LENGTH - 2), "long", 0)
    samples = rig.pool.generate([prompt], Sampling(24, samples=8, seed=(1,)))
    assert max(len(sample.tokens) for sample in samples) == 2
    assert any(sample.truncated for sample in samples)


def test_a_prompt_that_leaves_no_room_for_an_answer_is_the_users_error(rig: Rig):
    with pytest.raises(UserError, match=f"row 5 has {MAX_LENGTH} tokens"):
        rig.pool.generate([Prompt((50,) * MAX_LENGTH, "too long", 5)], SAMPLING)


def test_text_is_the_answer_without_special_tokens(rig: Rig):
    for sample in rig.first:
        assert "<eos>" not in sample.text
        assert sample.text or set(sample.tokens) == {0}


def test_in_float32_the_canary_stops_one_stale_layer_after_a_step_of_lr_1e_4_but_cannot_see_it_after_1e_6(rig):
    stale = [StaleSource(rig.trainer, rig.loaded, lr=lr) for lr in (1e-6, 1e-4)]
    right = sync_beside_the_pool(rig, Source(rig.trainer, rig.loaded, lr=1e-6), "float32")
    unseen = sync_beside_the_pool(rig, stale[0], "float32")
    assert right < unseen < 1e-3
    with pytest.raises(WeightSyncError, match=r"rollout/\d on node .* canary failed after the sync of version 9"):
        sync_beside_the_pool(rig, stale[1], "float32")


@pytest.mark.parametrize("rig", ["bfloat16"], indirect=True)
def test_in_bfloat16_the_canary_stops_another_models_weights_but_cannot_see_a_stale_layer_after_a_step_of_lr_1e_3(rig):
    assert sync_beside_the_pool(rig, Source(rig.trainer, rig.other, torch.bfloat16), "bfloat16") < 0.2
    assert sync_beside_the_pool(rig, StaleSource(rig.trainer, rig.other, torch.bfloat16, lr=1e-3), "bfloat16") < 0.5
    source = Source(rig.trainer, rig.other, torch.bfloat16)
    source.logprobs_of = Source(rig.trainer, rig.loaded, torch.bfloat16).logprobs_of
    with pytest.raises(WeightSyncError, match=r"rollout/\d on node .* canary failed after the sync of version 9"):
        sync_beside_the_pool(rig, source, "bfloat16")


@pytest.mark.parametrize("rig", ["untied"], indirect=True)
def test_a_corrupted_bucket_stops_the_run(rig):
    syncs = rig.pool.stats["syncs"]
    with pytest.raises(WeightSyncError, match=r"rollout/0 on node .* version \d+ arrived changed: checksum"):
        rig.pool.sync(CorruptingSource(rig.trainer, rig.other))
    assert rig.pool.stats == {"syncs": syncs + 1, "failed": 1}
    with pytest.raises(WeightSyncError, match="an earlier weight sync failed"):
        rig.pool.generate(PROMPTS, SAMPLING)


@pytest.mark.parametrize("rig", ["tied"], indirect=True)
def test_an_engine_that_dies_while_generating_is_named(rig):
    threading.Timer(1.0, ray.kill, [ray.get_actor("rollout/0", NAMESPACE)]).start()
    started = time.monotonic()
    with pytest.raises(WorkerError, match=r"rollout/0 on node .* failed in rollout\.generate"):
        rig.pool.generate(PROMPTS, Sampling(50, samples=1000))
    assert time.monotonic() - started < 20
