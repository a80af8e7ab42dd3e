"""Runs a command that ends, with all that it started, when a pipe is closed: when whoever holds its other end is gone.

A process that dies, however it dies, closes its pipes, so whoever starts this program leaves nothing behind, even where it is
killed. The kernel does the killing: a thread or a parent process that watched could be stuck, or killed first. Linux only.
Run as a file, `python -I lifeline.py <file descriptor of the pipe> <command>`; it imports the standard library alone.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys


def main(pipe: int, command: list[str]) -> None:
    """Becomes the command, in a session of its own."""
    if os.getpid() != os.getsid(0):
        os.setsid()
    os.set_inheritable(pipe, True)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)  # instead of SIGIO, to the whole process group
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
