"""A command is killed when its pipe closes, at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from rlhf import lifeline

SLEEP = ["/bin/sh", "-c", "echo up; exec sleep 30"]


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    ends = list(os.pipe())
    yield ends
    for end in ends:
        with suppress(OSError):  # closed by the test
            os.close(end)


def start(pipe: list[int], command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-I", lifeline.__file__, str(pipe[0]), *command],
        pass_fds=[pipe[0]],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def test_a_command_ends_when_the_pipe_closes(pipe):
    with start(pipe, SLEEP) as process:
        assert process.stdout.readline() == b"up\n"
        assert process.poll() is None
        os.close(pipe[1])
        assert process.wait(5) == -signal.SIGKILL


def test_a_pipe_that_is_closed_already_starts_nothing(pipe):
    os.close(pipe[1])
    with start(pipe, SLEEP) as process:
        try:
            assert process.stdout.read(3) == b""
            assert process.wait(5) == 0
        finally:
            process.kill()


def test_orphans_become_the_commands_children(pipe):
    with start(pipe, ["/bin/sh", "-c", "setsid -f sleep 30; echo up; exec tail -f /dev/null"]) as process:
        assert process.stdout.readline() == b"up\n"
        deadline = time.monotonic() + 5
        while True:  # setsid has forked, and is about to become the command
            found = psutil.Process(process.pid).children(recursive=True)
            if [one.name() for one in found] == ["sleep"]:
                break
            assert time.monotonic() < deadline, found
        for one in found:
            one.kill()
        os.close(pipe[1])
