"""Personal data is masked in every listed form, what only looks like it stays, and masking again changes nothing."""

import json
import pickle
import time
from dataclasses import replace
from pathlib import Path

import pytest
from corpus_stages import document
from data_cases import shared_file
from hypothesis import given, settings
from hypothesis import strategies as st

from data.corpus.pii import Pii
from data.errors import UserError

PII = Pii()

FORMS = {
    "EMAIL": [
        ("Write to {jo@example.com}.", "jo@example.com"),
        ("<{jo.van-doe+news@mail.example.co.uk}>", "jo.van-doe+news@mail.example.co.uk"),
        ("mailto:{JO_1@Example.ORG}?subject=x", "JO_1@Example.ORG"),
        ("'{o'neill@example.ie}'", "o'neill@example.ie"),
        ("{jürgen@bücher.example}", "jürgen@bücher.example"),
        ("{x@y.io},z", "x@y.io"),
        ("{jo(at)example.com}", "jo(at)example.com"),
        ("{jo [at] example [dot] com} or so", "jo [at] example [dot] com"),
        ("admin is {root@[192.168.0.1]}", "root@[192.168.0.1]"),
        ("{почта@пример.рф}", "почта@пример.рф"),
        ("{a@b.museum}", "a@b.museum"),
    ],
    "IP": [
        ("from {8.8.8.8}", "8.8.8.8"),
        ("({192.168.1.20})", "192.168.1.20"),
        ("{10.0.0.1}:8080 answers", "10.0.0.1"),
        ("http://{93.184.216.34}/path", "93.184.216.34"),
        ("{172.16.0.0}/12", "172.16.0.0"),
        ("It was {203.0.113.7}.", "203.0.113.7"),
        ("{2001:db8::8a2e:370:7334}", "2001:db8::8a2e:370:7334"),
        ("[{2001:0db8:85a3:0000:0000:8a2e:0370:7334}]:443", "2001:0db8:85a3:0000:0000:8a2e:0370:7334"),
        ("{fe80::1ff:fe23:4567:890a}%eth0", "fe80::1ff:fe23:4567:890a"),
        ("{::ffff:192.0.2.128}", "::ffff:192.0.2.128"),
    ],
    "CARD": [
        ("Visa {4111 1111 1111 1111}", "4111 1111 1111 1111"),
        ("{4111111111111111}", "4111111111111111"),
        ("{5500-0000-0000-0004}, 12/27", "5500-0000-0000-0004"),
        ("{2223003122003222}", "2223003122003222"),
        ("Amex {3782 822463 10005}", "3782 822463 10005"),
        ("{371449635398431}", "371449635398431"),
        ("Discover {6011000990139424}", "6011000990139424"),
        ("JCB {3530111333300000}", "3530111333300000"),
        ("Diners {30569309025904}", "30569309025904"),
        ("old {4222222222222}.", "4222222222222"),
    ],
    "IBAN": [
        ("{DE89 3704 0044 0532 0130 00}", "DE89 3704 0044 0532 0130 00"),
        ("IBAN: {GB82WEST12345698765432}", "GB82WEST12345698765432"),
        ("{FR14 2004 1010 0505 0001 3M02 606} AND", "FR14 2004 1010 0505 0001 3M02 606"),
    ],
    "PHONE": [
        ("Call {(212) 555-2368} now", "(212) 555-2368"),
        ("{212-555-2368}", "212-555-2368"),
        ("{212.555.2368},", "212.555.2368"),
        ("{+1 212 555 2368}", "+1 212 555 2368"),
        ("{+12125552368}", "+12125552368"),
        ("{1-800-356-9377}", "1-800-356-9377"),
        ("{(212) 555-2368 ext. 12}", "(212) 555-2368 ext. 12"),
        ("phone: {2125552368}", "2125552368"),
        ("call {555-2368}", "555-2368"),
        ("{+44 20 7946 0958}", "+44 20 7946 0958"),
        ("{+44 (0)20 7946 0958}", "+44 (0)20 7946 0958"),
        ("{020 7946 0958}", "020 7946 0958"),
        ("{07911 123456}", "07911 123456"),
        ("{+49 30 901820}", "+49 30 901820"),
        ("Tel. {030/901820}", "030/901820"),
        ("{+49 (0) 171 1234567}", "+49 (0) 171 1234567"),
        ("{0049 30 901820}", "0049 30 901820"),
        ("{01 42 68 53 00}", "01 42 68 53 00"),
        ("{+33 1 42 68 53 00}", "+33 1 42 68 53 00"),
        ("{+91 98765 43210}", "+91 98765 43210"),
        ("{+86 10 6552 9988}", "+86 10 6552 9988"),
    ],
    "NAME": [
        ("Mr. {Smith} left.", "Smith"),
        ("Mrs {Anna Maria Jones} and", "Anna Maria Jones"),
        ("Dr. {J. R. Miller}'s office", "J. R. Miller"),
        ("Prof. Dr. {Müller} lehrt", "Müller"),
        ("Frau {von der Leyen} sagt", "von der Leyen"),
        ("Miss {O'Hara}, please", "O'Hara"),
        ("Hello, my name is {Jane Doe} and", "Jane Doe"),
        ("my name is {Bob}.", "Bob"),
        ("I am {Ludwig van Beethoven}, composer", "Ludwig van Beethoven"),
        ("I'm {Jane Doe}.", "Jane Doe"),
        ("Ich heiße {Jürgen Groß} und", "Jürgen Groß"),
        ("Je m'appelle {Zoé}.", "Zoé"),
        ("Dear {John},\nthanks", "John"),
        ("Dear Ms. {Lee}:\nthanks", "Lee"),
        ("Lieber {Hans},", "Hans"),
        ("Name: {Jane Q. Public}\nAge: 30", "Jane Q. Public"),
        ("First name: {Jane}\n", "Jane"),
        ("Surname: {Public}", "Public"),
        ("Sincerely,\n\n{Jane Doe}\nDirector", "Jane Doe"),
        ("Best regards\n{Ivan Petrović}", "Ivan Petrović"),
        ("Mit freundlichen Grüßen\n{Anna-Lena Weiß}\n", "Anna-Lena Weiß"),
    ],
    "ADDRESS": [
        ("lives at {123 Main Street}.", "123 Main Street"),
        ("at {7 Oak Rd.}", "7 Oak Rd."),
        ("{42 Elm St., Apt. 5, Springfield, IL 62704}", "42 Elm St., Apt. 5, Springfield, IL 62704"),
        ("{1600 Pennsylvania Avenue NW, Washington, DC 20500}", "1600 Pennsylvania Avenue NW, Washington, DC 20500"),
        ("{221B Baker Street, London NW1 6XE}", "221B Baker Street, London NW1 6XE"),
        ("{10 W. 42nd Street}, then", "10 W. 42nd Street"),
        ("{5 Ocean View Blvd\nMiami, FL 33139-1234}", "5 Ocean View Blvd\nMiami, FL 33139-1234"),
        ("{350 Fifth Ave, Suite 300}", "350 Fifth Ave, Suite 300"),
        ("{171 Second Street, San Francisco, California 94105}", "171 Second Street, San Francisco, California 94105"),
        ("{12 Abbey Road, Leeds LS1 4AP}, UK", "12 Abbey Road, Leeds LS1 4AP"),
        ("{P.O. Box 1234}", "P.O. Box 1234"),
        ("{PO Box 99, Dayton, OH 45401}", "PO Box 99, Dayton, OH 45401"),
        ("wohnt {Hauptstraße 12, 10115 Berlin}", "Hauptstraße 12, 10115 Berlin"),
        ("{Musterstr. 3a}", "Musterstr. 3a"),
        ("{Berliner Straße 7-9, 60311 Frankfurt am Main}", "Berliner Straße 7-9, 60311 Frankfurt am Main"),
        ("{Lindenweg 5, 80331 München}", "Lindenweg 5, 80331 München"),
        ("{Postfach 12 34 56}", "Postfach 12 34 56"),
        ("{12 rue de la Paix, 75002 Paris}", "12 rue de la Paix, 75002 Paris"),
        ("{8 bis, avenue Foch}", "8 bis, avenue Foch"),
    ],
}
POSITIVES = [(kind, text, value) for kind, cases in FORMS.items() for text, value in cases]

