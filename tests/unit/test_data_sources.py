"""All kinds of sources give equal rows, and every bad input is reported in one line with its place."""

import gzip
import json

import datasets
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet
import pytest
from data_cases import shared_file

from data import row_files
from data.errors import UserError
from data.sources import open_rows

TABLE = [{"a": 1, "s": "x"}, {"a": 2, "s": "y"}, {"a": 3, "s": "z"}]
CALLS = {"count": 3}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def counted(count: int, start: int = 0):
    for number in range(start, start + count):
        yield {"text": f"row {number}"}


def numbers():
    yield from [{"text": "fine"}, 7]


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def message(call) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".parquet", ".arrow", "/saved"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    file = tmp_path / f"rows{suffix}"
    if suffix == ".jsonl":
        file.write_text(lines(TABLE))
    elif suffix == ".jsonl.gz":
        file.write_bytes(gzip.compress(lines(TABLE).encode()))
    elif suffix == ".json":
        file.write_text(json.dumps(TABLE))
    elif suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(TABLE), file)
    elif suffix == ".arrow":
        table = pa.Table.from_pylist(TABLE)
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        datasets.Dataset.from_list(TABLE).save_to_disk(file)
    rows = open_rows(str(file))
    assert list(rows) == TABLE
    assert rows.columns == ("a", "s")


def test_a_text_file_is_one_document(tmp_path, monkeypatch):
    (tmp_path / "play.txt").write_bytes("one\n\ntwö\r\n".encode())
    for limit in (row_files.PLAIN_BYTES, 0):
        monkeypatch.setattr(row_files, "PLAIN_BYTES", limit)
        assert list(open_rows(str(tmp_path / "play.txt"))) == [{"text": "one\n\ntwö\n"}]


UNIFORM = [
    {
        "text": text,
        "when": "2020-01-01",
        "count": count,
        "share": share,
        "right": count > 0,
        "messages": [{"role": "user", "content": text}] * size,
        "ratings": [share] * size,
        "nested": {"deep": {"list": [[text]]}, "seen": "2021-02-03T04:05:06Z"},
    }
    for text, count, share, size in [
        ("é\u2028\n\x00 \U0001f600", -(2**63), 0.1, 1),
        ("", 2**63 - 1, -0.0, 3),
        ("1", 0, 1e300, 2),
    ]
]


def test_a_small_file_of_uniform_rows_gives_what_datasets_gives(tmp_path, monkeypatch):
    file = tmp_path / "rows.jsonl"
    file.write_text(lines(UNIFORM) + json.dumps(UNIFORM[0], ensure_ascii=False) + "\r\n")
    assert row_files._read_plain(file) == [*UNIFORM, UNIFORM[0]]
    plain = open_rows(str(file))
    monkeypatch.setattr(row_files, "PLAIN_BYTES", 0)
    by_datasets = open_rows(str(file))
    assert row_files._read_plain(file) is None
    assert (list(plain), plain.columns) == (list(by_datasets), by_datasets.columns)
    assert plain.fingerprint == by_datasets.fingerprint


@pytest.mark.parametrize(
    "content",
    [
        '{"a": 1}\n{"a": 1.5}',
        '{"a": 1}\n{"a": true}',
        '{"a": 1}\n{"b": 1}',
        '{"a": 1, "b": 2}\n{"b": 2, "a": 1}',
        '{"a": 1}\n{"a": null}',
        '{"a": {"b": 1}}\n{"a": {}}',
        '{"a": []}',
        '{"a": [1, "x"]}',
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": 9223372036854775808}',
        '{"a": "\\ud800"}',
        '{"a": 1}\r{"a": 2}',
        "\ufeff" + '{"a": 1}',
        "1\n2",
        "{}\n{}",
        '{"a": 1}\n{"a"',
        "\n",
    ],
)
def test_rows_that_are_not_uniform_are_left_to_datasets(tmp_path, content):
    (tmp_path / "rows.jsonl").write_bytes(content.encode())
    assert row_files._read_plain(tmp_path / "rows.jsonl") is None


