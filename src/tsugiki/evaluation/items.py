"""Held-out pages, and the questions made from them.

Everything is chosen by hashing, not by drawing: the order in which pages are stored does not matter, and a
page more or less in the corpus hardly changes the choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tsugiki.artifacts.documents import HELD_OUT, iterate_documents
from tsugiki.errors import DataError


@dataclass(frozen=True)
class Page:
    """A held-out document. cluster: pages of one near-duplicate cluster are not independent of each other."""

    dataset: str
    id: str
    language: str
    domain: str
    cluster: str
    text: str


@dataclass(frozen=True)
class Item:
    """One question, the same for every model.

    prompt: what the model is given. choices: texts to be scored after the prompt; the whole page for bits per
    byte, the page's own continuation for generation. answer: the index of the right choice, if there is one.
    """

    task: str
    dataset: str
    language: str
    domain: str
    cluster: str
    id: str
    prompt: str
    choices: tuple[str, ...] = ()
    answer: int | None = None

    @property
    def prompt_hash(self) -> str:
        """A hash of everything that the model sees: prompt and choices."""
        return stable_hash(self.prompt, *self.choices)


def stable_hash(*parts: object) -> str:
    """16 hexadecimal digits of the SHA-256 of the parts, the same in every process."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def stable_integer(*parts: object) -> int:
    """A 64-bit integer from the same hash: a seed, or a place in a pseudo-random order."""
    return int(stable_hash(*parts), 16)


def read_heldout(
    directory: Path, *, dataset: str, maximum_documents: int, document_bytes: int, seed: int
) -> list[Page]:
    """At most `maximum_documents` pages of the held-out split, in a pseudo-random order fixed by `seed`.

    A page longer than `document_bytes` is cut there, at a character's boundary, so that no single page
    outweighs the rest. Pages without text are passed over. Raises DataError where no page is held out, or
    where two have the same id.
    """
    columns = ["id", "host", "text", "language", "cluster"]
    chosen: list[tuple[int, Page]] = []
    for row in iterate_documents(directory, split=HELD_OUT, columns=columns):
        text = cut_bytes(row["text"], document_bytes)
        if not text.strip():
            continue
        page = Page(
            dataset=dataset,
            id=row["id"],
            language=row["language"] or "",
            domain=row["host"] or "",
            cluster=row["cluster"] or row["id"],
            text=text,
        )
        chosen.append((stable_integer(seed, page.id), page))
        if len(chosen) > 4 * maximum_documents:
            chosen = _first(chosen, maximum_documents)
    if not chosen:
        raise DataError(
            f'"{dataset}" holds no held-out documents to evaluate on',
            hint="raise the corpus stage's held-out share, or give it a larger crawl",
        )
    pages = [page for _, page in _first(chosen, maximum_documents)]
    if len({page.id for page in pages}) < len(pages):
        raise DataError(
            f'held-out documents of "{dataset}" share an id, so their scores could not be told apart',
            hint="make the documents again with the corpus stage, which gives every page its own id",
        )
    return pages


def _first(chosen: list[tuple[int, Page]], count: int) -> list[tuple[int, Page]]:
    return sorted(chosen, key=lambda entry: (entry[0], entry[1].id))[:count]


def cut_bytes(text: str, maximum_bytes: int) -> str:
    """The longest beginning of `text` that takes at most `maximum_bytes` in UTF-8."""
    data = text.encode("utf-8", "replace")
    if len(data) <= maximum_bytes:
        return data.decode("utf-8")
    return data[:maximum_bytes].decode("utf-8", "ignore")


def byte_length(text: str) -> int:
    """UTF-8 bytes of a text."""
    return len(text.encode("utf-8"))


def dataset_names(references: Sequence[str]) -> dict[str, str]:
    """A short, distinct name for each reference: a stage's own name, or the last part of a path or address.

    Paths never reach the rows: the same data elsewhere must give the same bytes. Where two paths end alike,
    the later ones are numbered.
    """
    names: dict[str, str] = {}
    for reference in references:
        path = reference.partition("#")[2] if reference.startswith(("http://", "https://")) else reference
        name = (path or reference).rstrip("/").rsplit("/", 1)[-1] or reference
        taken = set(names.values())
        number = 2
        candidate = name
        while candidate in taken:
            candidate, number = f"{name}-{number}", number + 1
        names[reference] = candidate
    return names
