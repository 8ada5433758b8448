"""Cleaning the text of a kept page: punctuation, footer, optional NFKC, personal data.

The door is `clean`; each part can also be called alone.
"""

from tsugiki.corpus.cleaning.clean import Cleaned, CleanOptions, clean

__all__ = ["CleanOptions", "Cleaned", "clean"]