def test_a_directory_is_read_in_the_order_of_its_names_and_each_row_knows_its_file(tmp_path):
    (tmp_path / "b.jsonl").write_text(lines(TABLE[2:]))
    (tmp_path / "a.jsonl").write_text(lines(TABLE[:2]))
    (tmp_path / ".hidden.jsonl").write_text(lines(TABLE))
    rows = open_rows(str(tmp_path))
    assert list(rows) == TABLE
    assert [rows.origin(i) for i in range(3)] == [
        f"{tmp_path}/a.jsonl, row 1",
        f"{tmp_path}/a.jsonl, row 2",
        f"{tmp_path}/b.jsonl, row 1",
    ]
    assert rows[2] == TABLE[2]


def test_several_sources_follow_each_other_up_to_the_limit(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines([{"text": "first"}]))
    rows = open_rows([str(tmp_path / "a.jsonl"), f"{__name__}:counted"], args={"count": 5}, limit=3)
    assert list(rows) == [{"text": "first"}, {"text": "row 0"}, {"text": "row 1"}]
    assert rows.origin(2) == f"{__name__}:counted, row 2"


def test_a_function_is_called_with_its_arguments():
    rows = open_rows(f"{__name__}:counted", args={"count": 2, "start": 5})
    assert list(rows) == [{"text": "row 5"}, {"text": "row 6"}]
    assert rows.origin(1) == f"{__name__}:counted, row 2"


def test_a_function_that_does_not_take_the_arguments_is_the_users_error():
    assert "data.args do not fit" in message(lambda: open_rows(f"{__name__}:counted", args={"size": 2}))
    assert "row 2: wanted a dict, found int" in message(lambda: open_rows(f"{__name__}:numbers"))


def test_columns_are_renamed_and_reach_into_nested_ones(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines([{"q": "why?", "model": {"answer": "so"}, "id": 1}]))
    rows = open_rows(str(tmp_path / "a.jsonl"), columns={"prompt": "q", "response": "model.answer"})
    assert rows[0] == {"prompt": "why?", "response": "so", "model": {"answer": "so"}, "id": 1}
    assert set(rows.columns) == set(rows[0])


def test_one_column_can_serve_under_two_names(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(TABLE))
    assert open_rows(str(tmp_path / "a.jsonl"), columns={"one": "s", "two": "s"})[0] == {"a": 1, "one": "x", "two": "x"}


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(tmp_path):
    for name, rows in {"a": TABLE, "copy": TABLE, "other": TABLE[:2]}.items():
        (tmp_path / f"{name}.jsonl").write_text(lines(rows))

    def fingerprint(name, **options):
        return open_rows(str(tmp_path / f"{name}.jsonl"), **options).fingerprint

    assert fingerprint("a") == fingerprint("copy")
    assert (
        len({fingerprint("a"), fingerprint("other"), fingerprint("a", limit=1), fingerprint("a", columns={"b": "a"})})
        == 4
    )
    spec = f"{__name__}:counted"
    assert open_rows(spec, args=CALLS).fingerprint == open_rows(spec, args=CALLS).fingerprint
    assert open_rows(spec, args=CALLS).fingerprint != open_rows(spec, args={**CALLS, "start": 1}).fingerprint