LOOK_ALIKES = [
    "On 2024-01-15 at 12:30:45, or 15.01.2024, or 1/15/2024, or 15-01-2024.",
    "2024-01-15T12:30:45.123456Z and 20240115123045",
    "Fri, 12 Mar 2004 20:11:04 -0500",
    "It costs $1,234,567.89, €12.50 or 1.234.567,89 EUR.",
    "ISBN 978-3-16-148410-0 and ISBN-10 0-306-40615-2, ISSN 0378-5955",
    "doi:10.1000/182, arXiv:2112.11446, RFC 5321",
    "version 1.2.3.4, v1.2.3.4, release 10.0.19041.1",
    "Section 4.3.2.1 and 1.2.3.4.5",
    "python-3.11.4-2, 0.10.1, 2.3.1-rc1, pkg_3.23.91.1-1_all.deb",
    "127.0.0.1, 0.0.0.0, ::1, mask 255.255.255.0, 224.0.0.1",
    "256.1.1.1 and 1.2.3 and 1.2.3.999",
    "std::vector<int> a::b, Foo::Bar, 12:30:45, 00:1A:2B:3C:4D:5E",
    "<<16-3-4=9>>9 and 9 * 2 = $<<9*2=18>>18",
    "100000 + 200000 = 300000, 1234567 * 7654321 = 9449772114007",
    "3.14159265358979 and 0.123456789 and 6.022e23 and 299792458",
    "0.05 0.123 0.45 0.9999 1.0000",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
    "4111 1111 1111 1112 has a wrong digit",
    "1234567812345670 has no issuer",
    "9781234567897 and 1609459200000 and 12345678901234567890",
    "DE89 3704 0044 0532 0130 01 has a wrong digit",
    "@property and @jack and a @ b and foo@bar and logo@2x.png",
    "commit 4b825dc642cb6eb9a060e54bf8d69288fbee4904, uuid 123e4567-e89b-12d3-a456-426614174000",
    "The score was 21-14, the years 1914-1918 and 1939-1945.",
    "pages 123-456, 2,125,552,368 people, 50% of 1000000",
    "Boston, MA 02110-1301, USA",
    "order 2125552368 of 10",
    "https://example.com/2125552368/0301234567?id=4111111111111111x",
    "a 16:9 picture, 1920x1080, 3840 x 2160 px",
    "I am very happy. I am Legend. I'm Sorry.",
    "Dear Sir or Madam, Dear Sir, Dear Customer, dear me,",
    "Dear Friends,\nDear All,",
    "Yes, Mr. President. Mr. Speaker! Dr. Pepper. Miss Universe.",
    "The name is important. My name is not important. name: value",
    "Sincerely,\nthe management",
    "Name: python3\nVersion: 3.11.4",
    "dr. and mr. are titles; Dr and Mr too.",
    "3 St. Bernard dogs walked 5 miles in 2 ways.",
    "In 1990 Fleet Street changed. Wall Street fell by 500 points.",
    "He walked down Main Street for 20 minutes and took the 5 Train.",
    "Die Straße ist 12 Meter breit, der Heimweg 3 Kilometer lang, Platz 5 belegt.",
    "10 avenues, 3 roads and 1 boulevard; la rue est longue",
    "The box 12 of 20, a PO box, Box Hill 5",
    "chapter 12, verse 34: 56; Genesis 1:1",
    "matrix 1 0 0 1 0 1 0 0 1",
    "\\050c\\051 1997, 2009",
    "lat 52.520008, lon 13.404954; 40° 26′ 46″ N",
    "x = 0x7fff5fbff8c0, mode 0644, 07:00-15:00, 0800-1700",
    "The temperatures were -12, -5, 0, 3, 7, 11 and 15 degrees.",
    "Studies (2019, 2020, 2021) of 12-15 people (n = 1234).",
]


def masked(text: str, step: Pii = PII) -> str:
    return step.look(document(text)).text


@pytest.mark.parametrize(("kind", "text", "value"), POSITIVES)
def test_every_form_is_masked_and_nothing_beside_it(kind, text, value):
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
def test_what_only_looks_like_it_stays(text):
    kept = document(text)
    assert PII.look(kept) is kept


def test_the_lists_are_long_enough():
    assert len(POSITIVES) >= 60
    assert len(LOOK_ALIKES) >= 40


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
    ],
)
def test_no_text_is_slow(piece):
    start = time.process_time()
    masked(piece * (200_000 // len(piece)))
    assert time.process_time() - start < 1.5


def test_a_wrong_region_is_the_users_error():
    with pytest.raises(UserError, match=r"'usa'.*ISO 3166"):
        Pii(regions=("usa",))
    with pytest.raises(UserError, match="phonenumbers does not know 'XX'"):
        Pii(regions=("XX",)).look(document("call 212-555-2368"))


def test_it_travels():
    assert pickle.loads(pickle.dumps(PII)) == PII
    text = document("jo@example.com")
    assert pickle.loads(pickle.dumps(PII)).look(text) == replace(text, text="<EMAIL_1>", marks={"pii": {"email": 1}})
