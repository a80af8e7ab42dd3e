"""Runs a command that ends, with its process group, when a pipe is closed: when whoever holds its other end is gone.

A process that dies, however it dies, closes its pipes, so whoever starts this program leaves no command behind, even where it
is killed. The kernel does the killing: a thread or a parent process that watched could be stuck, or killed first. What the
command started in a session of its own is not of the group and survives; until then it stays among the command's descendants,
orphans too, where whoever kills the command can find it. Linux only.
Run as a file, `python -I lifeline.py <file descriptor of the pipe> <command>`; it imports the standard library alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main(pipe: int, command: list[str]) -> None:
    """Becomes the command, in a session of its own; returns where the pipe is closed already."""
    if os.getpid() != os.getsid(0):
        os.setsid()
    os.set_inheritable(pipe, True)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)  # instead of SIGIO, to the whole process group
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    closed = select.poll()
    closed.register(pipe, 0)  # for POLLHUP alone, which is always told
    if closed.poll(0):  # before the kernel was asked to kill, and then it does not
        return
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become the command's children: kept by exec
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
