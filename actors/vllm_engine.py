"""One rollout engine: a Ray actor around an in-process vLLM engine. Token ids in; token ids and log-probs out.

vLLM is imported where an engine is built, so that the driver can import this module without it. The module imports no torch
either: the actor sets the environment of both before they load.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from actors.weight_items import WeightItem, checksum, decode
from data.lean_transformers import import_transformers
from data.sample import Sampling
from rlhf.config.schema import Rollout

PREFILL_TOKENS = 4096  # prompt tokens of one step, on CPUs


@dataclass(frozen=True)
class Request:
    """One prompt and the seed of each of its samples."""

    tokens: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Completion:
    """One sample. `logprobs`: under the distribution that was sampled from, with its temperature and top_p."""

    tokens: tuple[int, ...]  # the end token included
    logprobs: tuple[float, ...]
    truncated: bool  # a length limit came before an end token
    version: int  # of the weights


def request_seed(*parts: int) -> int:
    """A stable 63-bit hash of integers. Equal parts give equal samples on every machine and in any order of requests."""
    digest = hashlib.blake2b(b"".join(int(part).to_bytes(8, "little", signed=True) for part in parts), digest_size=8)
    return int.from_bytes(digest.digest(), "little") >> 1  # vLLM takes signed 64-bit seeds


def engine_environment(threads: int, on_cpu: bool) -> dict[str, str]:
    """Environment of an engine's process, set before the process imports torch and vLLM."""
    # vLLM compiles some functions even where it runs eagerly: on a CPU ten seconds of compilers for a microsecond a token
    eager = {"TORCHDYNAMO_DISABLE": "1"} if on_cpu else {}
    return eager | {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives and dies with its actor: no child processes
        "VLLM_HOST_IP": "127.0.0.1",  # an engine never spans nodes
        "VLLM_NO_USAGE_STATS": "1",
        # At WARNING every sync reports tied heads and rotary tables as not loaded; the canary checks the weights.
        "VLLM_LOGGING_LEVEL": "ERROR",
    }


