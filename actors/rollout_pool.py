"""The rollout engines of a run: starts them, deals prompts to them, syncs the policy's weights to them, stops them."""

from __future__ import annotations

from collections.abc import Sequence

from actors.calls import WeightSyncError
from actors.rollout_engines import Engines
from actors.vllm_engine import Request, request_seed
from actors.weight_sync import canary_sequences, canary_tolerance, synchronise
from data.errors import UserError
from data.packing import balance
from data.sample import Prompt, Sample, Sampling
from data.tokenizer import load_tokenizer
from rlhf.config.schema import Rollout
from rlhf.interfaces import WeightSource

GENERATE_TIMEOUT_S = 4 * 3600.0  # a step's samples; the limit only finds a stuck engine


class EnginePool:
    """vLLM engines for one architecture; implements `RolloutPool`."""

    def __init__(
        self,
        engines: Engines,
        model_path: str,
        max_length: int,
        *,
        settings: Rollout,
        stop_token_ids: tuple[int, ...],
        dtype: str,
        seed: int,
    ) -> None:
        """Starts to build the model in the engines, and returns at once.

        model_path: a directory with config, safetensors and tokenizer. max_length: tokens, prompt and answer together.
        dtype: "float32" or "bfloat16". The first `generate` or `sync` waits for the engines; it raises WorkerError
        where one cannot be built and TimeoutError where one is not ready in time.
        """
        self._max_length = max_length
        self._settings = settings
        self._tolerance = canary_tolerance(dtype, settings.canary_tolerance)
        self._started_syncs = 0
        self._version = 0  # = syncs that succeeded
        self._tokenizer = load_tokenizer(model_path)
        self._canary: list[list[int]] | None = None  # token ids; None until the engines are ready
        self._engines = engines
        engines.build(model_path, max_length, settings, stop_token_ids, dtype, seed)

    @property
    def stats(self) -> dict[str, int]:
        """Weight syncs so far: {"syncs": all, "failed": failed ones}."""
        return {"syncs": self._started_syncs, "failed": self._started_syncs - self._version}

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Sample]:
        """All samples, ordered by (prompt, index). A sample depends on the weights, the prompt and its row, sampling.seed and
        the sample's index, and not on the engine or on other requests.

        Raises UserError where a prompt leaves no room for an answer, WorkerError where an engine fails.
        """
        engines = self._ready_engines()
        for prompt in prompts:
            if not 0 < len(prompt.tokens) < self._max_length:
                raise UserError(
                    f"the prompt of row {prompt.row} has {len(prompt.tokens)} tokens; wanted at least 1 and fewer than "
                    f"max_length={self._max_length}, which holds the answer too: raise max_length or drop the row"
                )
        # all samples of a prompt go to one engine, which computes the prompt once
        costs = [len(prompt.tokens) + sampling.samples * sampling.max_new_tokens for prompt in prompts]
        shares = balance(costs, len(engines))
        indices = range(sampling.samples)
        requests = [
            Request(prompt.tokens, tuple(request_seed(*sampling.seed, prompt.row, index) for index in indices))
            for prompt in prompts
        ]
        arguments = {engine: ([requests[row] for row in rows], sampling) for engine, rows in enumerate(shares) if rows}
        answers = engines.wait(engines.start("generate", arguments), GENERATE_TIMEOUT_S)
        by_prompt = {
            row: answer for engine in answers for row, answer in zip(shares[engine], answers[engine], strict=True)
        }
        return [
            Sample(
                prompt=prompt,
                index=index,
                tokens=completion.tokens,
                logprobs=completion.logprobs,
                text=self._tokenizer.decode(completion.tokens, skip_special_tokens=True),
                truncated=completion.truncated,
                version=completion.version,
            )
            for row, prompt in enumerate(prompts)
            for index, completion in enumerate(by_prompt[row])
        ]

    def sync(self, policy: WeightSource) -> dict[str, float]:
        """Sends the policy's weights to every engine under the next version; see `weight_sync.synchronise`."""
        engines = self._ready_engines()
        self._started_syncs += 1
        report = synchronise(
            engines,
            policy,
            version=self._version + 1,
            bucket_bytes=self._settings.bucket_bytes,
            canary=self._canary,
            tolerance=self._tolerance,
        )
        self._version += 1
        return report

    def close(self) -> None:
        """Stops the engines."""
        self._engines.stop()

    def _ready_engines(self) -> Engines:
        """Waits until all engines are built and returns them. If one fails, stops all."""
        if self._canary is None:
            try:
                self._canary = canary_sequences(self._engines.wait_until_ready(), self._max_length)
            except BaseException:
                self.close()
                raise
        if self.stats["failed"]:
            raise WeightSyncError(
                "an earlier weight sync failed, so the engines' weights are unknown: build the pool anew"
            )
        return self._engines
