"""Runs a command that is killed, with its process group, when the other end of a pipe is closed. Linux only.

A process closes its pipes however it dies, so a caller leaves no command behind, even if the caller is killed. The
kernel kills the command: a thread or a parent process that watched could hang, or be killed first. A process that the
command starts in a session of its own is not in the group and survives; while the command lives, such processes and
orphans stay its descendants, so that whoever kills the command can find them.
Run as a file: `python -I lifeline.py <file descriptor of the pipe> <command>`. Imports only the standard library.
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
    """Replaces this process with the command, in a new session. Returns if the pipe is closed already."""
    if os.getpid() != os.getsid(0):
        os.setsid()
    os.set_inheritable(pipe, True)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)  # instead of SIGIO, to the whole process group
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    closed = select.poll()
    closed.register(pipe, 0)  # only POLLHUP, which poll always reports
    if closed.poll(0):  # closed before F_SETFL: the kernel would not kill
        return
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become the command's children: kept by exec
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
