"""The language of a document: right for sentences, unclear for short texts, and never against the source's own."""

import gzip
import json
import pickle
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
from corpus_cases import record_of
from corpus_stages import document
from data_cases import shared_file

from data.corpus.document import Document
from data.corpus.extract import extract
from data.corpus.languages import LOOKED_AT_CHARACTERS, Language, language_code
from data.corpus.step import Dropped
from data.errors import UserError

SENTENCES = {
    "en": [
        "The ferry leaves the harbour every morning at six, whatever the weather may be.",
        "She had never thought that a garden of this size could feed so many people.",
        "Nobody in the village could remember when the old bridge had been closed.",
    ],
    "de": [
        "Die Fähre verlässt den Hafen jeden Morgen um sechs, ganz gleich wie das Wetter wird.",
        "Sie hätte nie gedacht, dass ein so kleiner Garten so viele Menschen ernähren kann.",
        "Niemand im Dorf wusste noch, wann die alte Brücke gesperrt worden war.",
    ],
    "fr": [
        "Le bateau quitte le port tous les matins à six heures, quel que soit le temps.",
        "Elle n'aurait jamais cru qu'un si petit jardin puisse nourrir autant de monde.",
        "Personne au village ne savait plus quand le vieux pont avait été fermé.",
    ],
    "es": [
        "El barco sale del puerto todas las mañanas a las seis, haga el tiempo que haga.",
        "Nunca habría pensado que un jardín tan pequeño pudiera alimentar a tanta gente.",
        "Nadie en el pueblo recordaba ya cuándo habían cerrado el puente viejo.",
    ],
    "it": [
        "Il traghetto lascia il porto ogni mattina alle sei, qualunque tempo faccia.",
        "Non avrebbe mai pensato che un giardino così piccolo potesse sfamare tanta gente.",
        "Nessuno in paese ricordava più quando il vecchio ponte era stato chiuso.",
    ],
    "nl": [
        "De veerboot verlaat elke ochtend om zes uur de haven, wat voor weer het ook is.",
        "Ze had nooit gedacht dat zo'n kleine tuin zoveel mensen kon voeden.",
        "Niemand in het dorp wist nog wanneer de oude brug was afgesloten.",
    ],
    "ru": [
        "Паром уходит из гавани каждое утро в шесть часов, какая бы ни была погода.",
        "Она никогда не думала, что такой маленький сад может прокормить столько людей.",
        "Никто в деревне уже не помнил, когда закрыли старый мост.",
    ],
    "zh": ["不管天气怎么样，渡船每天早上六点离开港口。", "她从来没有想到这么小的花园能养活这么多人。"],
    "ja": [
        "どんな天気でも、フェリーは毎朝六時に港を出ます。",
        "村の誰も、古い橋がいつ閉鎖されたのか覚えていませんでした。",
    ],
    "ar": [
        "تغادر العبارة الميناء كل صباح في الساعة السادسة مهما كان الطقس.",
        "لم يعد أحد في القرية يتذكر متى أغلق الجسر القديم.",
    ],
}
PAIRS = [(language, sentence) for language, sentences in SENTENCES.items() for sentence in sentences]


@pytest.mark.parametrize(("language", "sentence"), PAIRS)
def test_a_sentence_is_enough(language, sentence):
    found = Language().look(document(sentence))
    assert found.language == language
    assert 0.5 <= found.marks["language_score"] <= 1
    assert replace(found, language="", marks={}) == document(sentence)


@pytest.mark.parametrize(("characters", "right", "sure"), [(10, 0.81, 0.41), (20, 0.89, 0.81), (40, 1, 1)])
def test_short_texts_are_hard_but_the_score_says_so(characters, right, sure):
    """The figures of the module's docstring, of the beginnings of all sentences."""
    found = [(language, Language(at_least=0).look(document(text[:characters]))) for language, text in PAIRS]
    assert sum(language == each.language for language, each in found) / len(found) == pytest.approx(right, abs=0.01)
    clear = [(language, each.language) for language, each in found if each.marks["language_score"] >= 0.5]
    assert len(clear) / len(found) == pytest.approx(sure, abs=0.01)
    assert all(language == guess for language, guess in clear)


def test_other_languages_are_dropped_by_name():
    german = document(SENTENCES["de"][0])
    assert Language(allowed=("en",)).look(german) == Dropped("language de, wanted en")
    assert Language(allowed=("en", "fr")).look(german) == Dropped("language de, wanted en, fr")
    assert Language(allowed=("en", "de")).look(german).language == "de"


