"""Word lists match whole words, as a plain search does, and a bad list is the user's error."""

import random
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from corpus_stages import document
from data_cases import shared_file

from data.corpus.document import draw
from data.corpus.step import Dropped
from data.corpus.wordlist import WordList
from data.errors import UserError


@pytest.fixture
def listed(tmp_path):
    def make(*lines: str, **values) -> WordList:
        file = tmp_path / f"list-{len(list(tmp_path.iterdir()))}.txt"
        file.write_text("\n".join(lines))
        return WordList(path=str(file), **values)

    return make


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("arse", "My ARSE!"),
        ("arse", "the arse's end, the arse’s end"),
        ("arse", "(arse)"),
        ("arse", "an_arse_name"),
        ("Arse", "arse"),
        ("STRASSE", "straße"),
        ("café", "cafe\u0301"),
        ("ARSE", "ａｒｓｅ"),
        ("blow up", "They BLOW\nup bridges"),
        ("blow up", "blow-up"),
        ("don't care", "I don’t care"),
        ("ёлка", "ЁЛКА."),
        ("🖕", "take 🖕 that"),
        ("女の子", "あの女の子は"),
        ("s&m", "S&M gear"),
    ],
)
def test_a_word_matches_in_every_form(listed, entry, text):
    step = listed("other", entry)
    assert step.look(document(text)) == Dropped("words of list-0.txt")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("arse", "Parse the sparse arsenal of arses."),
        ("blow up", "blow it up"),
        ("blow up", "up, blow"),
        ("blow up", "ends with blow"),
        ("cafe", "café"),
        ("arse", ""),
        ("s&m", "sm"),
    ],
)
def test_parts_of_words_and_of_phrases_do_not_match(listed, entry, text):
    kept = document(text)
    assert listed(entry).look(kept) is kept


def test_matches_are_counted(listed):
    once, twice = document("A rat."), document("A rat and a rat.")
    step = listed("rat", "mouse", at_least=2)
    assert step.look(once) is once
    assert isinstance(step.look(twice), Dropped)
    assert isinstance(step.look(document("A rat and a mouse.")), Dropped)


def test_comments_and_blank_lines_are_no_words(listed):
    text = document("my own list # of words")
    assert listed("# my own list", "", "  ", "rat").look(text) is text


def test_a_share_is_kept_by_the_places_alone(listed):
    matching = [document("a rat", number=number) for number in range(2000)]
    step = listed("rat", keep_share=0.25)
    kept = [each for each in matching if step.look(each) is each]
    assert 0.2 < len(kept) / len(matching) < 0.3
    others = [replace(each, text="a rat in another text") for each in reversed(matching)]
    assert {each.id for each in others if step.look(each) is each} == {each.id for each in kept}


def test_draws_are_even_and_independent_of_each_other():
    documents = [document("", number=number) for number in range(4000)]
    one, other = ([draw(each, purpose) for each in documents] for purpose in ("one", "other"))
    assert 0 <= min(one) < 0.01 < 0.99 < max(one) < 1
    both = sum(a < 0.5 and b < 0.5 for a, b in zip(one, other)) / len(documents)
    assert both == pytest.approx(0.25, abs=0.03)
    assert one == [draw(each, "one") for each in documents]


def test_in_real_text_it_matches_what_a_plain_search_finds(listed):
    play = Path(shared_file("tinyshakespeare.txt")).read_text()[:300_000]
    speeches = play.split("\n\n")
    entries = ["villain", "my lord", "blood", "gentle kinsman", "whore"]
    search = re.compile(r"\b(?:" + "|".join(entries).replace(" ", r"\W+") + r")\b", re.IGNORECASE)
    step = listed(*entries)
    found = [isinstance(step.look(document(speech)), Dropped) for speech in speeches]
    assert found == [bool(search.search(speech)) for speech in speeches]
    assert 50 < sum(found) < len(speeches) / 2


def test_thousands_of_words_cost_about_what_ten_cost(listed):
    rng = random.Random(0)
    entries = sorted({"".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(20_000)})
    play = document(Path(shared_file("tinyshakespeare.txt")).read_text())

    def seconds(step) -> float:
        start = time.process_time()
        assert step.look(play) is play
        return time.process_time() - start

    few, many = listed(*entries[:10], "the of and"), listed(*entries, "the of and")
    assert min(seconds(many) for _ in range(3)) < 20 * min(seconds(few) for _ in range(3))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "no words"),
        (b"# nothing\n\n", "no words"),
        ("né".encode("latin1"), "not UTF-8"),
        (b"fine\nf***\n", "line 2: 'f***'"),
        (b"(x)\n", "line 1"),
    ],
)
def test_a_bad_list_is_the_users_error(tmp_path, content, expected):
    file = tmp_path / "list.txt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        WordList(path=str(file))
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)


def test_a_missing_list_is_the_users_error(tmp_path):
    (tmp_path / "harmful.txt").write_text("rat")
    with pytest.raises(UserError, match=r"word_list: path: .*does not exist.*harmful\.txt"):
        WordList(path=str(tmp_path / "harmfull.txt"))
