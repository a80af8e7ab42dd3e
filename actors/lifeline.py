"""Runs a command as long as standard input is open, then ends it and all that it started.

A process that dies, however it dies, closes its pipes: so whoever starts this program with a pipe leaves nothing behind, even
where it is killed. It is run as a file, imports the standard library alone, and leads a session of its own:
`python -I lifeline.py <command>`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 5.0  # to end tidily


def main(command: list[str]) -> None:
    os.setsid()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_after_input, args=(child,), daemon=True).start()
    child.wait()
    os.killpg(os.getpgrp(), signal.SIGKILL)  # what the command may have left, and this process


def _end_after_input(child: subprocess.Popen) -> None:
    sys.stdin.buffer.read()
    child.terminate()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
