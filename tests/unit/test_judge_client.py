"""The judge's client against a real HTTP server that is slow, broken, wrong or not there."""

import gc
import os
import signal
import socket
import threading
import time
import warnings

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
    with serving(slowly) as (stub, url):
        asking = client(url, at_once=4)
        assert [reply.text for reply in asking.ask(questions)] == [question.upper() for question in questions]
        assert 1 < stub.most <= 4
        assert {body["temperature"] for body in stub.requests} == {0}


def test_stop_tokens_are_sent_where_the_server_needs_them():
    with serving(lambda _: "A") as (stub, url):
        Client(Served(url, "judge", KEY, (5, 7)), Judge(url=url)).ask(["q"])
        client(url, max_new_tokens=3).ask(["q"])
        assert [body.get("stop_token_ids") for body in stub.requests] == [[5, 7], None]
        assert stub.requests[1]["max_tokens"] == 3


def test_a_server_error_is_tried_again():
    asked = []

    def twice(question):
        asked.append(question)
        return (500, {"error": {"message": "oops"}}) if len(asked) < 3 else "A"

    with serving(twice) as (_, url):
        asking = client(url, retries=3)
        assert asking.ask(["q"])[0].text == "A"
    assert len(asked) == 3


@pytest.mark.parametrize("status", [500, 503, 429, 400])
def test_a_lasting_refusal_leaves_that_question_unanswered(status):
    def sometimes(question):
        return (status, {"error": {"message": "not this one"}}) if question == "bad" else "A"

    with serving(sometimes) as (stub, url):
        asking = client(url, retries=1)
        good, bad = asking.ask(["good", "bad"])
    assert good.text == "A"
    assert bad.text is None and bad.failure == f"status_{status}" and "not this one" in bad.detail
    assert len(stub.requests) == (2 if status == 400 else 3)  # a bad request is not tried again


def test_a_slow_server_is_a_timeout():
    given_up = threading.Event()

    def waits(question):
        if question == "slow":
            given_up.wait(60)
        return "A"

    with serving(waits) as (_, url):
        fast, slow = client(url, retries=0, timeout_s=1).ask(["fast", "slow"])
        given_up.set()
    assert fast.text == "A" and slow.failure == "timeout"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nobody_at_the_address_is_a_failed_connection(host):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (reply,) = client(f"http://{host}:{port}/v1", retries=0).ask(["q"])
    assert reply.failure == "connection" and "Refused" in reply.detail


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
    with serving(lambda _: (200, body)) as (_, url):
        asking = client(url)
        (reply,) = asking.ask(["q"])
    assert reply.text is None and reply.failure == "malformed"


def test_a_wrong_key_is_the_users_error_and_names_the_variable():
    with serving(lambda _: "A") as (_, url), pytest.raises(UserError, match=rf"{url} answered 401: .*JUDGE_KEY"):
        client(url, key="wrong", key_variable="JUDGE_KEY").ask(["q"] * 20)


def test_a_refusal_and_ctrl_c_leave_no_question_waiting():
    over = threading.Event()

    def reply(question):
        if question == "refused":
            return 401, {"error": {"message": "who are you"}}
        over.wait(60)
        return "A"

    def interrupt():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    for questions, error in (["slow"] * 4 + ["refused"], UserError), (["slow"] * 4, KeyboardInterrupt):
        with serving(reply) as (_, url):
            asking, started, before = client(url), time.monotonic(), set(threading.enumerate())
            if error is KeyboardInterrupt:
                threading.Thread(target=interrupt).start()
            with pytest.raises(error):
                asking.ask(questions)
            left = [each for each in set(threading.enumerate()) - before if not each.daemon]  # the end waits for these
            assert time.monotonic() - started < 30 and left == []
    over.set()


def test_questions_can_be_asked_again_on_new_connections():
    with serving(lambda _: "A") as (_, url):
        asking = client(url)
        assert [asking.ask(["q"] * 3)[0].text for _ in range(3)] == ["A"] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        del asking
        gc.collect()


def test_an_unknown_model_is_the_users_error_and_is_named():
    told = r"answered 404: check judge.name 'oracle'.*/v1.*no such model"
    with serving(lambda _: "A") as (_, url), pytest.raises(UserError, match=told):
        client(url, name="oracle").ask(["q"])


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(lambda _: "A") as (_, url):
        asking = client(url, retries=0)
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
