"""Pieces of work by real Ray Data: results, errors, and a worker that dies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from actors.pieces import run_pieces
from data.corpus.work import Work
from data.errors import UserError

pytestmark = pytest.mark.usefixtures("ray_cluster")


def work(directory: Path, workers: int = 2) -> Work:
    return Work(directory, 0, lambda pieces: run_pieces(pieces, workers))


@dataclass(frozen=True)
class DiesOnce:
    """Kills its own process the first time that it is called with 3."""

    directory: Path

    def __call__(self, number: int) -> int:
        flag = self.directory / "died"
        if number == 3 and not flag.exists():
            flag.touch()
            os._exit(1)
        return number * number


def complain(number: int) -> int:
    if number == 2:
        raise UserError("sources.pages: the list is empty; write a word on each line")
    return number


def divide(number: int) -> float:
    return 1 / (2 - number)


def process_of(number: int) -> int:
    return os.getpid()


def test_a_piece_whose_worker_died_is_done_again(tmp_path):
    assert work(tmp_path).map("squares", DiesOnce(tmp_path), range(6)) == [0, 1, 4, 9, 16, 25]
    assert (tmp_path / "died").exists()


def test_what_is_done_is_not_done_again(tmp_path):
    first = work(tmp_path).map("processes", process_of, range(4))
    assert os.getpid() not in first
    assert work(tmp_path).map("processes", process_of, range(4)) == first


def test_a_users_mistake_comes_back_as_such_and_a_bug_with_the_workers_traceback(tmp_path):
    with pytest.raises(UserError, match="the list is empty"):
        work(tmp_path).map("complaints", complain, range(4))
    with pytest.raises(ZeroDivisionError) as error:
        work(tmp_path).map("divisions", divide, range(4))
    assert any("return 1 / (2 - number)" in note for note in error.value.__notes__)


def test_pieces_run_where_the_runs_actors_hold_every_cpu(tmp_path, ray_cluster):
    group = ray.util.placement_group([{"CPU": 1}] * int(ray_cluster.cpus))
    ray.get(group.ready(), timeout=60)
    try:
        assert work(tmp_path).map("squares", DiesOnce(tmp_path), [1, 2]) == [1, 4]
    finally:
        ray.util.remove_placement_group(group)
