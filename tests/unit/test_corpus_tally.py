"""Examples in a tally: a few, around the change, without work for examples that are not shown."""

from dataclasses import replace

from corpus_stages import document

from data.corpus import tally
from data.corpus.tally import CHANGED, EXAMPLES, EXCERPT, Tally, excerpt_of_change, merged


def test_an_excerpt_begins_shortly_before_the_first_difference():
    same = "".join(chr(97 + number % 26) for number in range(5000))
    found = excerpt_of_change(same + "before" + same, same + "AFTER" + same)
    assert found[0] == "\u2026" and len(found) == EXCERPT + 1
    assert found.index("AFTER") == 1 + EXCERPT // 3
    assert excerpt_of_change("Before it", "After it") == "After it"
    assert excerpt_of_change("the end is gone", "the end") == "the end"


def test_only_shown_examples_are_computed(monkeypatch):
    asked = []
    monkeypatch.setattr(tally, "excerpt_of_change", lambda before, after: asked.append(after) or after)
    found = Tally("step")
    for number in range(10):
        before = document("text", number=number)
        found.note(before, replace(before, text=f"text {number}"))
    assert found.changed == 10
    assert asked == [each["text"] for each in found.examples[CHANGED]]
    assert len(asked) == EXAMPLES


def test_merged_tallies_have_the_first_examples_and_the_sums():
    one, two = Tally("step"), Tally("step")
    for number in range(2):
        one.show("short", f"one {number}", "")
        two.show("short", f"two {number}", "")
    one.note(document("a"), document("a"))
    total = merged([one.as_dict(), two.as_dict()])
    assert [each["id"] for each in total.examples["short"]] == ["one 0", "one 1", "two 0"]
    assert (total.seen, total.kept, total.dropped) == (1, 1, 0)
