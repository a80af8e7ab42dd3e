"""Weight sync: sends the trainer's weights to every rollout engine in buckets and proves that they arrived.

The proof has two parts. A checksum over all tensors, computed by sender and receiver, proves that the bytes arrived. A canary,
the log-probs of a few fixed sequences in both, proves that the rollout engine computes with them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from actors.calls import WeightSyncError
from actors.rollout_engines import Calls, Engines
from rlhf.interfaces import WeightSource

BUCKETS_IN_FLIGHT = 3
TIMEOUT_S = 600.0  # of each step: a bucket, the canary
CANARY_SEQUENCES = 4
CANARY_LENGTH = 16
# Correct implementations round differently: on an 88M model of random weights, bfloat16 log-probs of vLLM and transformers
# differed by up to 0.31, and each from float32 by up to 0.47. A stale output head changed them by up to 5.9.
BFLOAT16_TOLERANCE = 0.5


def canary_sequences(vocabulary: int, max_length: int) -> list[list[int]]:
    """A few fixed sequences of token ids, each with room for one more token."""
    length = min(CANARY_LENGTH, max_length - 1)
    return np.random.default_rng(0).integers(0, vocabulary, (CANARY_SEQUENCES, length)).tolist()


def canary_tolerance(dtype: str, float32_tolerance: float) -> float:
    """The largest gap that rounding explains for rollout engines of this dtype, in nats."""
    return max(float32_tolerance, BFLOAT16_TOLERANCE) if dtype == "bfloat16" else float32_tolerance


def widest_gap(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> tuple[float, int, int]:
    """(gap, sequence, position) where two sets of log-probs differ most; a NaN counts as an infinite gap."""
    gaps = [
        (abs(a - b) if abs(a - b) >= 0 else float("inf"), row, column)
        for row, (left, right) in enumerate(zip(ours, theirs, strict=True))
        for column, (a, b) in enumerate(zip(left, right, strict=True))
    ]
    return max(gaps, default=(0.0, 0, 0))


def synchronise(
    engines: Engines,
    source: WeightSource,
    *,
    version: int,
    bucket_bytes: int,
    canary: list[list[int]],
    tolerance: float,
) -> dict[str, float]:
    """Gives every rollout engine the source's weights under this version.

    Returns {"version", "bytes" of one copy of the weights, "rpcs" to engines, "seconds", "canary_gap"}. Raises
    WeightSyncError where an engine's checksum or canary disagrees, WorkerError where an engine or the source fails. After either
    error the engines cannot be used.
    """
    started = time.monotonic()
    engines.wait(engines.start_all("begin_update"), TIMEOUT_S)
    buckets = source.weight_plan(bucket_bytes)
    sent_bytes = _send(engines, source, buckets)
    received = engines.wait(engines.start_all("received_checksum"), TIMEOUT_S)
    _require_equal_checksums(engines, received, source.weight_checksum(), version)
    engines.wait(engines.start_all("finish_update", version), TIMEOUT_S)

    calls = engines.start_all("prompt_logprobs", canary)
    expected = source.logprobs_of(canary)
    gap = _require_close_canaries(engines, engines.wait(calls, TIMEOUT_S), expected, tolerance, version)
    return {
        "version": version,
        "bytes": sent_bytes,
        "rpcs": len(engines) * (buckets + 4),
        "seconds": time.monotonic() - started,
        "canary_gap": gap,
    }


def _send(engines: Engines, source: WeightSource, buckets: int) -> int:
    """Sends every bucket's reference to every engine, a few at a time to spare the object store. Returns the bytes sent."""
    in_flight: deque[Calls] = deque()
    sent_bytes = 0
    for index in range(buckets):
        in_flight.append(engines.start_all("load_bucket", source.weight_bucket(index)))
        if len(in_flight) == BUCKETS_IN_FLIGHT:
            sent_bytes += engines.wait(in_flight.popleft(), TIMEOUT_S)[0]
    return sent_bytes + sum(engines.wait(calls, TIMEOUT_S)[0] for calls in in_flight)


def _require_equal_checksums(engines: Engines, received: Mapping[int, int], sent: int, version: int) -> None:
    for engine, value in received.items():
        if value != sent:
            raise WeightSyncError(
                f"{engines.where(engine)}: the weights of version {version} arrived changed: checksum {value:016x}, "
                f"sent {sent:016x}. The engine cannot be used: check that node's memory and network, then start again"
            )


def _require_close_canaries(
    engines: Engines, answers: Mapping[int, list], expected: list[list[float]], tolerance: float, version: int
) -> float:
    """The widest gap over all engines. Raises WeightSyncError where one exceeds the tolerance."""
    widest = 0.0
    for engine, answer in answers.items():
        gap, row, column = widest_gap(answer, expected)
        if gap > tolerance:
            raise WeightSyncError(
                f"{engines.where(engine)}: canary failed after the sync of version {version}: the log-prob of "
                f"token {column + 1} of sequence {row} is {answer[row][column]:.5f}, the trainer's "
                f"{expected[row][column]:.5f} (gap {gap:.2g}, limit {tolerance:.2g}). The bytes arrived, so the engine "
                "computes something else with them: check that rollout.dtype is the policy's; raise "
                "rollout.canary_tolerance only for a gap of rounding"
            )
        widest = max(widest, gap)
    return widest
