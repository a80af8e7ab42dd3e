"""Words and sentences: in every script, fast, and as datatrove uses them."""

import pytest
from corpus_cases import grows_in_proportion
from datatrove.utils.text import split_into_sentences, split_into_words
from datatrove.utils.word_tokenizers import load_word_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from data.corpus.words import WORDS, datatrove_words

TEXTS = st.text(st.sampled_from("aB é文ท์ि\u0301.!?。…\n\t\"'’-_1,0*—") | st.characters(), max_size=60)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't panic, it's l’eau!", ["Don't", "panic", "it's", "l’eau"]),
        ("'quoted' words'", ["quoted", "words"]),
        ("state-of-the-art", ["state", "of", "the", "art"]),
        ("1,234.50 and 3.14. Or 1,2,3", ["1,234.50", "and", "3.14", "Or", "1,2,3"]),
        ("naïve café cafe\u0301", ["naïve", "café", "cafe\u0301"]),
        ("snake_case x2", ["snake_case", "x2"]),
        ("我们去 東京", ["我", "们", "去", "東", "京"]),
        ("iPhoneの値段", ["iPhone", "の", "値", "段"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("หิมะ", ["หิ", "ม", "ะ"]),
        ("Привет, мир", ["Привет", "мир"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("one — two *** • three, (four)", ["one", "—", "two", "***", "•", "three", "four"]),
        ("", []),
        (" \n\t", []),
    ],
)
def test_words_of_every_script(text, words):
    assert WORDS.word_tokenize(text) == words
    assert split_into_words(text, datatrove_words()) == words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ('He said "Go." Then he left! Why?', ['He said "Go."', "Then he left!", "Why?"]),
        ("J. Smith and A. B. Jones came.  Late.", ["J. Smith and A. B. Jones came.", "Late."]),
        ("It costs 3.50, e.g. today... or later.", ["It costs 3.50, e.g. today... or later."]),
        ("See example.com. It has v1.2.", ["See example.com.", "It has v1.2."]),
        ("你好。好吗？“好！”他说。", ["你好。", "好吗？", "“好！”", "他说。"]),
        ("यह है। वह था।", ["यह है।", "वह था।"]),
        ("A title\n\nThe text goes\non here. End", ["A title", "The text goes\non here.", "End"]),
        ("\n \n", []),
        ("", []),
    ],
)
def test_sentences(text, sentences):
    assert WORDS.sent_tokenize(text) == sentences


@given(TEXTS)
def test_spans_are_the_sentences_in_order_and_leave_out_white_space_only(text):
    spans = WORDS.span_tokenize(text)
    assert [text[a:b] for a, b in spans] == WORDS.sent_tokenize(text)
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    assert edges == sorted(edges)
    assert not any(text[a:b].strip() for a, b in zip(edges[::2], edges[1::2]))


@given(TEXTS)
def test_datatrove_gets_the_whole_text_in_sentences(text):
    assert load_word_tokenizer(datatrove_words()) is WORDS
    assert "".join(split_into_sentences(text, datatrove_words())) in (text, "")
    assert bool(WORDS.sent_tokenize(text)) == bool(text.strip())


@given(TEXTS)
def test_words_are_in_the_text_in_order_and_no_letter_or_digit_is_left_out(text):
    place, left = 0, []
    for word in WORDS.word_tokenize(text):
        found = text.index(word, place)
        left.append(text[place:found])
        place = found + len(word)
    assert not any(character.isalnum() for character in "".join([*left, text[place:]]))


@pytest.mark.parametrize(("piece", "end"), [(".", "a"), (" ", ""), ("\n", ""), ("'", ""), ("a.", ""), ("-", "a")])
def test_time_grows_in_proportion_to_the_text(piece, end):
    for tokenize in (WORDS.word_tokenize, WORDS.sent_tokenize):
        grows_in_proportion(tokenize, lambda characters: piece * (characters // len(piece)) + end)
