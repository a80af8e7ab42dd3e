"""The process that a reward function runs in; `rlhf.rewards.workers` starts it, asks it and kills it.

Run as a script and not as a module: it loads nothing but what the function itself needs. It speaks over a socket of its own, so
that whatever the function does with its standard streams disturbs nobody.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO

SHOWN = 200  # characters of a value or an error, in messages


def main(conversation: int) -> None:
    """Reads (sys.path, pickled (function, its arguments)), then lists of tasks, each a list of samples, until the pipe ends.
    Answers one by one: (kind, what) with kind `ready`, `scores`, `failed` (short, detail) or `mistake` (of the user's)."""
    connection = socket.socket(fileno=conversation)
    own = os.getpid()
    with connection.makefile("rb") as requests, connection.makefile("wb") as replies:
        sys.path[:], pickled = pickle.load(requests)
        from data.errors import UserError  # only now: the path is the driver's

        try:
            source = load(pickled)
        except BaseException as error:  # any error of the user's module
            return say(replies, "mistake", f"cannot be loaded in its own process: {described(error)}")
        say(replies, "ready", None)
        while True:
            try:
                tasks = pickle.load(requests)
            except EOFError:
                return None
            for samples in tasks:
                reply = evaluate(source, samples, UserError)
                if os.getpid() != own:
                    os._exit(0)  # a fork of the function's that came back here
                say(replies, *reply)


def load(pickled: bytes) -> Any:
    """A class becomes an object; a function's arguments become part of it."""
    target, args = pickle.loads(pickled)
    if isinstance(target, type):
        return target(**args)
    return partial(target, **args) if args else target


def evaluate(source: Any, samples: Sequence[Any], mistake: type[Exception]) -> tuple[str, Any]:
    """("scores", a number or {part: number} of each sample), or what went wrong. source: a function of one sample, given a list
    of one; or an object with score(samples)."""
    try:
        returned = list(source.score(samples)) if hasattr(source, "score") else [source(samples[0])]
    except mistake as error:
        return "mistake", str(error)
    except BaseException as error:  # of the user's code; SystemExit is one
        return "failed", (f"raised {type(error).__name__}", described(error))
    if len(returned) != len(samples):
        return "failed", (f"gave {len(returned)} scores for {len(samples)} samples", "one each is wanted")
    scores = []
    for value in returned:
        try:
            scores.append(numbers(value))
        except Exception:  # of a value's own __float__, too
            return "failed", (f"returned a {type(value).__name__}", f"{shown(value)} is no number; nan is no score")
    return "scores", scores


def numbers(value: Any) -> float | dict[str, float]:
    """Raises an error of the value's where it is no number."""
    if isinstance(value, Mapping):
        return {str(name): number(part) for name, part in value.items()}
    return number(value)


def number(value: Any) -> float:
    if isinstance(value, str | bytes):  # float() would read a number from them
        raise TypeError
    return float(value)


def described(error: BaseException) -> str:
    return f"{type(error).__name__}: {shown(error, str)}"


def shown(value: Any, text: Any = repr) -> str:
    try:
        line = " ".join(text(value).split())
    except Exception:  # of the user's own __repr__
        line = f"a {type(value).__name__} that cannot be shown"
    return line if len(line) <= SHOWN else line[:SHOWN] + "…"


def say(replies: BinaryIO, kind: str, what: Any) -> None:
    pickle.dump((kind, what), replies)
    replies.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
