"""A model behind an OpenAI-style address (`http://host:8000/v1`) as a `Backend`: vLLM and its like.

Only `POST /completions` is used. Log-likelihoods of a prompt come in one of two forms: `echo` with `logprobs`
(OpenAI's, which vLLM serves too) or `prompt_logprobs` (vLLM's own). The server cuts texts into tokens, and
puts its beginning-of-sequence token before them if its tokenizer does so; without one a text's first token
can't be scored and is not counted. A prompt that does not fit the server's window is that item's error.
How requests fail, and when they are sent again: `tsugiki.evaluation.serving`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from tsugiki.evaluation.backend import Choices, Continuation, Likelihood, Prompt
from tsugiki.evaluation.engines.local import finish_text
from tsugiki.evaluation.serving import Address, Client, RefusedError, nonsense

_SEEDS = 2**31
"""Seeds are sent modulo this: servers take them as 32- or 64-bit integers."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Server:
    """An address and how to ask it.

    model: as the server names it. likelihoods: the form in which it gives those of a prompt. concurrency:
    requests under way at a time. maximum_tokens: a bound on what one request writes, beside the caps of the
    prompts. pause_s: before a request is sent again; doubled each time. Raises InputError for what is no
    address.
    """

    address: str
    model: str
    likelihoods: Literal["echo", "prompt_logprobs"] = "echo"
    boundary: Literal["joined", "context"] = "joined"
    concurrency: int = 16
    timeout_s: float = 600.0
    retries: int = 4
    pause_s: float = 1.0
    maximum_tokens: int = 2048
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.endpoint()

    def endpoint(self) -> Address:
        """The address with its patience."""
        return Address(self.address, self.key, self.timeout_s, self.retries + 1, self.pause_s)


@dataclass(frozen=True)
class _Read:
    """A prompt as the server read it: its tokens, and ln p of each (None where there is none)."""

    tokens: tuple[str, ...]
    logs: tuple[float | None, ...]

    def scored(self, first: int) -> Likelihood:
        """-ln p of the tokens from `first` on; the very first of a text may lack one."""
        logs = [log for place, log in enumerate(self.logs) if place >= first and (place or log is not None)]
        if any(log is None or not math.isfinite(log) for log in logs):
            return _failed("the server gave no log-probability for some tokens")
        return Likelihood(-math.fsum(log for log in logs if log is not None), len(logs))


