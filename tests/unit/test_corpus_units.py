"""Units depend only on names and sizes, have every file once, and name each file that they leave out."""

import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_cases import source_of

from data.corpus.units import files_of, plan_units
from data.errors import UserError


def rows(count: int = 2):
    yield from ({"text": str(number)} for number in range(count))


def names(units):
    return [[part.name for part in unit.parts] for unit in units]


def test_small_files_share_a_unit_in_the_order_of_their_names(tmp_path):
    files = ["b.txt", "a.txt", "d/a.txt", "c.txt", "d/.hidden.txt", ".git/a.txt"]
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"x" * 40)
    units, quarantined = plan_units([source_of(tmp_path)], 100)
    assert names(units) == [["a.txt", "b.txt"], ["c.txt", "d/a.txt"]]
    assert quarantined == []


def test_units_do_not_depend_on_the_order_in_which_the_files_were_made(tmp_path):
    planned = []
    for seed in (1, 2):
        directory = tmp_path / str(seed) / "files"
        directory.mkdir(parents=True)
        numbers = list(range(60))
        random.Random(seed).shuffle(numbers)
        for number in numbers:
            (directory / f"{number}.txt").write_bytes(b"x" * (number + 1))
        planned.append(names(plan_units([source_of(directory)], 200)[0]))
    assert planned[0] == planned[1]
    assert sorted(name for unit in planned[0] for name in unit) == sorted(f"{number}.txt" for number in range(60))


@pytest.mark.parametrize(
    ("name", "split", "cut"),
    [
        ("a.jsonl", "file", True),
        ("a.txt", "lines", True),
        ("a.md", "paragraphs", True),
        ("a.txt", "file", False),
        ("a.jsonl.gz", "file", False),
        ("a.json", "file", False),
    ],
)
def test_large_files_are_cut_only_if_their_parts_can_be_read_alone(tmp_path, name, split, cut):
    (tmp_path / name).write_bytes(b"x" * 250)
    units, _ = plan_units([source_of(tmp_path, split=split)], 100)
    ranges = [(part.start, part.stop) for unit in units for part in unit.parts]
    assert ranges == ([(0, 100), (100, 200), (200, None)] if cut else [(0, None)])


