"""Metrics on disk: lines of JSON, and event files that TensorBoard itself reads."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlhf.metrics import MetricLog


def write(root: Path, start: int, losses: dict[int, float]) -> None:
    log = MetricLog(root, "sft", start)
    for step, loss in losses.items():
        log.write(step, {"loss": loss, "tokens/s": 10.0 * step})
    log.close()


def test_tensorboard_reads_the_event_files_and_a_second_attempt_replaces_the_steps_after_its_start(tmp_path):
    write(tmp_path, 0, {1: 4.0, 2: 3.0, 3: 9.0})
    write(tmp_path, 2, {3: 2.0, 4: 1.0})
    board = EventAccumulator(str(tmp_path / "tensorboard" / "sft")).Reload()
    assert board.Tags()["scalars"] == ["loss", "tokens/s"]
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]


def test_a_value_that_is_no_number_is_null_in_the_lines_and_nan_in_tensorboard(tmp_path):
    write(tmp_path, 0, {1: math.nan})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] is None
    (event,) = EventAccumulator(str(tmp_path / "tensorboard" / "sft")).Reload().Scalars("loss")
    assert math.isnan(event.value)


def test_a_log_is_opened_without_the_import_of_tensorboard(tmp_path):
    code = "import sys; from rlhf.metrics import MetricLog; from pathlib import Path; MetricLog(Path(sys.argv[1]), 'sft', 0)"
    code += "; sys.exit('tensorboard' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