class VllmEngine:
    """The actor. Its calls run one at a time, so weights never change during a `generate`.

    settings.tensor_parallel > 1 runs vLLM's worker processes on the actor's GPUs. The GPU paths follow vLLM's documentation
    and have not been run. On GPUs in bfloat16 the logits depend slightly on the other requests of the batch, so a seed fixes a
    sample only up to near-ties.
    """

    def __init__(self, threads: int, on_cpu: bool) -> None:
        """Imports vLLM, which takes longer than to build a small engine. The other calls follow `build`."""
        os.environ.update(engine_environment(threads, on_cpu))
        import_transformers()
        import vllm  # noqa: F401

    def build(
        self,
        model_path: str,
        max_length: int,
        settings: Rollout,
        stop_token_ids: tuple[int, ...],
        dtype: str,
        seed: int,
    ) -> dict[str, Any]:
        """Builds the engine. Returns {"node": IP address, "vocabulary": number of token ids}."""
        from vllm import EngineArgs, LLMEngine
        from vllm.platforms import current_platform

        on_cpu = current_platform.is_cpu()
        arguments = EngineArgs(
            model=model_path,
            skip_tokenizer_init=True,
            generation_config="vllm",  # ignores a checkpoint's sampling defaults
            dtype=dtype,
            seed=seed,
            max_model_len=max_length,
            max_num_seqs=settings.max_sequences,
            # A prompt split over two steps rewinds its seeded generator, which CPUs cannot ("CPU Generator does not use offset").
            enable_chunked_prefill=False if on_cpu else None,
            max_num_batched_tokens=max(PREFILL_TOKENS, max_length) if on_cpu else None,
            enable_prefix_caching=settings.prefix_caching,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            kv_cache_memory_bytes=int(settings.memory_gib * 2**30) if on_cpu else None,
            enforce_eager=on_cpu,  # on a CPU, compiling takes longer than a short run gains
            tensor_parallel_size=settings.tensor_parallel,
            distributed_executor_backend="uni" if settings.tensor_parallel == 1 else "mp",
            logprobs_mode="processed_logprobs",  # of the sampled distribution, temperature included
            worker_extension_cls=f"{WeightReceiver.__module__}.{WeightReceiver.__qualname__}",
            disable_log_stats=True,
        )
        self._engine = LLMEngine.from_engine_args(arguments)
        self._stop_token_ids = list(stop_token_ids)
        self._version = 0  # the weights of model_path
        self._updating = False
        return {"node": ray.util.get_node_ip_address(), "vocabulary": self._engine.model_config.get_vocab_size()}

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        """The completions of each request, in the order of its seeds. Prompts must be shorter than max_length."""
        prompts, parameters = [], []
        for request in requests:
            for seed in request.seeds:
                prompts.append(request.tokens)
                parameters.append(
                    _parameters(
                        temperature=sampling.temperature,
                        top_p=sampling.top_p,
                        max_tokens=sampling.max_new_tokens,
                        seed=seed,
                        stop_token_ids=self._stop_token_ids,
                        ignore_eos=True,  # only stop_token_ids end an answer
                        logprobs=0,  # of the sampled token alone
                    )
                )
        outputs = iter(self._run(prompts, parameters))
        return [[self._completion(next(outputs).outputs[0]) for _ in request.seeds] for request in requests]

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """log p of every token but the first, at temperature 1. Sequences must be shorter than max_length."""
        parameters = _parameters(max_tokens=1, prompt_logprobs=0)  # vLLM always samples a token
        outputs = self._run(sequences, [parameters] * len(sequences))
        return [list(output.prompt_logprobs.logprobs) for output in outputs]

    def begin_update(self) -> None:
        """Starts a weight update. The engine refuses to generate until `finish_update` succeeds."""
        self._require_whole_weights()
        self._updating = True
        self._engine.collective_rpc("begin_reload")

    def load_bucket(self, items: list[WeightItem]) -> int:
        """Loads one bucket of weights; returns its size in bytes."""
        self._engine.collective_rpc("load_items", args=(items,))
        return sum(array.nbytes for _, _, array in items)

    def received_checksum(self) -> int:
        """Checksum of all buckets since `begin_update`."""
        checksums = set(self._engine.collective_rpc("received"))
        if len(checksums) != 1:
            raise RuntimeError(f"the tensor-parallel workers received different weights: checksums {sorted(checksums)}")
        return checksums.pop()

    def finish_update(self, version: int) -> None:
        """Puts the loaded weights into use under this version and drops the prefix cache of the old ones."""
        self._engine.collective_rpc("finish_reload")
        # without reset_running_requests vLLM may refuse, and tells so only by returning False
        if not self._engine.reset_prefix_cache(reset_running_requests=True):
            raise RuntimeError("vLLM did not reset its prefix cache, which holds keys and values of the old weights")
        self._version = version
        self._updating = False

    def _run(self, prompts: Sequence[Sequence[int]], parameters: Sequence[Any]) -> list[Any]:
        """vLLM's final output for each prompt, in their order."""
        self._require_whole_weights()
        for index, (tokens, parameter) in enumerate(zip(prompts, parameters, strict=True)):
            self._engine.add_request(str(index), {"prompt_token_ids": list(tokens)}, parameter)
        finished = {}
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                if output.finished:
                    finished[int(output.request_id)] = output
        return [finished[index] for index in range(len(prompts))]

    def _completion(self, output: Any) -> Completion:
        return Completion(
            tokens=tuple(output.token_ids),
            logprobs=tuple(output.logprobs.logprobs),
            truncated=output.finish_reason == "length",
            version=self._version,
        )

    def _require_whole_weights(self) -> None:
        if self._updating:
            raise RuntimeError(
                "an earlier weight update did not finish, so old and new weights are mixed: build the engine anew"
            )


def _parameters(**own: Any) -> Any:
    """vLLM's parameters of a request: these, and the form of its answer."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(**own, flat_logprobs=True, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY)


class WeightReceiver:
    """Replaces the model's weights bucket by bucket inside vLLM's worker (`worker_extension_cls`).

    vLLM's layerwise reload also renews what kernels derive from weights (packed matrices, captured graphs). Without it,
    `model.load_weights` leaves the model half updated on CPUs.
    """

    def begin_reload(self) -> None:
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        self._received_checksum = 0
        initialize_layerwise_reload(self.model_runner.get_model())

    def load_items(self, items: list[WeightItem]) -> None:
        from vllm.config import set_current_vllm_config

        self._received_checksum = (self._received_checksum + checksum(items)) % 2**64
        with set_current_vllm_config(self.vllm_config):
            self.model_runner.get_model().load_weights((name, decode(dtype, array)) for name, dtype, array in items)

    def received(self) -> int:
        return self._received_checksum

    def finish_reload(self) -> None:
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        model = self.model_runner.get_model()
        with set_current_vllm_config(self.vllm_config):
            finalize_layerwise_reload(model, self.model_config)
            _repack_heads_on_cpu(model)


def _repack_heads_on_cpu(model: Any) -> None:
    """Packs the output head again: a head tied to the embedding is in no checkpoint, so the reload leaves its packed CPU copy old."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        for module in model.modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)
