"""The program of a worker process, which calls one reward function. `WorkerProcess` starts it, sends it samples and
kills it.

It runs as a script, not as a module, so that it imports only what the function needs. It communicates over a socket of
its own, so the function can do anything with its standard streams.
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
    """Reads (sys.path, pickled (function, its arguments)), then lists of tasks (lists of samples) until the socket is
    closed. Writes a reply (kind, content) after loading and after each task; kind is `ready`, `scores`, `failed`
    (reason, detail) or `mistake` (a message to the user). conversation: file descriptor of the socket."""
    connection = socket.socket(fileno=conversation)
    own = os.getpid()
    with connection.makefile("rb") as requests, connection.makefile("wb") as replies:
        sys.path[:], pickled = pickle.load(requests)
        from data.errors import UserError  # after sys.path is the driver's

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
                    os._exit(0)  # the function forked, and this is the child
                say(replies, *reply)


def load(pickled: bytes) -> Any:
    """A function of samples: makes an object of a class, and binds the arguments of a function."""
    target, args = pickle.loads(pickled)
    if isinstance(target, type):
        return target(**args)
    return partial(target, **args) if args else target


def evaluate(source: Any, samples: Sequence[Any], mistake: type[Exception]) -> tuple[str, Any]:
    """("scores", [number or {part: number}]), ("failed", (reason, detail)) or ("mistake", message).

    source: an object with score(samples), or a function of one sample; then `samples` holds one sample. mistake: the
    class of errors that the user makes, UserError."""
    try:
        returned = list(source.score(samples)) if hasattr(source, "score") else [source(samples[0])]
    except mistake as error:
        return "mistake", str(error)
    except BaseException as error:  # anything that the user's code raises, SystemExit too
        return "failed", (f"raised {type(error).__name__}", described(error))
    if len(returned) != len(samples):
        return "failed", (f"gave {len(returned)} scores for {len(samples)} samples", "one each is wanted")
    scores = []
    for value in returned:
        try:
            scores.append(numbers(value))
        except Exception:  # also from the value's own __float__
            return "failed", (f"returned a {type(value).__name__}", f"{shown(value)} is no number; nan is no score")
    return "scores", scores


def numbers(value: Any) -> float | dict[str, float]:
    """Raises where the value, or a part of it, is not a number."""
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
    except Exception:  # from the user's own __repr__
        line = f"a {type(value).__name__} that cannot be shown"
    return line if len(line) <= SHOWN else line[:SHOWN] + "…"


def say(replies: BinaryIO, kind: str, what: Any) -> None:
    pickle.dump((kind, what), replies)
    replies.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
