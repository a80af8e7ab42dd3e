"""Runs a command and tells which of its processes, however far they went from it, are still alive after it has ended.

As a script: `python alone.py FILE COMMAND...` exits as the command does and writes the command lines of those left to FILE.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
GRACE_S = 10.0  # for processes that have been told to end


def run_alone(command: list[str], **options: Any) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The finished command, and the command lines of the processes that it left. options: subprocess.run's."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "left.json"
        wrapped = [sys.executable, __file__, str(file), *command]
        done = subprocess.run(wrapped, capture_output=True, text=True, check=False, **options)
        return done, json.loads(file.read_text())


def main(file: str, *command: str) -> int:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become children of this process
    code = subprocess.run(command, check=False).returncode
    left = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=GRACE_S)[1]
    Path(file).write_text(json.dumps([" ".join(process.cmdline()) or process.name() for process in left]))
    for process in left:
        process.kill()
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
