"""Asks a model at an OpenAI-compatible address many questions at once; an unanswered question gets the reason of the
failure."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from data.errors import UserError
from rlhf.config.rewards import Judge
from rlhf.interfaces import Served

if TYPE_CHECKING:
    import openai

LOG_WAIT_EVERY_S = 30.0
ADVICE = {
    401: "the key is wrong: check the environment variable {key_variable}",
    403: "the key has no access: check the environment variable {key_variable}",
    404: "check judge.name {name!r}, and that judge.url ends in /v1",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """The reply to one question: `text`, or the reason of the failure (timeout, connection, status_500, …) and its
    details."""

    text: str | None = None
    failure: str = ""
    detail: str = ""


def served_elsewhere(settings: Judge) -> Served:
    """The judge at `judge.url`, with the key from its environment variable, or "none": local servers often need no
    key."""
    return Served(settings.url, settings.name, os.environ.get(settings.key_variable) or "none")


class Client:
    """Keeps no state between two calls: each call opens connections of its own."""

    def __init__(self, served: Served, settings: Judge) -> None:
        self._served, self._settings = served, settings
        self._extra = {"stop_token_ids": list(served.stop_token_ids)} if served.stop_token_ids else None

    def ask(self, questions: Sequence[str]) -> list[Reply]:
        """A reply to each question, in the order of the questions, at temperature 0; at most `at_once` questions are in
        flight.

        A question takes at most (retries + 1) * timeout_s plus the back-off. Raises UserError where the server refuses
        every question because of a wrong key, model or path. Then, and at Ctrl-C, questions in flight are cancelled.
        """
        return asyncio.run(self._ask_all(questions))

    async def _ask_all(self, questions: Sequence[str]) -> list[Reply]:
        limit = asyncio.Semaphore(self._settings.at_once)

        async def asked(question: str) -> Reply:
            async with limit:
                return await self._ask(client, question)

        async with self._connections() as client:
            try:
                async with asyncio.TaskGroup() as group:  # cancels the others when one is refused: all would be
                    replies = [group.create_task(asked(question)) for question in questions]
                    await self._wait(replies)
            except ExceptionGroup as refusals:
                raise refusals.exceptions[0] from None
        return [reply.result() for reply in replies]

    def _connections(self) -> openai.AsyncOpenAI:
        import openai  # takes a second, which runs without a judge save

        return openai.AsyncOpenAI(
            base_url=self._served.url,
            api_key=self._served.key,
            timeout=self._settings.timeout_s,
            # by the library, with back-off: timeouts, lost connections, 429 and 5xx
            max_retries=self._settings.retries,
            # a proxy of the environment must not be used for an address of this machine
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not is_loopback(self._served.url)),
        )

    async def _wait(self, replies: Sequence[asyncio.Task[Reply]]) -> None:
        """Waits until all are done; logs the progress every LOG_WAIT_EVERY_S."""
        started, pending = time.monotonic(), set(replies)
        while pending:
            _, pending = await asyncio.wait(pending, timeout=LOG_WAIT_EVERY_S)
            if pending:
                logger.warning(
                    "waiting for the judge at %s: %d of %d questions done after %.0f s",
                    self._served.url,
                    len(replies) - len(pending),
                    len(replies),
                    time.monotonic() - started,
                )

    async def _ask(self, client: openai.AsyncOpenAI, question: str) -> Reply:
        import openai

        try:
            answer = await client.chat.completions.create(
                model=self._served.name,
                messages=[{"role": "user", "content": question}],
                temperature=0,
                max_tokens=self._settings.max_new_tokens,
                extra_body=self._extra,
            )
        except openai.APITimeoutError:
            return Reply(failure="timeout", detail=f"no reply within {self._settings.timeout_s:g} s")
        except openai.APIConnectionError as error:
            cause = _first_cause(error)
            return Reply(failure="connection", detail=f"{type(cause).__name__}: {cause}")
        except openai.APIStatusError as error:
            return self._refused(error.status_code, error.message)
        except (openai.APIError, ValueError) as error:  # a body that is not JSON, or not of the expected form
            return Reply(failure="malformed", detail=str(error))
        return _text(answer)

    def _refused(self, status: int, message: str) -> Reply:
        if status in ADVICE:
            advice = ADVICE[status].format(key_variable=self._settings.key_variable, name=self._served.name)
            raise UserError(f"the judge at {self._served.url} answered {status}: {advice} ({message})")
        return Reply(failure=f"status_{status}", detail=message)


def _text(answer: Any) -> Reply:
    """The reply's text. The library does not check a server's answer, so any part may be missing."""
    try:
        text = answer.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        text = None
    return Reply(text) if isinstance(text, str) else Reply(failure="malformed", detail=f"no text in {answer!r:.200}")


def _first_cause(error: BaseException) -> BaseException:
    """The innermost cause, under the "Connection error" and "All connection attempts failed" of httpx and anyio."""
    while below := error.__cause__ or error.__context__:
        error = (
            below.exceptions[0] if isinstance(below, BaseExceptionGroup) else below
        )  # one error for each address of a host name
    return error


def is_loopback(url: str) -> bool:
    """Whether the address is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a host name
        return host == "localhost"
