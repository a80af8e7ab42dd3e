"""Near-duplicates against a comparison of all pairs in plain Python: found at the threshold, and none below it."""

import json
import random
import re
import resource
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from corpus_stages import (
    Killed,
    document,
    dropped,
    edited,
    files_of,
    killed_at,
    outcomes,
    prepared,
    shuffled,
    speeches,
    stage_of,
)
from data_cases import shared_file

from data.corpus.dedup.leaders import StoredSets, repeating, write_sets
from data.corpus.dedup.minhash import Lsh
from data.corpus.dedup.near import RECALL, ROWS, NearDuplicates, bands, grouped
from data.corpus.step import Stage
from data.corpus.words import datatrove_words
from data.corpus.work import save_array
from data.errors import UserError


def plain_shingles(text: str) -> set[tuple[str, ...]]:
    """Of five words each, of ASCII text; numbers are alike."""
    words = re.sub(r"[^a-z0-9]", " ", re.sub(r"\d+([.,]\d+)?", "0", text.lower())).split()
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def jaccard(first: set, second: set) -> float:
    return len(first & second) / len(first | second)


class Planted:
    """Speeches and solutions, with exact copies and edited ones anywhere after them, and what all pairs have in common."""

    def __init__(self, directory: Path):
        rng = random.Random(11)
        originals = speeches(170, 60)
        with open(shared_file("gsm8k_train.jsonl")) as file:
            rows = [json.loads(next(file)) for _ in range(80)]
        originals += [f"{row['question']}\n{row['answer']}" for row in rows]
        later = [edited(text, rng.randrange(5), rng) for text in originals for _ in range(rng.randrange(3))]
        rng.shuffle(later)
        texts = originals + later
        self.units = [("play", texts[:200]), ("play", texts[200:300]), ("web", texts[300:400]), ("mix", texts[400:])]
        self.stage = stage_of(directory, self.units)
        self.places = [(unit, row) for unit, (_, held) in enumerate(self.units) for row in range(len(held))]
        self.texts = dict(zip(self.places, texts, strict=True))
        shingles = [plain_shingles(text) for text in texts]
        self.alike = {
            pair: similarity
            for pair in combinations(range(len(texts)), 2)
            if (similarity := jaccard(shingles[pair[0]], shingles[pair[1]])) > 0.3
        }
        self.alike = {(self.places[one], self.places[two]): each for (one, two), each in self.alike.items()}

    def repeats(self, threshold: float) -> dict[tuple[int, int], tuple[int, int]]:
        """What goes if every document is compared with every earlier one that stays."""
        gone: dict[tuple[int, int], tuple[int, int]] = {}
        for place in self.places:
            kept = [
                one for (one, two), each in self.alike.items() if two == place and each >= threshold and one not in gone
            ]
            if kept:
                gone[place] = min(kept)
        return gone

    def precision(self, found, threshold: float) -> float:
        stay = set(self.places) - set(found)
        right = {two for (one, two), each in self.alike.items() if each >= threshold and one in stay}
        return len(right & set(found)) / len(found)


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Planted:
    return Planted(tmp_path_factory.mktemp("near") / "stage")


@pytest.fixture(scope="module")
def found(planted, tmp_path_factory) -> dict[tuple[int, int], str]:
    return dropped(outcomes(prepared(NearDuplicates(), planted.stage, tmp_path_factory.mktemp("found")), planted.stage))


def test_nearly_all_near_duplicates_are_found_and_nothing_else(planted, found):
    expected = planted.repeats(0.8)
    right, precision = len(found.keys() & expected.keys()), planted.precision(found, 0.8)
    print(f"{len(planted.places)} documents: {right} of {len(expected)} near-duplicates found, precision {precision}")
    assert len(expected) > 100
    assert right >= 0.95 * len(expected)
    assert precision == 1


def test_all_exact_copies_are_found(planted, found):
    first: dict[str, tuple[int, int]] = {}
    copies = {place for place, text in planted.texts.items() if first.setdefault(text, place) != place}
    assert len(copies) > 20
    assert copies <= found.keys()


def test_documents_just_below_the_threshold_stay(planted, found):
    most = {
        place: max((each for pair, each in planted.alike.items() if place in pair), default=0)
        for place in planted.places
    }
    near = {place for place, each in most.items() if 0.6 <= each <= 0.75}
    assert len(near) > 20
    assert not near & found.keys()


def test_the_reason_names_the_source_of_what_is_repeated(planted, found):
    for place, (unit, _) in planted.repeats(0.8).items():
        if place in found:
            kept, own = planted.units[unit][0], planted.units[place[0]][0]
            assert found[place] == (
                f"near-duplicate of source {kept}" if kept != own else "near-duplicate within its source"
            )


