"""Reward functions that do everything wrong for a prompt of row 1, and are right elsewhere: the length of the answer."""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
import threading
import time

from data.errors import UserError


def right(sample):
    return float(len(sample.text))


def with_own_process(sample):
    return float(os.getpid())


def sleeps(sample):
    if sample.prompt.row == 1:
        time.sleep(3600)
    return right(sample)


def holds_the_lock(sample):
    """A regular expression that backtracks for ever, and lets no other thread of the process run."""
    import re

    if sample.prompt.row == 1:
        re.match(r"(a+)+$", "a" * 60 + "b")
    return right(sample)


def raises(sample):
    if sample.prompt.row == 1:
        raise ValueError("no such thing")
    return right(sample)


def quits(sample):
    if sample.prompt.row == 1:
        sys.exit(7)
    return right(sample)


def segfaults(sample):
    if sample.prompt.row == 1:
        print("about to fall", flush=True)
        ctypes.string_at(0)
    return right(sample)


def exits(sample):
    if sample.prompt.row == 1:
        os._exit(3)
    return right(sample)


def allocates(sample):
    if sample.prompt.row == 1:
        kept = []
        while True:
            kept.append(b"x" * 2**22)
    return right(sample)


def allocates_in_a_child(sample):
    if sample.prompt.row == 1:
        code = "import time; kept = b'x' * 400 * 2**20; time.sleep(3600)"
        subprocess.run([sys.executable, "-c", code])
    return right(sample)


def prints(sample):
    if sample.prompt.row == 1:
        for _ in range(2**14):
            print("x" * 2**16)
    return right(sample)


def forks(sample):
    """Leaves a child that sleeps in the group, one in a session of its own, and waits."""
    if sample.prompt.row == 1:
        code = "import time; time.sleep(3600)"
        subprocess.Popen([sys.executable, "-c", code])
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        time.sleep(3600)
    return right(sample)


def daemonises(sample):
    """Leaves a grandchild in a session of its own whose parent is gone, and returns."""
    if sample.prompt.row == 1:
        subprocess.run(["setsid", "-f", "sleep", "11.1"])
        time.sleep(0.1)  # until it has its session
    return right(sample)


def comes_back_twice(sample):
    """The forked child returns from the function, too."""
    os.fork()
    return right(sample)


def closes_everything(sample):
    if sample.prompt.row == 1:
        os.closerange(0, 100)
        time.sleep(3600)
    return right(sample)


def closes_stdout(sample):
    if sample.prompt.row == 1:
        os.close(1)
        sys.stdout.close()
    return right(sample)


def returns_none(sample):
    return None if sample.prompt.row == 1 else right(sample)


def returns_text(sample):
    return "1.0" if sample.prompt.row == 1 else right(sample)


def returns_what_cannot_be_sent(sample):
    return threading.Lock() if sample.prompt.row == 1 else right(sample)


class Unshowable:
    def __repr__(self):
        raise RuntimeError


def returns_what_cannot_be_shown(sample):
    return Unshowable() if sample.prompt.row == 1 else right(sample)


def has_no_score(sample):
    return math.nan if sample.prompt.row == 1 else right(sample)


def finds_a_mistake(sample):
    raise UserError("there is no column 'answer'; map it in data.columns")


def always_raises(sample):
    raise KeyError("never")


def always_dies(sample):
    os._exit(1)


class OneTooMany:
    """Right only when asked for one sample."""

    def score(self, samples):
        return [right(sample) for sample in samples] + [0.0] * (len(samples) > 1)


class RaisesTogether:
    def score(self, samples):
        if any(sample.prompt.row == 1 for sample in samples):
            raise ValueError("row 1 is among them")
        return [right(sample) for sample in samples]


class DiesWhenMade:
    def __init__(self):
        os._exit(9)

    def score(self, samples):
        return [right(sample) for sample in samples]


class HangsWhenMade(DiesWhenMade):
    def __init__(self):
        time.sleep(3600)


class Times:
    """A user's class, made in the worker."""

    def __init__(self, factor=1):
        self.lock = threading.Lock()  # nothing that could be sent
        self.factor = factor

    def score(self, samples):
        return [self.factor * right(sample) for sample in samples]


HOLDS_A_LOCK = Times()  # made where the config is read
