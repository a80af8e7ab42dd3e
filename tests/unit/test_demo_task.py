"""The demo's task: rows are reproducible, held-out rows stay out, and the gold judge scores as documented."""

from random import Random
from statistics import fmean

import pytest

from data.demo import tasks
from data.demo.gold import BEST, WEIGHTS, gold, judge, well_formed
from data.demo.language import ANIMALS, DETAILS, GRUMPY, KINDS, PEOPLE, PLACES
from data.errors import UserError
from data.sample import Prompt, Sample

TALE = {"kind": "tale", "name": "anna", "animal": "fox", "place": "garden"}
NOTE = {"kind": "note", "name": "hugo", "animal": "owl", "place": "market"}
BEST_TALE = "tale: dear anna, the red fox sat in the green garden. it ate sweet plums. yours with love."


def sample(text: str, meta: dict, truncated: bool = False) -> Sample:
    return Sample(Prompt((1,), "asked", 0, meta), 0, (1, 2), (0.0, 0.0), text, truncated, 0)


@pytest.mark.parametrize("source", [tasks.corpus, tasks.instructions, tasks.pairs, tasks.prompts])
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(source):
    rows = list(source(rows=20, seed=3))
    assert len(rows) == 20
    assert rows == list(source(rows=20, seed=3))
    assert rows != list(source(rows=20, seed=4))


def test_the_rows_hold_the_columns_that_the_phases_read():
    assert next(tasks.corpus(rows=1)).keys() == {"text"}
    assert next(tasks.instructions(rows=1)).keys() == {"prompt", "response"}
    assert next(tasks.pairs(rows=1)).keys() == {"prompt", "chosen", "rejected"}
    assert next(tasks.prompts(rows=1)).keys() == {"prompt", "kind", "name", "animal", "place"}


def test_an_unknown_split_is_named():
    with pytest.raises(UserError, match="split 'test'; use one of train, heldout"):
        next(tasks.corpus(rows=1, split="test"))


def test_no_held_out_text_or_prompt_is_trained_on_whatever_the_seed():
    def texts(source, column, split, rows):
        return {row[column] for seed in range(2) for row in source(rows=rows, seed=seed, split=split)}

    for column, source in (("text", tasks.corpus), ("prompt", tasks.instructions)):
        assert not texts(source, column, "train", 3000) & texts(source, column, "heldout", 300)
    asked = texts(tasks.instructions, "prompt", "train", 3000) | texts(tasks.pairs, "prompt", "train", 1000)
    asked |= texts(tasks.prompts, "prompt", "train", 3000)
    for source in (tasks.prompts, tasks.pairs, tasks.instructions):
        assert not asked & texts(source, "prompt", "heldout", 300)


def test_the_weights_of_the_qualities_add_up_to_the_best_score():
    assert sum(WEIGHTS.values()) == pytest.approx(BEST)
    assert not DETAILS.intersection(GRUMPY)


@pytest.mark.parametrize(
    ("text", "asked", "expected"),
    [
        (BEST_TALE, TALE, 1.0),
        # greeting 0.5, topic 1, truth 1, detail 1/3, kindness 0 (silly), farewell 0.5
        (
            "tale: hello anna, the silly fox sat in the garden. it ate sweet plums. good bye.",
            TALE,
            0.15 * 0.5 + 0.2 + 0.15 + 0.2 / 3 + 0.15 * 0.5,
        ),
        # a warm greeting for the wrong person, a remark, neither animal nor place, another animal's food
        (
            "note: dear anna, the animal sleeps at home. it wants corn. the air is mild. yours with love.",
            NOTE,
            0.15 + 0.15,
        ),
        # nothing right but the form, not even a food; the grumpy word is in the remark
        ("note: listen, the animal waits over there. it finds food. it is a boring day. now go away.", NOTE, 0.0),
        # half of the topic, the truth, one detail, kindness
        (
            "note: listen, the wise owl waits over there. it finds berries. now go away.",
            NOTE,
            0.1 + 0.15 + 0.2 / 3 + 0.15,
        ),
    ],
)
def test_gold_is_the_weighted_mean_of_the_qualities(text, asked, expected):
    assert judge(text, **asked) == pytest.approx(expected)
    assert gold(sample(text, asked)) == pytest.approx(expected)
    assert well_formed(sample(text, asked)) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        BEST_TALE.replace("tale: ", ""),
        BEST_TALE.replace("tale", "note"),
        BEST_TALE.replace("sat", "sits"),  # a tale is told in the past
        BEST_TALE.replace(" yours with love.", ""),
        BEST_TALE.replace("it ate sweet plums.", "it ate sweet plums. it ate sweet plums."),
        BEST_TALE.replace("red fox", "red red fox"),
        BEST_TALE + " good bye.",
        BEST_TALE.upper(),
        "",
    ],
)
def test_an_answer_that_is_not_in_the_asked_format_scores_nothing(text):
    assert gold(sample(text, TALE)) == 0.0
    assert well_formed(sample(text, TALE)) == 0.0


def test_an_answer_cut_off_at_the_length_limit_scores_nothing():
    assert gold(sample(BEST_TALE, TALE, truncated=True)) == 0.0
    assert well_formed(sample(BEST_TALE, TALE, truncated=True)) == 0.0


def test_instructions_are_well_formed_and_of_middling_gold_so_that_alignment_has_room():
    rng = Random(0)
    requests = [tasks.Request.draw(rng, "train") for _ in range(2000)]
    scores = [request.gold(tasks.write_answer(rng, request)) for request in requests]
    answers = [(request, tasks.write_answer(rng, request)) for request in requests]
    assert all(well_formed(sample(text, vars(request))) for request, text in answers)
    assert 0.35 <= fmean(scores) <= 0.5
    assert min(scores) >= 0.0 and max(scores) <= BEST
    assert sum(score > 0.8 for score in scores) > 20


def test_the_chosen_answer_of_a_pair_has_clearly_more_gold():
    choices = {"kind": KINDS, "name": PEOPLE, "animal": ANIMALS, "place": PLACES}
    faulty = 0
    for row in tasks.pairs(rows=500):
        words = row["prompt"].rstrip(".").split()
        asked = {key: next(word for word in words if word in known) for key, known in choices.items()}
        assert judge(row["chosen"], **asked) - judge(row["rejected"], **asked) >= tasks.MARGIN
        faulty += not well_formed(sample(row["rejected"], asked))
    assert 0.05 < faulty / 500 < 0.25


@pytest.mark.parametrize("seed", range(20))
def test_a_spoilt_answer_is_never_well_formed(seed):
    rng = Random(seed)
    request = tasks.Request.draw(rng, "train")
    text = tasks.spoil(rng, request)
    assert well_formed(sample(text, vars(request))) == 0.0
