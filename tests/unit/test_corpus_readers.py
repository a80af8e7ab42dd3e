"""Every place of a file comes out once, as a record or in quarantine, however the file is cut; bad input never raises."""

import gzip
import io
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_cases import LIMIT_BYTES, quarantine, read_all, source_of
from hypothesis import given, settings
from hypothesis import strategies as st

from data.corpus.lines import read_lines, read_paragraphs

TEXTS = ["one", "zwei\nLinien", "trois — é"]
FORMATS = ("a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.parquet", "a.arrow", "stream.arrow")


def rows(count: int):
    yield from ({"text": f"row {number}"} for number in range(count))


def odd_rows():
    yield from [{"text": "fine"}, 7, {"text": "\ud800"}, {"text": None}]


def rows_of_objects():
    circular: list = []
    circular.append(circular)
    yield from [{"messages": circular}, {"messages": {(1, 2): 3}}, {7: "seven"}]


def failing_rows():
    yield {"text": "fine"}
    raise KeyError("of the user")


def write(path, table: list[dict]) -> None:
    """As other programs write it."""
    lines, packed = "".join(json.dumps(row) + "\n" for row in table), path.name.endswith(".gz")
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(table), path, row_group_size=2)
    elif path.suffix == ".arrow":
        data = pa.Table.from_pylist(table)
        opened = pa.ipc.new_stream if path.name.startswith("stream") else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, opened(sink, data.schema) as writer:
            writer.write_table(data, max_chunksize=2)
    else:
        text = lines if ".jsonl" in path.name else json.dumps(table, indent=1)
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_rows_gives_the_same_texts(tmp_path, name):
    write(tmp_path / name, [{"body": {"text": text}, "url": "u", "language": "de", "n": 1} for text in TEXTS])
    records, quarantined = read_all(source_of(tmp_path / name, column="body.text"))
    assert quarantined == []
    assert [record.content for record in records] == TEXTS
    assert {(record.url, record.language) for record in records} == {("u", "de")}
    if "jsonl" not in name:
        assert [record.place for record in records] == [0, 1, 2]


@pytest.mark.parametrize("name", FORMATS)
def test_a_dialogue_record_is_the_row_with_its_dialogue_columns(tmp_path, name):
    table = [{"messages": [{"role": "user", "content": text}], "mine": {"a": text}, "lang": "de"} for text in TEXTS]
    write(tmp_path / name, [{**row, "n": 1, "embedding": [0.5] * 10, "url": "u"} for row in table])
    records, quarantined = read_all(source_of(tmp_path / name, kind="dialogue", column="mine.a"))
    assert quarantined == []
    assert [record.content for record in records] == table
    assert {record.url for record in records} == {"u"}


@pytest.mark.parametrize("name", FORMATS)
def test_rows_without_a_dialogue_column_are_records_too(tmp_path, name):
    write(tmp_path / name, [{"n": 1}] * 5)
    assert [record.content for record in read_all(source_of(tmp_path / name, kind="dialogue"))[0]] == [{}] * 5


DATES = {
    "date": pa.array([0, 10**7, 0], pa.date32()),
    "timestamp": pa.array([0, 2**62, 0], pa.timestamp("us")),
    "seconds": pa.array([0, 2**62, 0], pa.duration("s")),
    "zone": pa.array([0, 1, None], pa.timestamp("us", tz="Mars/Olympus")),
}


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", ["dialogue", "text"])
@pytest.mark.parametrize("place", ["beside", "inside"])
@pytest.mark.parametrize("dates", DATES)
def test_a_date_that_python_cannot_represent_costs_only_its_row(tmp_path, ending, kind, place, dates):
    path, column = tmp_path / f"a.{ending}", "body.text" if kind == "text" else "messages"
    texts = pa.array(["a", "b", "c"])
    inside = [pa.array(["user"] * 3), texts, texts] + ([DATES[dates]] if place == "inside" else [])
    turns = pa.StructArray.from_arrays(inside, ["role", "content", "text", "created"][: len(inside)])
    body = turns if kind == "text" else pa.ListArray.from_arrays([0, 1, 2, 3], turns)
    table = pa.table({column.partition(".")[0]: body, "created": DATES[dates], "url": ["u"] * 3})
    if ending == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    records, quarantined = read_all(source_of(path, kind=kind, column=column))
    bad = [] if place == "beside" else [0, 1] if dates == "zone" else [1]
    assert [each.place for each in quarantined] == bad
    assert all("Error in " in each.reason for each in quarantined)
    assert [record.place for record in records] == [row for row in range(3) if row not in bad]


