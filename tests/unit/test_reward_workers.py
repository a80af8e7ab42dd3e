"""Whatever a reward function does, the other samples have their scores, the next ones too, and no process is left."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import bad_rewards
import psutil
import pytest

from data.errors import UserError
from data.sample import Prompt, Sample
from rlhf.config.rewards import Limits
from rlhf.rewards.workers import HOPELESS, Call, Workers

SMALL = Limits(timeout_s=0.5, memory_gib=0.25, output_mib=1, retries=0, workers=2)
PATIENT = SMALL.model_copy(update={"timeout_s": 30.0})
TWICE = PATIENT.model_copy(update={"retries": 1})


def sample(row, text):
    return Sample(Prompt((1,), f"say number {row}\nplease", row), 2, (3,), (-0.5,), text, False, 1)


SAMPLES = [sample(row, "x" * (row + 3)) for row in range(6)]


@pytest.fixture(autouse=True)
def no_process_is_left():
    before = set(psutil.Process().children(recursive=True))
    yield
    left = [one for one in psutil.Process().children(recursive=True) if one not in before]
    assert [one.cmdline() for one in left if one.status() != psutil.STATUS_ZOMBIE] == []


def lives(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def rounded(scores):
    return [None if math.isnan(score) else score for score in scores]


@pytest.mark.parametrize(
    ("function", "limits", "what"),
    [
        (bad_rewards.sleeps, SMALL, "no answer within 0.5 s (limits.timeout_s)"),
        (bad_rewards.holds_the_lock, SMALL, "no answer within 0.5 s (limits.timeout_s)"),
        (bad_rewards.forks, SMALL, "no answer within 0.5 s (limits.timeout_s)"),
        (bad_rewards.raises, TWICE, "raised ValueError, tried 2 times (ValueError: no such thing)"),
        (bad_rewards.quits, PATIENT, "raised SystemExit (SystemExit: 7)"),
        (bad_rewards.segfaults, TWICE, "its process died of SIGSEGV, tried 2 times (it last printed 'about to fall')"),
        (bad_rewards.exits, PATIENT, "its process ended with exit code 3"),
        (bad_rewards.allocates, PATIENT, "used more than 0.25 GiB (limits.memory_gib)"),
        (bad_rewards.allocates_in_a_child, PATIENT, "used more than 0.25 GiB (limits.memory_gib)"),
        (bad_rewards.prints, PATIENT, "printed more than 1 MiB (limits.output_mib) (it last printed 'xxx"),
        (bad_rewards.closes_everything, PATIENT, "closed its connection to the run"),
        (bad_rewards.returns_none, TWICE, "returned a NoneType, tried 2 times (None is no number; nan is no score)"),
        (bad_rewards.returns_text, PATIENT, "returned a str ('1.0' is no number"),
        (bad_rewards.returns_what_cannot_be_sent, PATIENT, "returned a lock (<unlocked _thread.lock object"),
        (bad_rewards.returns_what_cannot_be_shown, PATIENT, "returned a Unshowable (a Unshowable that cannot be shown"),
    ],
)
def test_a_sample_that_cannot_be_scored_is_dropped_and_the_others_are_not(function, limits, what):
    with Workers("odd", Call(function, limits=limits)) as workers:
        scores, failures = workers.score(SAMPLES)
        again, _ = workers.score([SAMPLES[0], SAMPLES[5]])
    assert rounded(scores) == [3, None, 5, 6, 7, 8]
    assert again == [3, 8]
    (failure,) = failures
    assert str(failure).startswith(f"reward 'odd': prompt row 1 (\"say number 1 please\"), sample 2: {what}")
    assert str(failure).endswith("; dropped")
    assert failure.dropped == 1


@pytest.mark.parametrize("function", [bad_rewards.closes_stdout, bad_rewards.comes_back_twice])
def test_what_a_function_does_to_its_streams_and_its_own_process_is_its_own_affair(function):
    with Workers("odd", Call(function, limits=PATIENT)) as workers:
        assert workers.score(SAMPLES) == ([3, 4, 5, 6, 7, 8], [])


def test_a_daemon_of_the_functions_ends_with_its_worker():
    """It holds the worker's output, which a thread of ours reads until the last holder is gone."""
    before = set(threading.enumerate())
    with Workers("odd", Call(bad_rewards.daemonises, limits=PATIENT)) as workers:
        assert workers.score(SAMPLES) == ([3, 4, 5, 6, 7, 8], [])
    readers = [one for one in threading.enumerate() if one.name == "reward-output" and one not in before]
    for reader in readers:
        reader.join(2)
    assert not any(reader.is_alive() for reader in readers)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (bad_rewards.DiesWhenMade, "its process ended with exit code 9"),
        (bad_rewards.HangsWhenMade, r"no answer within 0.3 s to its loading"),
    ],
)
def test_what_cannot_be_loaded_is_told_and_no_sample_is_blamed(monkeypatch, source, why):
    monkeypatch.setattr("rlhf.rewards.worker_process.LOAD_S", 0.3)
    with (
        Workers("odd", Call(source, limits=TWICE)) as workers,
        pytest.raises(UserError, match=f"^reward 'odd' cannot be loaded in its own process: {why}"),
    ):
        workers.score(SAMPLES)


