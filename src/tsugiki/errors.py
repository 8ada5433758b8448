"""Every error that Tsugiki raises on purpose, in one tree.

    TsugikiError            catch this for "something a person can mend"
    |-- RecipeError         the recipe can't be read, or its graph does not hold together
    |-- InputError          a file, directory or artifact is missing, broken or of the wrong type
    |-- DataError           the data is readable, but there is too little of it or it is not what was asked
    |-- DriftError          a finished stage was made from something else than the recipe now says
    |-- StageError          a stage failed one of its own post-conditions, or its process died
    |-- StorageError        the disk is full, read-only or not ours to write to
    `-- DependencyError     an optional package or program is missing

Each carries a message (what was seen, what was expected) and a hint (how to mend it). `str(error)`
ends with a line that begins with ``Hint:``. Recipe problems come all at once, as `Problem`s.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class TsugikiError(Exception):
    """Something went wrong that a person can mend; `hint` says how."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}"

    def as_dict(self) -> dict[str, object]:
        """The error as plain data, for `--json` and for the file that a failed stage leaves behind."""
        return {"type": type(self).__name__, "message": self.message, "hint": self.hint}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe: where, what was seen, and how to mend it."""

    message: str
    hint: str
    where: str = ""
    severity: str = "error"

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message}\n  Hint: {self.hint}"


class RecipeError(TsugikiError):
    """The recipe can't be read, or its graph does not hold together. Lists every problem found."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        title = "1 problem in the recipe" if count == 1 else f"{count} problems in the recipe"
        super().__init__(
            "\n".join([f"{title}:", *(str(problem) for problem in self.problems)]),
            hint="mend the lines named above; `tsugiki plan RECIPE` checks again without doing any work",
        )

    def as_dict(self) -> dict[str, object]:
        problems = [vars(problem) for problem in self.problems]
        return {**super().as_dict(), "problems": problems}


class InputError(TsugikiError):
    """A file, directory or artifact is missing, broken or of the wrong type."""

    exit_code = 2


class DataError(TsugikiError):
    """The data is readable, but there is too little of it or it is not what was asked for."""


class DriftError(TsugikiError):
    """A finished (or half-finished) stage was made from something else than the recipe now says."""

    exit_code = 3


class StageError(TsugikiError):
    """A stage failed one of its own post-conditions, or its process died."""


class StorageError(TsugikiError):
    """The disk is full, read-only or not ours to write to."""


class DependencyError(TsugikiError):
    """An optional package or program is missing."""


BY_NAME: dict[str, type[TsugikiError]] = {
    kind.__name__: kind
    for kind in (InputError, DataError, DriftError, StageError, StorageError, DependencyError)
}


def error_of(data: Mapping[str, Any]) -> TsugikiError:
    """The error that `as_dict` made plain data of, in another process."""
    return BY_NAME.get(data["type"], StageError)(data["message"], hint=data["hint"])


_STORAGE_CAUSES = {
    errno.ENOSPC: ("no space is left on the disk", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or ask for more"),
    errno.EFBIG: ("the file would grow past the allowed size", "raise the file size limit (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", "choose a directory that can be written"),
    errno.EACCES: ("permission denied", "choose a directory that you may write to"),
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's word on a full or forbidden disk into a `StorageError` about `path`.

    Arrow and safetensors wrap the system's error in their own; its number is read from the text then.
    """
    try:
        yield
    except TsugikiError:
        raise
    except OSError as error:
        cause = _STORAGE_CAUSES.get(error.errno or 0)
        if cause is None:
            raise
        raise _storage_error(path, cause) from error
    except Exception as error:
        number = re.search(r"\[Errno (\d+)\]|\(os error (\d+)\)", str(error))
        cause = _STORAGE_CAUSES.get(int(number[1] or number[2])) if number else None
        if cause is None:
            raise
        raise _storage_error(path, cause) from error


def _storage_error(path: Path, cause: tuple[str, str]) -> StorageError:
    seen, remedy = cause
    return StorageError(
        f"could not write {path}: {seen}",
        hint=f"{remedy}, then run the same command again: finished work is kept",
    )


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """` Did you mean "x"?`, or the known words where none is close."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return "known: " + ", ".join(sorted(known)) if known else "nothing is known here"