@pytest.mark.parametrize("column", ["url", "language"])
@pytest.mark.parametrize("kind", ["text", "dialogue"])
def test_a_lone_surrogate_in_another_column_is_in_quarantine(tmp_path, column, kind):
    content = b'{"text": "fine"}\n{"text": "ok", "%b": "\\ud800"}\n{"text": "fine"}\n' % column.encode()
    texts, quarantined = quarantine(tmp_path / "a.jsonl", content, kind=kind)
    assert len(texts) == 2
    assert quarantined == [(17, "half of a surrogate pair, which is no character", 1)]


def test_the_url_counts_for_the_limit(tmp_path):
    rows_of = [{"text": "fine"}, {"text": "fine", "url": "u" * LIMIT_BYTES}]
    texts, quarantined = quarantine(tmp_path / "a.json", json.dumps(rows_of).encode())
    assert texts == ["fine"]
    assert quarantined == [(1, "a row longer than 0.1 MB", 1)]


def test_an_unexpected_error_costs_only_the_rest_of_its_file(tmp_path, monkeypatch):
    for name in ("a.jsonl", "b.warc", "c.jsonl"):
        (tmp_path / name).write_bytes(b'{"text": "fine"}\n')
    monkeypatch.setattr("data.corpus.readers.warc_pages", lambda stream, limit: [][1])
    records, quarantined = read_all(source_of(tmp_path, kind="web"))
    assert [record.part.name for record in records] == ["a.jsonl", "c.jsonl"]
    assert [(each.file, each.place) for each in quarantined] == [("b.warc", None)]
    assert quarantined[0].reason.startswith("cannot be read: IndexError in test_corpus_readers.py, line ")


def test_parquet_units_cut_at_row_groups_have_all_rows_once(tmp_path):
    write(tmp_path / "a.parquet", [{"text": str(number)} for number in range(11)])
    for unit_bytes in (1, 200, 10**6):
        records, _ = read_all(source_of(tmp_path / "a.parquet"), unit_bytes)
        assert [(record.place, record.content) for record in records] == [(n, str(n)) for n in range(11)]


def pieces_of_ranges(read, content: bytes, cuts: list[int], limit_bytes: int):
    bounds = sorted({0, *(cut for cut in cuts if cut < len(content))})
    ranges = zip(bounds, [*bounds[1:], None])
    return [piece for start, stop in ranges for piece in read(io.BytesIO(content), start, stop, limit_bytes)]


blocks = st.lists(
    st.sampled_from([b"a", b"bc", b"\n", b"\n\n", b" ", b"\r\n", b"\t\n", "é".encode(), b"long" * 4]), max_size=40
)


@settings(max_examples=300, deadline=None)
@given(blocks.map(b"".join), st.lists(st.integers(1, 80), max_size=4))
def test_lines_are_the_same_however_the_file_is_cut(content, cuts):
    expected, offset = [], 0
    for line in content.split(b"\n"):
        if line.strip():
            expected.append((offset, line.strip() if len(line) <= 12 else None))
        offset += len(line) + 1
    found = pieces_of_ranges(read_lines, content, cuts, 12)
    assert [(place, line and line.strip()) for place, line in found] == expected


@settings(max_examples=300, deadline=None)
@given(blocks.map(b"".join), st.lists(st.integers(1, 80), max_size=4))
def test_paragraphs_are_the_same_however_the_file_is_cut(content, cuts):
    expected, offset, begin = [], 0, None
    for line in content.split(b"\n") + [b""]:
        if line.strip() and begin is None:
            begin = offset
        if not line.strip() and begin is not None:
            expected.append((begin, content[begin : min(offset, len(content))].strip()))
            begin = None
        offset += len(line) + 1
    found = pieces_of_ranges(read_paragraphs, content, cuts, 1000)
    assert [(place, paragraph.strip()) for place, paragraph in found] == expected


