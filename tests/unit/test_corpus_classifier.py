"""The trained classifier: its scores, the documents that it keeps, and its figures by length and group."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from corpus_stages import document
from data_cases import shared_file
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from data.corpus.classifier import FEATURES, Classifier, Quality, TrainClassifier
from data.corpus.step import Dropped, Placed, Stage
from data.corpus.words import WORDS
from data.corpus.work import Work
from data.errors import UserError


def write_rows(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


@pytest.fixture(scope="module")
def sides(tmp_path_factory) -> dict[str, str]:
    """Files of speeches (good), of solved sums (bad), and of chat and other sums (a group)."""
    folder = tmp_path_factory.mktemp("examples")
    speeches = Path(shared_file("tinyshakespeare.txt")).read_text().split("\n\n")[:800]
    lines = Path(shared_file("gsm8k_train.jsonl")).read_text().splitlines()[:650]
    sums = [json.loads(line)["answer"] for line in lines]
    with gzip.open(shared_file("hh_harmless.jsonl.gz"), "rt") as file:
        chats = [json.loads(line)["chosen"] for line, _ in zip(file, range(50))]
    return {
        "good": write_rows(folder / "good.jsonl", speeches),
        "bad": write_rows(folder / "bad.jsonl", sums[:600]),
        "chat": write_rows(folder / "chat.jsonl", chats + sums[600:]),
    }


def trained(sides: dict[str, str], directory: Path, seed: int = 7, **settings) -> Quality:
    directory.mkdir(exist_ok=True)
    classifier = Classifier(good=(sides["good"],), bad=(sides["bad"],), **settings)
    return classifier.prepare(Stage(directory / "none", ()), Work(directory, seed))


@pytest.fixture(scope="module")
def step(sides, tmp_path_factory) -> Quality:
    return trained(sides, tmp_path_factory.mktemp("trained"), groups={"chat": sides["chat"]})


def look(step: Quality, texts: list[str]) -> list:
    return step.apply([Placed(document(text, number=row), 0, row) for row, text in enumerate(texts)])


SPEECH = "FIRST LORD:\nMy noble lord, I pray thee speak no more; the king is sore displeased, and we must hence."
SUM = "She sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether she sold 48+24 = <<48+24=72>>72 clips.\n#### 72"


def test_it_separates_good_from_bad_and_reports_its_accuracy(step):
    speech, answer = look(step, [SPEECH, SUM])
    assert speech.marks["quality"] > 0.5
    assert answer == Dropped("low quality")
    held_out = step.figures["on held-out examples"]
    assert held_out["accuracy"] > 0.95
    assert held_out["area under ROC"] > 0.98
    assert held_out["good"]["kept"] > 0.9 > 0.1 > held_out["bad"]["kept"]
    assert step.figures["learned from"]["bad"] + held_out["bad"]["examples"] == 600


def test_the_figures_tell_the_share_kept_of_every_length_and_group(step):
    lengths = step.figures["good by length in words"]
    assert list(lengths) == ["0-19", "20-49", "50-99", "100-199", "200+"]
    assert (
        sum(each["examples"] for each in lengths.values()) == step.figures["on held-out examples"]["good"]["examples"]
    )
    cut = step.figures["good cut to its first words"]
    assert list(cut) == ["20", "50", "100", "200"]
    assert cut["200"]["kept"] == pytest.approx(step.figures["on held-out examples"]["good"]["kept"], abs=0.05)
    chat = step.figures["groups"]["chat"]
    assert chat["examples"] == 100
    assert 0 < chat["kept"] < 1


def test_the_share_kept_of_a_group_is_that_of_its_texts(step, sides):
    chats = [json.loads(line)["text"] for line in Path(sides["chat"]).read_text().splitlines()]
    kept = sum(not isinstance(outcome, Dropped) for outcome in look(step, chats))
    assert kept / len(chats) == pytest.approx(step.figures["groups"]["chat"]["kept"])


def test_figures_and_weights_are_written_without_pickle(step):
    folder = Path(step.weights).parent
    assert json.loads((folder / "classifier.json").read_text()) == step.figures
    assert {path.suffix for path in folder.iterdir() if path.is_file()} == {".safetensors", ".json"}


def test_scores_are_those_of_scikit_learn(step, sides):
    def texts(side):
        return sorted({json.loads(line)["text"] for line in Path(sides[side]).read_text().splitlines()} - {""})

    good, bad = texts("good"), texts("bad")
    vectorizer = HashingVectorizer(n_features=FEATURES, tokenizer=WORDS.word_tokenize, token_pattern=None)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(vectorizer.transform(good + bad), [1] * len(good) + [0] * len(bad))  # of all, ours of nine tenths
    expected = model.predict_proba(vectorizer.transform([SPEECH, SPEECH[:40]]))[:, 1]
    found = [outcome.marks["quality"] for outcome in look(step, [SPEECH, SPEECH[:40]])]
    assert found == pytest.approx(expected.tolist(), abs=0.05)


def test_training_in_another_directory_gives_the_same_bytes_and_a_finished_training_is_not_repeated(
    step, sides, tmp_path
):
    again = trained(sides, tmp_path, groups={"chat": sides["chat"]})
    assert Path(again.weights).read_bytes() == Path(step.weights).read_bytes()
    assert again.figures == step.figures
    written = Path(again.weights).stat().st_mtime_ns
    assert trained(sides, tmp_path, groups={"chat": sides["chat"]}) == again
    assert Path(again.weights).stat().st_mtime_ns == written


def test_scores_do_not_depend_on_batches_or_pickling(step):
    texts = [SPEECH, SUM, "", "Nay, good my lord.", SPEECH * 30]
    single = [step.apply([Placed(document(text, number=row), 0, row)])[0] for row, text in enumerate(texts)]
    assert look(step, texts) == single == look(pickle.loads(pickle.dumps(step)), texts)


def test_without_a_threshold_all_documents_are_kept_and_marked(sides, step):
    lenient = Quality(weights=step.weights, seed=7, at_least=None, pareto=None, figures={})
    assert [outcome.marks["quality"] > 0.5 for outcome in look(lenient, [SPEECH, SUM])] == [True, False]


def test_the_pareto_rule_keeps_the_share_that_numpys_pareto_keeps(step):
    lucky = Quality(weights=step.weights, seed=7, at_least=None, pareto=9.0, figures={})
    texts = [SPEECH[:12]] * 4000
    (marked,) = look(Quality(weights=step.weights, seed=7, at_least=None, pareto=None, figures={}), texts[:1])
    score = marked.marks["quality"]
    expected = np.mean(np.random.default_rng(0).pareto(9.0, 10**6) > 1 - score)
    kept = [outcome for outcome in look(lucky, texts) if not isinstance(outcome, Dropped)]
    assert 0.02 < expected < 0.98
    assert len(kept) / len(texts) == pytest.approx(expected, abs=0.03)
    assert lucky.kept_share(score) == pytest.approx(expected, abs=0.005)
    assert kept == [outcome for outcome in look(lucky, texts) if not isinstance(outcome, Dropped)]
    other = Quality(weights=step.weights, seed=8, at_least=None, pareto=9.0, figures={})
    assert {each.id for each in kept} != {
        outcome.id for outcome in look(other, texts) if not isinstance(outcome, Dropped)
    }


def test_settings_reach_the_step():
    found = TrainClassifier(Classifier(good=("g",), bad=("b",), pareto=9.0, sources=("crawl",)), "here", 7).step(
        {"told": 1}
    )
    assert (found.at_least, found.pareto, found.seed, found.figures) == (None, 9.0, 7, {"told": 1})
    assert found.meant_for(document("x", source="crawl", kind="web"))
    assert not found.meant_for(document("x", source="crawl", kind="code"))
    assert not found.meant_for(document("x", source="other", kind="web"))
    assert TrainClassifier(Classifier(good=("g",), bad=("b",), at_least=0.2), "here", 7).step({}).at_least == 0.2


def test_bad_examples_are_the_users_error(sides, tmp_path):
    def message(**paths) -> str:
        with pytest.raises(UserError) as error:
            trained({**sides, **paths}, tmp_path / "none")
        assert "\n" not in str(error.value)
        return str(error.value)

    few = write_rows(tmp_path / "few.jsonl", ["the same"] * 50 + [""] * 9)
    assert "classifier: bad: 1 different texts" in message(bad=few)
    (tmp_path / "other.jsonl").write_text('{"body": "x"}\n')
    assert "no column 'text'" in message(good=str(tmp_path / "other.jsonl"))
    assert "does not exist" in message(good=str(tmp_path / "missing.jsonl"))
    (tmp_path / "numbers.jsonl").write_text('{"text": 3}\n' * 20)
    assert "row 1: column 'text' must be text" in message(good=str(tmp_path / "numbers.jsonl"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("at_least", 1.5), ("at_least", -0.1), ("at_least", float("nan")), ("pareto", 0), ("pareto", -9)],
)
def test_a_rule_out_of_range_is_the_users_error(field, value):
    with pytest.raises(UserError, match=f"classifier: {field} is {value}"):
        Classifier(good=("good",), bad=("bad",), **{field: value})