@pytest.mark.parametrize("text", ["", "12345 67890 == 3", "ok", " \n"])
def test_text_without_a_language_is_unclear(text):
    assert Language(allowed=("en",)).look(document(text)) == Dropped("language unclear, wanted en")
    assert Language().look(document(text)).language == ""


def test_the_language_of_the_source_has_precedence():
    given = document(SENTENCES["de"][0], language="lb")
    assert Language().look(given) is given
    assert Language(allowed=("lb",)).look(given) is given
    assert Language(allowed=("de",)).look(given) == Dropped("language lb, wanted de")


@pytest.mark.parametrize(("said", "kept"), [("EN", True), ("en_Latn", True), ("English", True), ("fr-CA", False)])
def test_a_rows_own_language_is_taken_in_any_spelling(said, kept):
    record = record_of(SENTENCES["en"][0], "text", "a.jsonl", language=said)
    found = Language(allowed=("en",)).look(extract(record)[0])
    assert found.language == "en" if kept else found == Dropped("language fr, wanted en")


@pytest.mark.parametrize("said", ["alice@example.org", "Ich heiße Eva", "e", "engl", "12"])
def test_reasons_do_not_quote_the_language_column(said):
    assert language_code(said) == ""
    found = Language(allowed=("fr",)).look(extract(record_of("ok", "text", "a.jsonl", language=said))[0])
    assert found == Dropped("language unclear, wanted fr")


def test_other_marks_stay_and_only_the_beginning_is_read():
    long = document((SENTENCES["en"][0] + " ") * 100, marks={"quality": 0.5})
    assert len(long.text) > 2 * LOOKED_AT_CHARACTERS
    found = Language().look(long)
    assert (found.marks["quality"], found.language) == (0.5, "en")
    other_end = document(long.text[:LOOKED_AT_CHARACTERS] + SENTENCES["ru"][0] * 500, marks={"quality": 0.5})
    assert Language().look(other_end).marks == found.marks


def test_real_dialogues_and_plays_are_english():
    play = Path(shared_file("tinyshakespeare.txt")).read_text()
    with gzip.open(shared_file("hh_harmless.jsonl.gz"), "rt") as file:
        texts = [json.loads(line)["chosen"] for line, _ in zip(file, range(200))]
    texts += [play[start : start + 500] for start in range(0, 100_000, 500)]
    step = Language(allowed=("en",))
    kept = sum(isinstance(step.look(document(text)), Document) for text in texts)
    assert kept / len(texts) > 0.99


def test_code_passes_by():
    assert not Language().meant_for(replace(document("x = 1"), kind="code"))
    assert Language().meant_for(replace(document("x = 1"), kind="dialogue"))


def test_a_used_step_is_pickled_without_its_model():
    step = Language(allowed=("en",))
    step.look(document(SENTENCES["en"][0]))
    assert len(pickle.dumps(step)) < 1000
    assert pickle.loads(pickle.dumps(step)) == step


def raises(call, *parts: str) -> None:
    with pytest.raises(UserError) as error:
        call()
    assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value)


def test_wrong_settings_are_the_users_error(tmp_path):
    raises(lambda: Language(allowed=("english",)), "'english'", "ISO 639")
    raises(lambda: Language(allowed=("qq",)).look(document("x")), "langid does not know 'qq'", "en")
    raises(lambda: Language(identifier="fasttext"), "lid.176.bin")
    raises(lambda: Language(model="lid.176.bin"), "identifier: fasttext")


class FastText:
    """Stands for fasttext.FastText._FastText, whose `predict` refuses line breaks."""

    def __init__(self, path: str):
        assert Path(path).is_file()

    def get_labels(self):
        return ["__label__en", "__label__de"]

    def predict(self, text: str, k: int):
        assert "\n" not in text and k == 1
        return ("__label__de",), [0.75]


def test_fasttext_reads_a_local_model(tmp_path, monkeypatch):
    model = tmp_path / "lid.176.bin"
    step = Language(allowed=("de",), identifier="fasttext", model=str(model))
    monkeypatch.setitem(sys.modules, "fasttext", None)
    monkeypatch.setitem(sys.modules, "fasttext.FastText", None)
    raises(lambda: step.look(document("eins\nzwei")), "pip install fasttext-numpy2-wheel")
    monkeypatch.setitem(sys.modules, "fasttext", types.ModuleType("fasttext"))
    monkeypatch.setitem(sys.modules, "fasttext.FastText", types.SimpleNamespace(_FastText=FastText))
    raises(lambda: step.look(document("eins\nzwei")), str(model), "https://")
    model.write_bytes(b"model")
    found = step.look(document("eins\nzwei"))
    assert (found.language, found.marks["language_score"]) == ("de", 0.75)
