from __future__ import annotations

import pytest

from data.errors import UserError
from data.sample import Prompt, Sample
from rlhf.config.rewards import Reward
from rlhf.named import build
from rlhf.rewards.reward_sources import find
from rlhf.rewards.rules import RULES, ForbiddenWords, Format, Json, Length, Regex, Repetition, numeric_answer


def sample(text, row=0, tokens=(3, 4), sampled=(), **meta):
    return Sample(Prompt((1, 2), "question", row, meta), 0, tokens, (-0.5,) * len(tokens), text, False, 1, sampled)


@pytest.mark.parametrize(
    ("text", "answer", "score"),
    [
        ("so 40 + 32 = 72", "48+24 = <<48+24=72>>72 clips.\n#### 72", 1.0),
        ("#### 72\n\nQuestion 5", "#### 72", 1.0),
        ("It costs $1,234.50.", 1234.5, 1.0),
        ("the answer is -3", "-3", 1.0),
        ("16-3", 3, 1.0),
        ("72.0", 72, 1.0),
        ("720", 72, 0.0),
        ("1, 2, 3", 123, 0.0),
        (".5", 0.5, 1.0),
        ("no idea", 72, 0.0),
        ("72 ####", 72, 0.0),
    ],
)
def test_numeric_answer(text, answer, score):
    assert numeric_answer(sample(text, answer=answer)) == score


def test_numeric_answer_says_which_row_lacks_an_answer():
    with pytest.raises(UserError, match=r"row 4 has no column 'answer' \(further columns: solution\)"):
        numeric_answer(sample("72", row=4, solution="72"))
    with pytest.raises(UserError, match="prompt row 4: no number in its answer 'many'"):
        numeric_answer(sample("72", row=4, answer="many"))


@pytest.mark.parametrize(
    ("rule", "text", "score"),
    [
        (Regex(r"\d+"), "about 40 of them", 1.0),
        (Regex(r"\d+"), "none", 0.0),
        (Regex(r"\d+", "full", 0.5), "40", 0.5),
        (Regex(r"\d+", "full"), "40 of them", 0.0),
    ],
)
def test_regex(rule, text, score):
    assert rule(sample(text)) == score


def test_a_regex_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"regex: pattern '\(': missing \), unterminated subpattern"):
        Regex("(")


@pytest.mark.parametrize(
    ("words", "score"), [(0, 0.0), (8, 0.5), (10, 1.0), (20, 1.0), (21, 0.75), (23, 0.25), (24, 0.0), (99, 0.0)]
)
def test_length_falls_linearly_outside_its_range(words, score):
    assert Length(low=10, high=20, falloff=4)(sample("word " * words)) == score


def test_length_counts_characters_words_or_the_tokens_that_the_policy_wrote():
    told = sample("ab c", tokens=(3, 4, 5, 6, 7), sampled=(True, True, False, False, True))
    assert [Length(unit=unit).measured(told) for unit in ("characters", "words", "tokens")] == [4, 2, 3]
    assert Length(unit="tokens").measured(sample("ab c")) == 2
    assert Length(high=1)(sample("two words")) == 0  # without a falloff the range is sharp
    with pytest.raises(UserError, match="high 1 is below low 2"):
        Length(low=2, high=1)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>2 + 2\nis 4</think>\n<answer>4</answer>\n", 1.0),
        ("<think></think><answer></answer>", 1.0),
        ("<think>2</think> so <answer>4</answer>", 0.0),
        ("Well, <think>2</think><answer>4</answer>", 0.0),
        ("<think>2</think><answer>4</answer> Bye.", 0.0),
        ("<answer>4</answer><think>2</think>", 0.0),
        ("<think>2</think><answer>4</answer><answer>5</answer>", 0.0),
        ("<think>2<answer>4</answer></think>", 0.0),
        ("</think><think><answer>4</answer>", 0.0),
        ("<think>2</think><answer>4", 0.0),
        ("", 0.0),
    ],
)
def test_format_wants_each_tag_once_in_order_and_nothing_else(text, score):
    assert Format()(sample(text)) == score


def test_json_may_need_keys():
    assert [Json()(sample(text)) for text in ("[1]", "{'a': 1}", "[" * 10**6)] == [1, 0, 0]
    assert [Json(("a", "b"))(sample(text)) for text in ('{"a": 1, "b": 2, "c": 3}', '{"a": 1}', '["a", "b"]')] == [
        1,
        0,
        0,
    ]


def test_forbidden_words_are_whole_words_in_any_case():
    rule = ForbiddenWords(("ass", "as an AI", "c++"), penalty=0.5)
    assert rule(sample("A class of grass, assessed.")) == 0
    assert rule(sample("ASS! As an ai, an ass.")) == -1.5
    assert rule(sample("I write C++.")) == -0.5
    with pytest.raises(UserError, match="wanted at least one, and none empty"):
        ForbiddenWords(())


def test_repetition_is_minus_the_share_of_ngrams_said_before():
    assert Repetition(n=2)(sample("a b a b a b")) == pytest.approx(-3 / 5)  # ab ba ab ba ab
    assert Repetition(n=2)(sample("one two three")) == 0
    assert Repetition(n=3)(sample("too short")) == 0
    assert Repetition(n=1)(sample("no " * 100)) == pytest.approx(-0.99)
    with pytest.raises(UserError, match="n must be at least 1"):
        Repetition(0)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("length", {"hihg": 3}, "reward 'length' has no parameter 'hihg'; did you mean 'high'?"),
        ("length", {"unit": "lines"}, "reward 'length': unit: Input should be 'characters', 'words' or 'tokens'"),
        ("regex", {}, "reward 'regex': pattern: Field required"),
        ("forbidden_words", {"words": ["a", " "]}, "none empty"),
    ],
)
def test_parameters_of_a_rule_are_checked(name, args, message):
    with pytest.raises(UserError, match=message):
        find(Reward(source=name, args=args))


def test_every_rule_is_found_by_its_name():
    args = {"regex": {"pattern": "x"}, "forbidden_words": {"words": ["x"]}}
    for name in RULES:
        assert callable(getattr(find(Reward(source=name, args=args.get(name, {}))), "target", len))
    assert build("reward", "forbidden_words", {"words": ["x"]}, RULES) == ForbiddenWords(("x",))
