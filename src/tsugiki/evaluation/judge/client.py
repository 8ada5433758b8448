"""One question to a judge, by OpenAI's chat protocol: OpenAI itself, vLLM, any proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tsugiki.evaluation.serving import Address, Client, RefusedError, nonsense


@dataclass(frozen=True)
class Judge:
    """Where a judge is asked, and how patiently; see `serving.Address`. Raises InputError for no address."""

    address: str
    model: str
    key: str = field(default="", repr=False)
    maximum_tokens: int = 1024
    timeout_seconds: float = 120.0
    tries: int = 6
    first_wait_seconds: float = 1.0

    def client(self, connections: int = 1) -> Client:
        """Connections to the judge."""
        waits = self.timeout_seconds, self.tries, self.first_wait_seconds
        return Client(Address(self.address, self.key or None, *waits), connections)


@dataclass(frozen=True)
class Reply:
    """What the judge wrote, or why there is nothing."""

    text: str | None
    error: str = ""


def ask(judge: Judge, messages: Sequence[Mapping[str, str]], client: Client) -> Reply:
    """Ask for one review at temperature 0; what a server does wrong is in the reply.

    Raises InputError where asking is pointless: a wrong address, path or key.
    """
    body = {
        "model": judge.model,
        "messages": list(messages),
        "temperature": 0.0,
        "max_tokens": judge.maximum_tokens,
    }
    try:
        said = client.post("/chat/completions", body)
        text = said["choices"][0]["message"]["content"]
    except RefusedError as error:
        return Reply(None, str(error))
    except (KeyError, IndexError, TypeError) as error:
        return Reply(None, nonsense(error))
    if not isinstance(text, str):
        return Reply(None, "a chat completion without text")
    return Reply(text)
