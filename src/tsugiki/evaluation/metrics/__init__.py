"""Scores of one answer and of a corpus, each defined in one place and checked against an independent one.

    characters.py   llm-jp-eval's "char_f1" to the letter, and a true character F1
    matching.py     exact match in the variants that were published, numbers and answers out of free text
    squad.py        SQuAD 2.0, questions with and without an answer apart
    tokenizers.py   how a text is cut into tokens, by name, never by a model's own vocabulary
    bleu.py chrf.py rouge.py   their counts for one item, and their values for sums of those
    corpus.py       CORPUS_METRICS: what is computed from sums over items
    passing.py      pass@k
    likelihood.py   the choice that a model finds most likely; bits per byte and per character

An item metric is a plain function `(prediction, references) -> float` from 0 to 1, 1 is best.
"""
