"""Imports of packages that speak up when they are loaded."""

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
