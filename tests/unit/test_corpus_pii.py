"""Personal data is masked in every listed form, look-alikes stay, and masking again changes nothing."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from corpus_cases import grows_in_proportion
from corpus_stages import document
from data_cases import shared_file
from hypothesis import given, settings
from hypothesis import strategies as st
from pii_cases import FORMS, LOOK_ALIKES

from data.corpus.pii import Pii
from data.corpus.pii.phones import phones
from data.errors import UserError

PII = Pii()

POSITIVES = [(kind, text, value) for kind, cases in FORMS.items() for text, value in cases]


def masked(text: str, step: Pii = PII) -> str:
    return step.look(document(text)).text


@pytest.mark.parametrize(("kind", "text", "value"), POSITIVES)
def test_every_form_is_masked_and_nothing_else(kind, text, value):
    written = text.replace("{", "").replace("}", "")
    assert f"{{{value}}}" in text
    found = PII.look(document(written))
    assert found.text == text.replace(f"{{{value}}}", f"<{kind}_1>")
    assert found.marks == {"pii": {kind.lower(): 1}}
    assert masked(found.text) == found.text
    off = {"EMAIL": "emails", "ADDRESS": "addresses"}.get(kind, f"{kind.lower()}s")
    others = Pii(
        **{**dict.fromkeys(("emails", "phones", "ips", "cards", "ibans", "names", "addresses"), False), off: True}
    )
    assert masked(written, others) == found.text


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_look_alikes_stay(text):
    kept = document(text)
    assert PII.look(kept) is kept


def test_every_kind_of_data_is_listed_and_the_docs_count_the_cases():
    assert FORMS.keys() == {kind.upper() for kind, _ in PII._finders()}
    counts = f"{len(POSITIVES)} of {len(POSITIVES)}; {len(LOOK_ALIKES)} of {len(LOOK_ALIKES)}"
    assert counts in (Path(__file__).parents[2] / "docs/corpus.md").read_text()


def test_equal_values_get_equal_placeholders_in_the_order_of_their_appearance():
    text = (
        "b@x.org wrote to a@x.org; B@X.ORG called (212) 555-2368, that is +1 212-555-2368, from 8.8.8.8 and "
        "2001:DB8:0:0::8a2e:1, or 2001:db8::8a2e:1. Mr. Smith met Mr. Jones, Mr. Smith's friend."
    )
    found = PII.look(document(text, marks={"quality": 1}))
    assert found.text == (
        "<EMAIL_1> wrote to <EMAIL_2>; <EMAIL_1> called <PHONE_1>, that is <PHONE_1>, from <IP_1> and "
        "<IP_2>, or <IP_2>. Mr. <NAME_1> met Mr. <NAME_2>, Mr. <NAME_1>'s friend."
    )
    assert found.marks == {"quality": 1, "pii": {"email": 3, "phone": 2, "ip": 3, "name": 3}}


def test_placeholders_that_are_there_already_are_not_given_to_others():
    assert masked("<EMAIL_1> and <EMAIL_3> and jo@example.com") == "<EMAIL_1> and <EMAIL_3> and <EMAIL_4>"


def test_a_document_is_masked_the_same_whatever_came_before():
    texts = ["a@x.org and b@x.org", "b@x.org", "Mr. Smith, 8.8.8.8"]
    alone = [Pii().look(document(text)) for text in texts]
    assert [PII.look(document(text)) for text in reversed(texts)] == alone[::-1]
    assert masked("b@x.org") == "<EMAIL_1>"


def test_more_regions_find_more_ways_to_write_a_number():
    spanish = "tel. 912 345 678"
    assert masked(spanish, Pii(regions=("US",))) == spanish
    assert masked(spanish, Pii(regions=("US", "ES"))) == "tel. <PHONE_1>"


def test_four_numbers_with_dots_are_an_address_unless_the_text_says_version():
    assert masked("It is 1.2.3.4 now") == "It is <IP_1> now"
    assert masked("It is version 1.2.3.4 now") == "It is version 1.2.3.4 now"


def test_code_passes_by():
    assert not PII.meant_for(document("x", kind="code"))
    assert all(PII.meant_for(document("x", kind=kind)) for kind in ("web", "text", "book", "scientific", "dialogue"))


def test_arithmetic_is_left_alone():
    answers = [
        json.loads(line)["answer"] for line in Path(shared_file("gsm8k_train.jsonl")).read_text().splitlines()[:500]
    ]
    numbers = Pii(names=False)
    assert sum(masked(answer, numbers) != answer for answer in answers) == 0
    changed = [PII.look(document(answer)) for answer in answers if masked(answer) != answer]
    assert len(changed) < 10, "pupils' teachers: Mr. and Mrs."
    assert all(set(each.marks["pii"]) == {"name"} for each in changed)


PARTS = [text.replace("{", "").replace("}", "") for _, text, _ in POSITIVES] + LOOK_ALIKES
PIECES = (
    st.sampled_from(PARTS)
    | st.sampled_from("<>@.:-_ ()[]+0123456789aBÉ\n,/'")
    | st.sampled_from(
        ["<NAME_1>", "<IP_2>", "Mr. ", "::", "Dear ", "name: ", " Street", " St ", "0800 ", "(at)", " dot "]
    )
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_masking_again_changes_nothing(text):
    once = masked(text)
    assert masked(once) == once


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_passes(text):
    once = masked(text)
    assert masked(once) == once


@pytest.mark.parametrize(
    "piece",
    [
        "a.",
        "1 ",
        "1",
        "1.",
        "1:",
        ":",
        "a@",
        "@",
        "-",
        "A ",
        "(1",
        "0 ",
        "A1",
        "4111 ",
        "Mr. ",
        "\n ",
        "1 A ",
        "de ",
        "[at]",
        "+49 30 901820\n",
    ],
)
def test_time_grows_in_proportion_to_the_text(piece):
    grows_in_proportion(masked, lambda characters: piece * (characters // len(piece)))


def test_time_grows_in_proportion_to_a_street_name():
    grows_in_proportion(masked, lambda characters: "A-" * (characters // 2) + " straße 5 ")


def test_numbers_below_each_other_are_found_in_one_look():
    written = ["+49 30 901820", "(212) 555-2368", "020 7946 0958", "+49 30 901820"]
    text = "\n".join(written)
    found = list(phones(text, PII.regions))
    assert [text[each.start : each.stop] for each in found] == written
    assert masked(text).split() == ["<PHONE_1>", "<PHONE_2>", "<PHONE_3>", "<PHONE_1>"]


def test_digits_beside_a_number_that_are_none_stay():
    assert masked("+49 30 901820\n12 eggs: 5\n1234567") == "<PHONE_1>\n12 eggs: 5\n1234567"


def test_a_wrong_region_is_the_users_error():
    with pytest.raises(UserError, match=r"'usa'.*ISO 3166"):
        Pii(regions=("usa",))
    with pytest.raises(UserError, match="phonenumbers does not know 'XX'"):
        Pii(regions=("XX",)).look(document("call 212-555-2368"))


def test_it_can_be_pickled():
    assert pickle.loads(pickle.dumps(PII)) == PII
    text = document("jo@example.com")
    assert pickle.loads(pickle.dumps(PII)).look(text) == replace(text, text="<EMAIL_1>", marks={"pii": {"email": 1}})