def test_parquet_is_cut_at_row_groups(tmp_path):
    texts = random.Random(0).randbytes(60_000).hex()
    table = pa.table({"text": [texts[i : i + 1000] for i in range(0, 120_000, 1000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10, use_dictionary=False)
    size = os.path.getsize(tmp_path / "a.parquet")
    units, _ = plan_units([source_of(tmp_path)], size // 3)
    parts = [part for unit in units for part in unit.parts]
    assert [(part.start, part.stop) for part in parts] == [(0, 4), (4, 8), (8, None)]  # of twelve groups
    assert len(units) == 3
    assert len(plan_units([source_of(tmp_path)], size * 2)[0]) == 1


def test_references_come_first_and_no_unit_has_two_sources(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text("x")
    sources = [source_of(tmp_path / name, name=name, reference=name in "bc") for name in "abc"]
    assert [unit.source.name for unit in plan_units(sources, 1000)[0]] == ["b", "c", "a"]


def test_every_file_that_is_not_read_is_named_with_the_reason(tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "picture.png").write_bytes(b"x")
    (tmp_path / "README").write_bytes(b"x")
    (tmp_path / "a.parquet.gz").write_bytes(b"x")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "good.txt").write_text("x")
    units, quarantined = plan_units([source_of(tmp_path)], 100)
    reasons = {each.file: each.reason for each in quarantined}
    assert names(units) == [["good.txt"]]
    assert reasons["empty.txt"] == "the file is empty"
    assert "reads no .png (it reads .txt" in reasons["picture.png"]
    assert "files without an ending" in reasons["README"]
    assert reasons["a.parquet.gz"] == ".parquet files are read without .gz only"
    assert reasons["gone.txt"] == "a link to nothing"
    assert reasons["pipe.txt"] == "not a regular file"
    assert len(reasons) == 6


def test_a_directory_without_files_is_named(tmp_path):
    (tmp_path / "empty" / "below").mkdir(parents=True)
    units, quarantined = plan_units([source_of(tmp_path / "empty")], 100)
    assert units == []
    assert [(each.source, each.place) for each in quarantined] == [("some", None)]
    assert "a directory without files" in quarantined[0].reason


def test_files_of_the_same_name_in_several_paths_keep_different_names(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text("x")
    assert names(plan_units([source_of(tmp_path / "a", tmp_path / "b")], 100)[0]) == [["a/x.txt", "b/x.txt"]]
    twice = source_of(tmp_path / "a", tmp_path / "a" / "x.txt")
    assert len(plan_units([twice], 100)[0][0].parts) == 1


def test_links_to_directories_of_the_source_are_followed_once(tmp_path):
    (tmp_path / ".store").mkdir()
    (tmp_path / ".store" / "x.txt").write_text("x")
    (tmp_path / ".store" / "loop").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / ".store")
    units, quarantined = plan_units([source_of(tmp_path)], 100)
    assert names(units) == [["link/x.txt"]]
    assert quarantined == []


def linked(root: Path) -> None:
    """A source with links into itself and out of it."""
    for name in ("source", "source-2", "outside"):
        (root / name).mkdir()
        (root / name / "x.txt").write_text(name)
    (root / "source" / "inside.txt").symlink_to("x.txt")
    (root / "source" / "out.txt").symlink_to(root / "outside" / "x.txt")
    (root / "source" / "up").symlink_to("..")
    (root / "source" / "directory").symlink_to(root / "outside")
    (root / "source" / "beside.txt").symlink_to("../source-2/x.txt")
    (root / "source" / "gone.txt").symlink_to("/nowhere.txt")


def test_links_out_of_a_source_are_named_and_not_read(tmp_path):
    linked(tmp_path)
    units, quarantined = plan_units([source_of(tmp_path / "source")], 100)
    assert names(units) == [["inside.txt", "x.txt"]]
    assert [each.file for each in quarantined] == ["beside.txt", "directory", "gone.txt", "out.txt", "up"]
    assert all(each.reason.startswith("a link out of the source") for each in quarantined)


def test_paths_of_a_source_may_be_links(tmp_path):
    linked(tmp_path)
    (tmp_path / "link").symlink_to("source")
    units, _ = plan_units([source_of(tmp_path / "link")], 100)
    assert names(units) == [["inside.txt", "x.txt"]]
    assert names(plan_units([source_of(tmp_path / "source" / "out.txt")], 100)[0]) == [["out.txt"]]
    both, left_out = plan_units([source_of(tmp_path / "source", tmp_path / "source-2")], 100)
    assert "source/beside.txt" in names(both)[0]
    assert "source/beside.txt" not in [each.file for each in left_out]


def test_files_of_lists_the_files_of_the_units(tmp_path, monkeypatch):
    linked(tmp_path)
    (tmp_path / "source" / "empty.txt").touch()
    (tmp_path / "source" / "picture.png").write_bytes(b"x")
    monkeypatch.setenv("HOME", str(tmp_path))
    sources = [source_of("~/source", f"{__name__}:rows"), source_of(tmp_path / "source-2" / "x.txt", reference=True)]
    units, _ = plan_units(sources, 10**6)
    planned = {part.path for unit in units for part in unit.parts} - {f"{__name__}:rows"}
    files = files_of(sources)
    assert {path for path, _, _ in files} == planned
    assert len(files) == len(planned) == 3
    assert all((size, time) == (os.path.getsize(path), os.stat(path).st_mtime_ns) for path, size, time in files)


def test_a_name_that_is_not_utf8_can_be_written_down(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(path, "w") as file:
        file.write("x")
    part = plan_units([source_of(tmp_path)], 100)[0][0].parts[0]
    assert part.name == "caf\\xe9.txt"
    assert os.path.exists(part.path)


def test_a_missing_path_is_the_users_error_and_names_the_nearest(tmp_path):
    (tmp_path / "books.txt").write_text("x")
    with pytest.raises(UserError, match=r"source 'some'.*has books\.txt"):
        plan_units([source_of(tmp_path / "boks.txt")], 100)


def test_a_function_is_one_unit_and_must_take_its_args():
    spec = f"{__name__}:rows"
    units, _ = plan_units([source_of(spec, args={"count": 5})], 100)
    assert [(part.path, part.name) for part in units[0].parts] == [(spec, spec)]
    with pytest.raises(UserError, match="args of source 'some' do not fit"):
        plan_units([source_of(spec, args={"size": 5})], 100)
    with pytest.raises(UserError, match="has no 'row'"):
        plan_units([source_of(f"{__name__}:row")], 100)
