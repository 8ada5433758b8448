"""`tsugiki contamination`: benchmark items in training documents."""

from __future__ import annotations

from pathlib import Path

from tsugiki.errors import InputError


def contamination(documents: Path) -> None:
    """Find benchmark items in training documents (the help text is in cli.py).

    Args:
        documents: A documents artifact, or a file of documents.
    """
    raise InputError(f"{documents} can't be read yet", hint="this command is being written")
