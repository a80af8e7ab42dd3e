"""The judge's client against a real HTTP server that is slow, broken, wrong or not there."""

import socket
import time

import pytest
from judge_stub import KEY, client, serving

from data.errors import UserError
from rlhf.config.rewards import Judge
from rlhf.interfaces import Served
from rlhf.judge.client import Client, is_loopback, served_elsewhere


def test_replies_come_in_the_order_of_the_questions_at_most_so_many_at_once():
    def slowly(question):
        time.sleep(0.02 if question.endswith("0") else 0.005)
        return question.upper()

    questions = [f"q{number}" for number in range(40)]
    with serving(slowly) as (stub, url), client(url, at_once=4) as asking:
        assert [reply.text for reply in asking.ask(questions)] == [question.upper() for question in questions]
        assert 1 < stub.most <= 4
        assert {body["temperature"] for body in stub.requests} == {0}


def test_stop_tokens_are_sent_where_the_server_needs_them():
    with serving(lambda _: "A") as (stub, url):
        with Client(Served(url, "judge", KEY, (5, 7)), Judge(url=url)) as asking:
            asking.ask(["q"])
        with client(url, max_new_tokens=3) as asking:
            asking.ask(["q"])
        assert [body.get("stop_token_ids") for body in stub.requests] == [[5, 7], None]
        assert stub.requests[1]["max_tokens"] == 3


def test_a_server_error_is_tried_again():
    asked = []

    def twice(question):
        asked.append(question)
        return (500, {"error": {"message": "oops"}}) if len(asked) < 3 else "A"

    with serving(twice) as (_, url), client(url, retries=3) as asking:
        assert asking.ask(["q"])[0].text == "A"
    assert len(asked) == 3


@pytest.mark.parametrize("status", [500, 503, 429, 400])
def test_a_lasting_refusal_leaves_that_question_unanswered(status):
    def sometimes(question):
        return (status, {"error": {"message": "not this one"}}) if question == "bad" else "A"

    with serving(sometimes) as (stub, url), client(url, retries=1) as asking:
        good, bad = asking.ask(["good", "bad"])
    assert good.text == "A"
    assert bad.text is None and bad.failure == f"status_{status}" and "not this one" in bad.detail
    assert len(stub.requests) == (2 if status == 400 else 3)  # a bad request is not tried again


def test_a_slow_server_is_a_timeout():
    def sleeps(question):
        time.sleep(0.6 if question == "slow" else 0)
        return "A"

    with serving(sleeps) as (_, url), client(url, retries=0, timeout_s=0.15) as asking:
        started = time.monotonic()
        fast, slow = asking.ask(["fast", "slow"])
        assert time.monotonic() - started < 0.55
    assert fast.text == "A" and slow.failure == "timeout"


def test_nobody_at_the_address_is_a_failed_connection():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with client(f"http://127.0.0.1:{port}/v1", retries=0) as asking:
        (reply,) = asking.ask(["q"])
    assert reply.failure == "connection" and "refused" in reply.detail


@pytest.mark.parametrize(
    "body",
    [
        "this is no JSON",
        {"choices": []},
        {"choices": [{"message": {"content": None}}]},
        {"choices": [{"message": {"content": 7}}]},
        {"choices": [{}]},
        {"error": "in a body that says 200"},
        [1, 2],
        "",
    ],
)
def test_a_body_without_text_is_malformed(body):
    with serving(lambda _: (200, body)) as (_, url), client(url) as asking:
        (reply,) = asking.ask(["q"])
    assert reply.text is None and reply.failure == "malformed"


def test_a_wrong_key_is_the_users_error_and_names_the_variable():
    with (
        serving(lambda _: "A") as (_, url),
        client(url, key="wrong", key_variable="JUDGE_KEY") as asking,
        pytest.raises(UserError, match=rf"{url} answered 401: .*JUDGE_KEY"),
    ):
        asking.ask(["q"] * 20)


def test_an_unknown_model_is_the_users_error_and_is_named():
    with (
        serving(lambda _: "A") as (_, url),
        client(url, name="oracle") as asking,
        pytest.raises(UserError, match=r"answered 404: check judge.name 'oracle'.*/v1.*no such model"),
    ):
        asking.ask(["q"])


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(lambda _: "A") as (_, url), client(url, retries=0) as asking:
        assert asking.ask(["q"])[0].text == "A"


def test_the_key_comes_from_its_variable(monkeypatch):
    monkeypatch.setenv("MY_KEY", "abc")
    assert served_elsewhere(Judge(url="http://x/v1", key_variable="MY_KEY")).key == "abc"
    monkeypatch.delenv("MY_KEY")
    assert served_elsewhere(Judge(url="http://x/v1", key_variable="MY_KEY")).key == "none"


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:8/v1", True),
        ("https://judge.example/v1", False),
        ("http://10.0.0.1/v1", False),
    ],
)
def test_addresses_of_this_machine(url, own):
    assert is_loopback(url) == own
