"""One request to an address that speaks OpenAI's chat protocol: OpenAI itself, vLLM, any proxy."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import urllib3

from tsugiki.errors import InputError

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Judge:
    """Where a judge is asked, and how patiently.

    address: up to and with /v1. timeout_seconds: for one try. tries: first one included. first_wait_seconds
    doubles with each try; a Retry-After header is obeyed, up to a minute.
    """

    address: str
    model: str
    key: str = ""
    maximum_tokens: int = 1024
    timeout_seconds: float = 120.0
    tries: int = 6
    first_wait_seconds: float = 1.0


@dataclass(frozen=True)
class Reply:
    """What the judge wrote, or why there is nothing."""

    text: str | None
    error: str = ""


def ask(judge: Judge, messages: Sequence[Mapping[str, str]], pool: urllib3.PoolManager) -> Reply:
    """Ask once, and again where the fault may pass; never raises for what a server does.

    Raises InputError where asking is pointless: a wrong address, key or model (400, 401, 403, 404).
    """
    body = json.dumps(
        {
            "model": judge.model,
            "messages": list(messages),
            "temperature": 0.0,
            "max_tokens": judge.maximum_tokens,
        }
    ).encode()
    headers = {"Content-Type": "application/json"}
    if judge.key:
        headers["Authorization"] = f"Bearer {judge.key}"
    error, wait = "", 0.0
    for turn in range(judge.tries):
        if turn:
            time.sleep(wait)
        wait = min(judge.first_wait_seconds * 2**turn, _LONGEST_WAIT)
        try:
            answer = pool.request(
                "POST",
                judge.address.rstrip("/") + "/chat/completions",
                body=body,
                headers=headers,
                timeout=judge.timeout_seconds,
                retries=False,
            )
        except (urllib3.exceptions.LocationParseError, urllib3.exceptions.LocationValueError) as wrong:
            raise InputError(
                f"{judge.address} is no address: {wrong}", hint="write http://host:8000/v1"
            ) from wrong
        except (urllib3.exceptions.HTTPError, OSError) as fault:
            error = f"{type(fault).__name__}: {fault}"
            continue
        if answer.status == 200:  # noqa: PLR2004
            return _reply(answer.data)
        error = f"status {answer.status}: {answer.data[:200].decode('utf-8', 'replace')}"
        if answer.status in _PASSING:
            wait = max(wait, _asked_wait(answer.headers.get("Retry-After")))
        else:
            raise InputError(
                f"the judge at {judge.address} refuses: {error}", hint="check --address, --judge and the key"
            )
    return Reply(None, f"{error} (after {judge.tries} tries)")


def _asked_wait(header: str | None) -> float:
    try:
        return min(max(float(header or 0), 0.0), _LONGEST_WAIT)
    except ValueError:  # a date: our own wait will do
        return 0.0


def _reply(data: bytes) -> Reply:
    try:
        text = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return Reply(None, f"no chat completion: {data[:200].decode('utf-8', 'replace')}")
    if not isinstance(text, str):
        return Reply(None, "a chat completion without text")
    return Reply(text)