def datatrove_removes(texts: list[str], directory: Path) -> set[int]:
    """By its own four steps with its own parameters."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )

    steps = [str(directory / name) for name in ("signatures", "buckets", "clusters")]
    config = MinhashConfig()
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
    MinhashDedupSignature(steps[0], config, language=datatrove_words()).run(documents)
    for band in range(config.num_buckets):
        MinhashDedupBuckets(steps[0], steps[1], config=config).run(None, band, config.num_buckets)
    MinhashDedupCluster(steps[1], steps[2], config=config).run()
    left = {int(document.id) for document in MinhashDedupFilter(steps[2]).run(documents)}
    return set(range(len(texts))) - left


def test_datatrove_alone_drops_documents_that_are_less_alike(planted, found, tmp_path):
    removed = {planted.places[number] for number in datatrove_removes(list(planted.texts.values()), tmp_path)}
    # it may keep any of a cluster: count pairs that no other document accounts for
    alone = {
        place for place in removed if not any(place in pair and each >= 0.8 for pair, each in planted.alike.items())
    }
    print(f"datatrove alone drops {len(removed)}, of which {len(alone)} are like no other document")
    assert len(alone) >= 5
    assert not alone & found.keys()


def test_pairs_just_above_the_threshold_are_found(tmp_path):
    rng = random.Random(2)
    vocabulary = [f"word{letter}{other}" for letter in "abcdefghijklmnopqrst" for other in "abcdefghijklmnopqrst"]
    originals = [" ".join(rng.choices(vocabulary, k=104)) for _ in range(250)]
    copies = [text.split() for text in originals]
    for words in copies:  # 100 shingles, 10 of them gone, 10 new: 90 / 110
        words[20], words[60] = "new", "newer"
    copies = [" ".join(words) for words in copies]
    exact = [jaccard(plain_shingles(one), plain_shingles(two)) for one, two in zip(originals, copies, strict=True)]
    assert {round(each, 3) for each in exact} == {0.818}
    stage = stage_of(tmp_path / "stage", [("a", originals), ("b", copies)])
    found = dropped(outcomes(prepared(NearDuplicates(threshold=0.81), stage, tmp_path / "1"), stage))
    assert len(found) >= 0.975 * 250
    assert {unit for unit, _ in found} == {1}
    assert not dropped(outcomes(prepared(NearDuplicates(threshold=0.82), stage, tmp_path / "2"), stage))


def chain() -> list[str]:
    """Three documents, each like the next, the first unlike the last."""
    words = [f"w{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(220)]
    return [" ".join(words[start : start + 200]) for start in (0, 10, 20)]


def test_the_end_of_a_chain_stays_when_it_is_unlike_the_beginning(tmp_path):
    one, two, three = map(plain_shingles, chain())
    assert jaccard(one, two) > 0.9 and jaccard(two, three) > 0.9 and 0.8 < jaccard(one, three) < 0.82
    stage = stage_of(tmp_path / "stage", [("a", chain())])
    found = dropped(outcomes(prepared(NearDuplicates(threshold=0.85), stage, tmp_path / "1"), stage))
    assert found.keys() == {(0, 1)}


def test_documents_of_other_kinds_and_short_documents_stay(tmp_path):
    text = chain()[0]
    held = [document(text, "a", 0, "code"), document(text, "a", 1), "too few words", "too few words", text.upper()]
    stage = stage_of(tmp_path / "stage", [("a", held), ("empty", [])])
    found = dropped(outcomes(prepared(NearDuplicates(kinds=("text",)), stage, tmp_path / "1"), stage))
    assert found.keys() == {(0, 4)}


def test_a_corpus_without_any_duplicates_loses_nothing(tmp_path):
    stage = stage_of(tmp_path / "stage", [("a", [chain()[0], "one two three four five six seven"]), ("b", [])])
    assert not dropped(outcomes(prepared(NearDuplicates(), stage, tmp_path / "1"), stage))


@pytest.mark.parametrize("name", ["signatures", "pairs", "groups", "shingles", "comparisons"])
def test_order_and_interruption_change_nothing(name, tmp_path, monkeypatch):
    monkeypatch.setattr("data.corpus.dedup.leaders.BATCH_CANDIDATES", 2)
    rng = random.Random(4)
    texts = [" ".join(rng.choices("abcdefghijklmnop", k=60)) for _ in range(8)]
    stage = stage_of(
        tmp_path / "stage", [("a", texts), ("b", [edited(text, 1, rng) for text in texts]), ("c", texts[:3])]
    )
    step = prepared(NearDuplicates(), stage, tmp_path / "whole")
    expected = outcomes(step, stage)
    assert step.parts > 2 and len(dropped(expected)) > 3
    with pytest.raises(Killed):
        prepared(NearDuplicates(), stage, tmp_path / "broken", killed_at(name, 0 if name == "groups" else 1))
    step = prepared(NearDuplicates(), stage, tmp_path / "broken", shuffled(6))
    assert outcomes(step, stage) == expected
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("name", ["pairs", "comparisons"])
def test_there_may_be_more_units_than_open_files(name, tmp_path):
    """From the beginning, or when a run goes on whose earlier pieces another process did."""
    stage = stage_of(tmp_path / "stage", [("a", [chain()[0]])] * 120)
    near = NearDuplicates(threshold=1)  # one band
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(Killed):
        prepared(near, stage, tmp_path / "work", killed_at(name, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        step = prepared(near, stage, tmp_path / "work")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(dropped(outcomes(step, stage))) == 119


def test_sets_are_read_again_as_they_were_written_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr("data.corpus.dedup.leaders.UNITS_HELD", 2)
    sets = [[np.arange(unit * row, unit * row + row, dtype=np.uint64) for row in range(1, 5)] for unit in range(6)]
    candidates = [unit * 2**32 + 2 * row for unit in range(6) for row in range(4)]
    save_array(tmp_path / "candidates.npy", np.array(candidates, np.uint64))
    for unit in range(6):
        write_sets(tmp_path, lambda unit, rows: iter(sets[unit]), unit)
    stored = StoredSets(tmp_path)
    random.Random(1).shuffle(candidates)
    for candidate in candidates:
        unit, row = divmod(candidate, 2**32)
        assert stored.of(candidate).tolist() == sets[unit][row // 2].tolist()


def test_a_finished_preparation_does_not_need_the_documents_again(planted, tmp_path):
    small = Stage(planted.stage.directory, planted.stage.sources[:1])
    expected = dropped(outcomes(prepared(NearDuplicates(), small, tmp_path), small))
    gone = Stage(tmp_path / "removed since", small.sources)
    assert dropped(outcomes(prepared(NearDuplicates(), gone, tmp_path), small)) == expected


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 1.0])
def test_prefix_filtering_finds_what_comparing_all_finds(threshold):
    rng = np.random.default_rng(8)
    sets = [np.unique(rng.integers(0, 40, rng.integers(1, 40)).astype(np.uint64)) for _ in range(300)]
    sets += [each.copy() for each in sets[::10]]
    staying: list[int] = []
    expected = []
    for number, each in enumerate(sets):
        alike = [other for other in staying if jaccard(set(each.tolist()), set(sets[other].tolist())) >= threshold]
        if alike:
            expected.append((number, alike[0]))
        else:
            staying.append(number)
    assert expected
    assert list(repeating(range(len(sets)), sets.__getitem__, threshold)) == expected


def test_signatures_of_a_long_text_are_those_of_datatrove():
    from datatrove.pipeline.dedup.minhash import MinhashDedupSignature

    rng = random.Random(9)
    text = " ".join(f"{rng.randrange(16**4):04x}x" for _ in range(5000))
    lsh = Lsh(words=5, bands=3, rows=4, seed=1)
    theirs = MinhashDedupSignature(".", lsh.config, language=datatrove_words())
    shingles = theirs.get_shingles(text)
    assert lsh._shingler.get_signature(shingles) == theirs.get_signature(shingles)
    assert len(lsh.shingles(text)) == len(plain_shingles(text)) == len(shingles) == 4996


@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.8, 0.9])
def test_bands_are_the_fewest_that_reach_the_recall(threshold):
    def recall(count: int) -> float:
        return 1 - (1 - threshold**ROWS) ** count

    assert recall(bands(threshold) - 1) < RECALL <= recall(bands(threshold))
    assert 1 - (1 - (threshold / 2) ** ROWS) ** bands(threshold) < 0.04


def test_groups_are_those_of_networkx():
    import networkx

    pairs = np.random.default_rng(3).integers(0, 400, (250, 2)).astype(np.uint64)
    graph = networkx.Graph(pairs.tolist())
    expected = {member: min(group) for group in networkx.connected_components(graph) for member in group}
    members, first = grouped(pairs)
    assert dict(zip(members.tolist(), first.tolist(), strict=True)) == expected
    assert members.tolist() == sorted(expected)


@pytest.mark.parametrize("wrong", [{"threshold": 0.1}, {"threshold": 1.5}, {"words": 0}])
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        NearDuplicates(**wrong)