def test_nan_is_no_failure():
    with Workers("picky", Call(bad_rewards.has_no_score, limits=PATIENT)) as workers:
        scores, failures = workers.score(SAMPLES)
    assert rounded(scores) == [3, None, 5, 6, 7, 8]
    assert failures == []


def test_a_mistake_of_the_users_is_told_as_it_is():
    with (
        Workers("rule", Call(bad_rewards.finds_a_mistake, limits=TWICE)) as workers,
        pytest.raises(UserError, match=r"^there is no column 'answer'; map it"),
    ):
        workers.score(SAMPLES)


def test_a_function_that_always_kills_its_process_is_not_tried_with_every_sample():
    many = [sample(row, "x") for row in range(200)]
    with Workers("odd", Call(bad_rewards.always_dies, limits=PATIENT)) as workers:
        scores, failures = workers.score(many)
    assert rounded(scores) == [None] * 200
    assert sum(failure.dropped for failure in failures) == 200
    died = [failure for failure in failures if failure.what == "its process ended with exit code 1"]
    assert HOPELESS <= len(died) <= HOPELESS + 1
    assert sum("not tried, since" in str(failure) for failure in failures) == 200 - len(died)


@pytest.mark.parametrize(
    ("source", "scores", "what"),
    [
        (bad_rewards.OneTooMany(), [3, 4, 5, 6, 7, 8], ["gave 7 scores for 6 samples, tried 2 times"]),
        (bad_rewards.RaisesTogether(), [3, None, 5, 6, 7, 8], ["ValueError: row 1 is among them", "prompt row 1"]),
    ],
)
def test_an_object_that_fails_with_all_samples_is_asked_for_each(source, scores, what):
    with Workers("odd", Call(source, limits=TWICE)) as workers:
        found, failures = workers.score(SAMPLES)
    assert rounded(found) == scores
    assert len(failures) == len(what)
    assert all(text in str(failure) for text, failure in zip(what, failures))
    assert str(failures[0]).endswith("each is asked for alone")
    assert failures[0].dropped == 0


def test_a_class_is_made_in_the_worker_and_one_call_scores_all():
    with Workers("times", Call(bad_rewards.Times, {"factor": 2}, PATIENT)) as workers:
        assert workers.score(SAMPLES) == ([6, 8, 10, 12, 14, 16], [])
        assert workers.score([]) == ([], [])


def test_functions_that_no_other_process_could_import_travel_by_value():
    module = types.ModuleType("written_in_a_notebook")
    exec("FACTOR = 3\ndef triple(sample):\n    return FACTOR * len(sample.text)", module.__dict__)
    sys.modules["written_in_a_notebook"] = module
    try:
        with Workers("triple", Call(module.triple, limits=PATIENT)) as workers:
            assert workers.score(SAMPLES[:2]) == ([9, 12], [])
    finally:
        del sys.modules["written_in_a_notebook"]


def test_what_cannot_be_sent_is_refused_before_anything_starts():
    with pytest.raises(
        UserError, match=r"reward 'times' runs in a process of its own and cannot be sent there: .*lock"
    ):
        Workers("times", Call(bad_rewards.Times()))


def test_samples_are_shared_among_the_processes_and_a_process_serves_many():
    limits = PATIENT.model_copy(update={"workers": 3})
    with Workers("pid", Call(bad_rewards.with_own_process, limits=limits)) as workers:
        first, _ = workers.score([sample(row, "x") for row in range(300)])
        second, _ = workers.score(SAMPLES)
    assert 1 < len(set(first)) <= 3
    assert set(second) <= set(first)
    assert os.getpid() not in first


def test_workers_die_with_a_driver_that_is_killed():
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import bad_rewards
from data.sample import Prompt, Sample
from rlhf.rewards.workers import Call, Workers
with Workers("lock", Call(bad_rewards.holds_the_lock)) as workers:
    workers.score([Sample(Prompt((1,), "q", 0), 0, (3,), (-0.5,), "x", False, 1)])
    print(*[worker.process.pid for worker in workers._workers], flush=True)
    workers.score([Sample(Prompt((1,), "q", 1), 0, (3,), (-0.5,), "x", False, 1)])
"""
    root = Path(__file__).resolve().parents[2]
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in driver.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(lives, pids))
    time.sleep(0.3)  # into the endless call
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    deadline = time.monotonic() + 5
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(lives, pids))
