"""Packages that speak up when they are loaded or load something."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Without log lines below an error, and without warnings.

    torchao logs on import that its CUDA kernels can't be loaded and what torch deprecates; transformers
    imports it where it is installed.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the progress bar that transformers draws for a file that loads in milliseconds."""
    from transformers.utils import logging as shown_by_transformers

    shown = shown_by_transformers.is_progress_bar_enabled()
    shown_by_transformers.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            shown_by_transformers.enable_progress_bar()