class RemoteBackend:
    """A `Backend`; answers come in the order of the questions, whatever the order of the server's."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client = Client(server.endpoint(), server.concurrency)

    def text_likelihoods(self, texts: Sequence[str]) -> list[Likelihood]:
        """See `Backend`; there are no windows: a text longer than the server's is an error."""
        return [
            read if isinstance(read, Likelihood) else read.scored(0) for read in self._all(self._read, texts)
        ]

    def choice_likelihoods(self, questions: Sequence[Choices]) -> list[tuple[Likelihood, ...]]:
        """See `Backend`. The context is asked for alone too, to see where an option begins in tokens."""
        joined = self._server.boundary == "joined"
        texts = {question.context if joined else question.context.rstrip() for question in questions}
        wholes = {question.context + option for question in questions for option in question.options}
        asked = sorted((texts | wholes) - {""})
        read = dict(zip(asked, self._all(self._read, asked), strict=True))
        read[""] = _Read((), ())
        return [self._options(question, read, joined=joined) for question in questions]

    def _options(
        self, question: Choices, read: dict[str, _Read | Likelihood], *, joined: bool
    ) -> tuple[Likelihood, ...]:
        context = read[question.context if joined else question.context.rstrip()]
        wholes = [read[question.context + option] for option in question.options]
        failed = [one for one in (context, *wholes) if isinstance(one, Likelihood)]
        good = [one for one in wholes if isinstance(one, _Read)]
        if failed or not isinstance(context, _Read):
            return tuple(failed[0] for _ in wholes)
        shared = len(context.tokens)
        if joined:
            shared = min(_common(whole.tokens, context.tokens) for whole in good) if good else 0
        return tuple(whole.scored(shared) for whole in good)

    def continuations(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """See `Backend`. Stops and caps are looked for here too."""
        return self._all(self._write, prompts)

    def _all(self, ask: Callable[[Asked], Answer], asked: Sequence[Asked]) -> list[Answer]:
        with ThreadPoolExecutor(self._server.concurrency) as pool:
            return list(pool.map(ask, asked))

    def _read(self, text: str) -> _Read | Likelihood:
        """The server's tokens of a text; an error where there is no answer."""
        body: dict[str, Any] = {"prompt": text, "max_tokens": 1, "temperature": 0}
        if self._server.likelihoods == "echo":
            body |= {"echo": True, "logprobs": 1}
        else:
            body |= {"prompt_logprobs": 0}
        try:
            said = self._ask(body)
            if self._server.likelihoods == "echo":
                return _from_echo(said, text)
            return _from_prompt_logprobs(said)
        except RefusedError as error:
            return _failed(str(error))

    def _write(self, prompt: Prompt) -> Continuation:
        sampling = prompt.sampling
        bound = min(prompt.maximum_bytes, prompt.maximum_tokens or prompt.maximum_bytes)
        body: dict[str, Any] = {
            "prompt": prompt.text,
            "max_tokens": max(1, min(bound, self._server.maximum_tokens)),
            "temperature": sampling.temperature if sampling else 0,
            "seed": prompt.seed % _SEEDS,
        }
        if sampling:
            body |= {"top_p": sampling.top_p} | ({"top_k": sampling.top_k} if sampling.top_k else {})
        if prompt.stops:
            body["stop"] = list(prompt.stops)
        try:
            said = self._ask(body)
            choice = said["choices"][0]
            text, ended = _text(choice["text"]), choice.get("finish_reason") == "stop"
            tokens = int((said.get("usage") or {}).get("completion_tokens") or 0)
        except RefusedError as error:
            return Continuation("", 0, truncated=False, error=str(error))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            return Continuation("", 0, truncated=False, error=nonsense(error))
        answer = finish_text(prompt, text, tokens, ended, cut_context=False)
        stop = choice.get("stop_reason")
        if answer.stop is None and not answer.truncated and isinstance(stop, str) and stop in prompt.stops:
            return Continuation(answer.text, tokens, truncated=False, stop=stop)
        return answer

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._client.post("/completions", {"model": self._server.model, **body})


def _from_echo(said: dict[str, Any], text: str) -> _Read:
    """OpenAI's form: tokens and token_logprobs of prompt and answer; the answer's one is left out."""
    try:
        given = said["choices"][0]["logprobs"]
        tokens = tuple(map(str, given["tokens"]))
        logs = tuple(None if log is None else float(log) for log in given["token_logprobs"])
        written = (said.get("usage") or {}).get("completion_tokens")
        count = len(tokens) - (written if isinstance(written, int) else 1)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RefusedError(nonsense(error)) from error
    if len(tokens) != len(logs) or count < 1:
        raise RefusedError(
            f"the server gave {len(tokens)} tokens and {len(logs)} log-probabilities "
            f"for {len(text)} characters"
        )
    return _Read(tokens[:count], logs[:count])


def _from_prompt_logprobs(said: dict[str, Any]) -> _Read:
    """VLLM's form: for each token of the prompt, {its id: {"logprob": ...}}; null for the first."""
    try:
        given = said["choices"][0]["prompt_logprobs"]
        # A first token without a number has no id either: it is the same in every prompt, or scored in none.
        entries = [next(iter(entry.items())) if entry else ("", None) for entry in given]
        logs = tuple(None if about is None else float(about["logprob"]) for _, about in entries)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise RefusedError(nonsense(error)) from error
    return _Read(tuple(token for token, _ in entries), logs)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text is a {type(value).__name__}")
    return value.encode("utf-8", "replace").decode("utf-8")


def _failed(message: str) -> Likelihood:
    return Likelihood(math.nan, 0, error=message)


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    """How many tokens two texts begin with alike."""
    pairs = zip(left, right, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