def test_a_named_data_set_is_read_from_the_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "datasets--someone--sums"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (snapshot / "train.jsonl").write_text(lines(TABLE))
    (snapshot / "test.jsonl").write_text(lines(TABLE[:1]))
    assert list(open_rows("someone/sums")) == TABLE
    rows = open_rows("someone/sums", split="test")
    assert (list(rows), rows.origin(0)) == (TABLE[:1], "someone/sums (test), row 1")
    assert rows.fingerprint != open_rows("someone/sums").fingerprint
    assert "validation" in message(lambda: open_rows("someone/sums", split="validation"))
    assert "not" in message(lambda: open_rows("someone/other"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.jsonl", b"", "the file is empty"),
        ("blank.jsonl", b"\n\n", "no rows"),
        ("empty.jsonl.gz", gzip.compress(b"", mtime=0), "no rows"),
        ("broken.jsonl", b'{"a": 1}\n{"a": 2\n', "row 2: broken JSON at character 8"),
        ("bare.jsonl", b"1\n2\n", "row 1: wanted an object of columns, found a number"),
        ("broken.json", b'[{"a": 1},\n{"a"]', "line 2: broken JSON"),
        ("latin.txt", "né".encode("latin1"), "not UTF-8 text (byte 0xe9 at 1)"),
        ("cut.jsonl.gz", gzip.compress(lines(TABLE).encode(), mtime=0)[:-12], "cut off or damaged"),
        ("plain.jsonl.gz", lines(TABLE).encode(), "not gzip"),
        ("bad.parquet", b"hello", "cannot be read as parquet"),
        ("bad.arrow", b"hello", "cannot be read as arrow"),
        ("table.csv", b"a,b\n", "unknown format"),
    ],
)
def test_a_broken_file_is_named_with_the_row_at_fault(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    found = message(lambda: open_rows(str(tmp_path / name)))
    assert found.startswith(str(tmp_path / name))
    assert expected in found


def test_rows_keep_their_values_where_types_and_columns_change_late(tmp_path):
    values = [1, "x", None, [1], {"b": 2}]
    table = [{"a": values[i % 5], "text": "long " * 1000} for i in range(3000)] + [
        {"a": 1, "text": "", "late": "2020-01-01"}
    ]
    (tmp_path / "mixed.jsonl").write_text(lines(table))
    rows = open_rows(str(tmp_path / "mixed.jsonl"))
    assert rows.columns == ("a", "text", "late")
    assert [row["a"] for row in rows] == [row["a"] for row in table]
    assert (rows[0]["late"], rows[3000]["late"]) == (None, "2020-01-01")


def test_text_that_looks_like_a_date_stays_text(tmp_path):
    table = [{"prompt": "when?", "answer": "2020-01-01", "meta": {"seen": "2021-02-03T04:05:06Z"}}] * 2
    (tmp_path / "dates.jsonl").write_text(lines(table))
    (tmp_path / "dates.json").write_text(json.dumps(table))
    assert list(open_rows(str(tmp_path / "dates.jsonl"))) == table
    assert list(open_rows(str(tmp_path / "dates.json"))) == table


def test_a_row_that_is_not_utf8_is_named_when_it_is_read(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(lines([{"a": "fine"}]).encode() + '{"a": "é"}\n'.encode("latin1"))
    assert "latin.jsonl, row 2: not UTF-8" in message(lambda: list(open_rows(str(tmp_path / "latin.jsonl"))))


def test_a_missing_file_names_the_nearest_that_exist(tmp_path):
    (tmp_path / "train.jsonl").write_text(lines(TABLE))
    assert "has train.jsonl" in message(lambda: open_rows(str(tmp_path / "trian.jsonl")))
    assert "no directory" in message(lambda: open_rows(str(tmp_path / "nowhere" / "train.jsonl")))


def test_a_directory_must_hold_one_format(tmp_path):
    assert "no data files" in message(lambda: open_rows(str(tmp_path)))
    (tmp_path / "train.jsonl").write_text(lines(TABLE))
    (tmp_path / "readme.txt").write_text("about")
    assert "several formats (json, text)" in message(lambda: open_rows(str(tmp_path)))


def test_a_missing_column_names_those_that_are_there(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(TABLE))
    path = str(tmp_path / "a.jsonl")
    assert "no column 'q' (to be 'prompt'); the columns are a, s" in message(
        lambda: open_rows(path, columns={"prompt": "q"})
    )
    assert "no column 'text'; the columns are a, s" in message(lambda: open_rows(path).require("text"))


def test_arguments_for_a_file_are_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(TABLE))
    assert "takes no data.args" in message(lambda: open_rows(str(tmp_path / "a.jsonl"), args={"size": 1}))


def test_gsm8k_is_read_with_its_columns_renamed():
    rows = open_rows(shared_file("gsm8k_test.jsonl"), columns={"prompt": "question", "response": "answer"})
    assert (len(rows), rows.columns) == (659, ("prompt", "response"))
    assert all("####" in row["response"] for row in rows)