def test_a_paragraph_over_the_limit_is_left_out_and_the_next_is_read():
    content = b"abc\nabc\nabc\n\nfine\n\n" + b"x" * 30
    assert list(read_paragraphs(io.BytesIO(content), 0, None, 10)) == [(0, None), (13, b"fine\n"), (19, None)]


def test_planned_ranges_give_what_one_unit_gives(tmp_path):
    write(tmp_path / "a.jsonl", [{"text": "x" * (number % 37)} for number in range(300)])
    one = [(record.place, record.content) for record in read_all(source_of(tmp_path / "a.jsonl"))[0]]
    for unit_bytes in (7, 100, 1000):
        many = read_all(source_of(tmp_path / "a.jsonl"), unit_bytes)[0]
        assert [(record.place, record.content) for record in many] == one
    assert len(one) == 300


def test_lines_and_paragraphs_of_plain_files_are_records(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\nthree\n")
    for split, expected in {
        "file": [(0, "one\ntwo\n\n\nthree\n")],
        "lines": [(0, "one\n"), (4, "two\n"), (10, "three\n")],
        "paragraphs": [(0, "one\ntwo\n"), (10, "three\n")],
    }.items():
        records, _ = read_all(source_of(tmp_path / "a.txt", split=split))
        assert [(record.place, record.content) for record in records] == expected


def test_a_bad_json_line_costs_only_itself(tmp_path):
    good = b'{"text": "fine"}\n'
    bad = {
        b'{"text": "n\xe9"}\n': "not UTF-8 text (byte 0xe9 at 11)",
        b'{"text": 1\n': "broken JSON at character",
        b"7\n": "wanted an object of columns, found a number",
        b'{"text": null}\n': "column 'text' must be text, found null",
        b'{"body": "x"}\n': "no column 'text'; the columns are body",
        b'{"text": "\\ud800"}\n': "half of a surrogate pair",
        b"[" * 100_000 + b"\n": "nested too deeply",
        b"x" * 3 * LIMIT_BYTES + b"\n": "a line longer than 0.1 MB",
    }
    content = b"\xef\xbb\xbf" + good + b"".join(line + good for line in bad)
    texts, quarantined = quarantine(tmp_path / "a.jsonl", content)
    assert texts == ["fine"] * (len(bad) + 1)
    assert [reason[: len(wanted)] for (_, reason, _), wanted in zip(quarantined, bad.values(), strict=True)] == [
        wanted if "nested" not in wanted else "JSON that is nested too deeply"[: len(wanted)] for wanted in bad.values()
    ]
    assert [place for place, _, _ in quarantined] == [content.index(line, 1) for line in bad]


@pytest.mark.parametrize(
    ("name", "content", "texts", "place", "reason", "read"),
    [
        ("latin.txt", "né".encode("latin1"), 0, 0, "not UTF-8", 0),
        ("binary.txt", b"ab\0c", 0, 0, "NUL", 0),
        ("long.txt", b"x" * (LIMIT_BYTES + 1), 0, 0, "longer than 0.1 MB; set split: lines or paragraphs", 0),
        ("bomb.txt.gz", gzip.compress(b"x" * 10**7, mtime=0), 0, 0, "longer than 0.1 MB", 0),
        ("empty.txt.gz", gzip.compress(b"", mtime=0), 0, 0, "empty", 0),
        ("blank.jsonl", b"\n\n", 0, None, "nothing in it", 0),
        ("list.json", b"[]", 0, None, "nothing in it", 0),
        ("cut.json", b'[{"text": "fine"}, {"te', 1, None, "broken JSON in row 1", 1),
        ("open.json", b'[{"text": "fine"}', 1, None, "the list does not end", 1),
        ("more.json", b'[{"text": "fine"}] x', 1, None, "more after the end", 1),
        ("long.json", b'[{"text": "fine"}, {"text": "' + b"x" * 2_000_000 + b'"}]', 1, None, "longer than 0.1 MB", 1),
        ("latin.json", '[{"text": "é"}]'.encode("latin1"), 0, None, "not UTF-8", 0),
        ("plain.jsonl.gz", b'{"text": "fine"}\n', 0, None, "broken gzip: Not a gzipped file", 0),
        ("bad.parquet", b"hello", 0, None, "cannot be read", 0),
        ("bad.arrow", b"hello", 0, None, "cannot be read", 0),
    ],
)
def test_unreadable_places_are_in_quarantine(tmp_path, name, content, texts, place, reason, read):
    found, quarantined = quarantine(tmp_path / name, content)
    assert found == ["fine"] * texts
    assert [(each[0], each[2]) for each in quarantined] == [(place, read)]
    assert reason in quarantined[0][1]


def test_rows_of_json_may_follow_each_other_without_a_list(tmp_path):
    values = [{"text": "x" * (number * 977 % 70_000)} for number in range(60)]  # over several of the reader's chunks
    for text in ("\n".join(map(json.dumps, values)), json.dumps(values), json.dumps(values, indent=2)):
        assert quarantine(tmp_path / "a.json", text.encode()) == ([value["text"] for value in values], [])


def test_the_beginning_of_a_truncated_gzip_file_is_kept(tmp_path):
    lines = [json.dumps({"text": f"{number} {number**9}"}) + "\n" for number in range(20_000)]
    whole = gzip.compress("".join(lines).encode())
    texts, quarantined = quarantine(tmp_path / "a.jsonl.gz", whole[: len(whole) // 2])
    assert 1000 < len(texts) < 20_000
    assert texts == [json.loads(line)["text"] for line in lines[: len(texts)]]
    assert [(place, read) for place, _, read in quarantined] == [(None, len(texts))]
    assert "broken gzip" in quarantined[0][1]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_table_without_the_column_names_those_that_are_there(tmp_path, name):
    write(tmp_path / name, [{"body": "x", "n": 1}] * 5)
    _, quarantined = read_all(source_of(tmp_path / name))
    assert [(each.place, each.reason) for each in quarantined] == [(None, "no column 'text'; the columns are body, n")]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_table_row_that_is_not_text_costs_only_itself(tmp_path, name):
    texts = pa.array([b"fine", b"n\xe9", None, b"fine"], pa.binary())
    table = pa.table({"text": pa.Array.from_buffers(pa.string(), 4, texts.buffers())})
    if name == "a.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.OSFile(str(tmp_path / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    records, quarantined = read_all(source_of(tmp_path / name))
    assert [(record.place, record.content) for record in records] == [(0, "fine"), (3, "fine")]
    assert [each.place for each in quarantined] == [1, 2]
    assert "null" in quarantined[1].reason


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_line_of_100_mb_is_skipped_in_bounded_memory(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        for _ in range(100):
            file.write(b"x" * 10**6)
        file.write(b'\n{"text": "after"}\n')
    tracemalloc.start()
    records, quarantined = read_all(source_of(tmp_path / name, split="lines"), 30 * 10**6)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [each.place for each in quarantined] == [0]
    assert len(records) == 1
    assert "after" in records[0].content
    assert peak_bytes < 8e6


def test_a_functions_rows_are_streamed_and_its_errors_are_the_users():
    records, _ = read_all(source_of(f"{__name__}:rows", args={"count": 3}))
    assert [(record.place, record.content) for record in records] == [(0, "row 0"), (1, "row 1"), (2, "row 2")]
    records, quarantined = read_all(source_of(f"{__name__}:odd_rows"))
    assert (len(records), [each.place for each in quarantined]) == (1, [1, 2, 3])
    records, quarantined = read_all(source_of(f"{__name__}:rows_of_objects", kind="dialogue"))
    assert ([record.content for record in records], [each.place for each in quarantined]) == ([{}], [0, 1])
    quarantined = read_all(source_of(f"{__name__}:rows_of_objects"))[1]
    assert quarantined[2].reason == "no column 'text'; the columns are 7"
    with pytest.raises(KeyError, match="of the user"):
        read_all(source_of(f"{__name__}:failing_rows"))
