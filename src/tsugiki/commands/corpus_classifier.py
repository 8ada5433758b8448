"""`tsugiki corpus train-classifier`: a quality classifier from two sets of documents."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tsugiki.errors import InputError

if TYPE_CHECKING:
    from tsugiki.corpus.classifier.model import Card
    from tsugiki.corpus.classifier.training import TrainingSettings

Json = Annotated[
    bool,
    Parameter(
        name="--json", negative="", show_default=False, help="Print the result as JSON, and nothing else."
    ),
]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
Paths = Annotated[list[Path], Parameter(consume_multiple=True, negative="")]

_SHOWN = 12
_NAMES = {
    "auc": "AUC",
    "f1": "F1 at 0.5",
    "precision_at_top_10_percent": "precision in the top 10 %",
    "calibration_error": "calibration error",
}


def train_classifier(
    out: Path,
    *,
    positive: Paths,
    negative: Paths,
    characters: str = "1-4",
    words: int = 0,
    bits: int = 20,
    epochs: int = 5,
    learning_rate: float = 0.5,
    heldout: float = 0.2,
    max_documents: int = 50_000,
    max_characters: int = 10_000,
    seed: int = 0,
    overwrite: Flag = False,
    json: Json = False,
) -> None:
    """Train a quality classifier from two sets of documents: ones that you want, and ordinary ones.

    Use it when rules have dropped what is broken and you want the better part of what is left, as Swallow v2
    and FineWeb-Edu do. Positive: documents like those you want more of (an encyclopedia, textbooks, pages
    that people rated highly). Negative: an ordinary sample of the same crawl, in the same language and
    extracted with the same program; otherwise the classifier learns to tell the programs apart. Some
    thousands of each are enough. Documents in both sets are dropped from both.

    The table shows figures on documents that were not trained on, with 95 % intervals. Read the most telling
    n-grams: menus, names of sites or markup there mean that the sets differ in more than quality.

    Example: `tsugiki corpus train-classifier out/edu --positive wiki.jsonl.zst --negative out/japanese`

    Args:
        out: Directory of the result: classifier.safetensors, classifier.json, metrics.json.
        positive: Corpus artifacts, .jsonl(.gz, .zst) or .parquet files with `text`, or folders of these.
        negative: The same for the other set.
        characters: Shortest and longest character n-gram.
        words: Longest word n-gram; 0 for languages without spaces.
        bits: 2 to this power weights, 4 bytes each.
        epochs: Passes over the training documents.
        learning_rate: AdaGrad's.
        heldout: Share of each set that is held out to calibrate and to measure.
        max_documents: At most so many documents of each set.
        max_characters: Only the beginning of longer documents is read, in training and later.
        seed: Of the order, the folds and the bootstrap.
        overwrite: Replace a classifier that is there already.
        json: Print JSON.
    """
    from tsugiki.corpus.classifier.model import CARD_FILE, save_classifier
    from tsugiki.corpus.classifier.samples import collect, texts_of
    from tsugiki.corpus.classifier.training import train
    from tsugiki.corpus.formats import fault_in_words
    from tsugiki.corpus.read import Tally

    if (out / CARD_FILE).exists() and not overwrite:
        raise InputError(f"{out} holds a classifier already", hint="give another directory, or --overwrite")
    settings = _settings(
        features={
            "characters": _range(characters),
            "words": words,
            "bits": bits,
            "maximum_characters": max_characters,
        },
        epochs=epochs,
        learning_rate=learning_rate,
        heldout=heldout,
        maximum_documents=max_documents,
        seed=seed,
    )
    sets = []
    for paths in (positive, negative):
        tally = Tally()
        sets.append(collect(texts_of(paths, tally), settings.features, settings.maximum_documents, tally))
        for warning in tally.warnings[:_SHOWN]:
            sys.stderr.write(f"passed over: {fault_in_words(warning)}\n")
    trained = train(sets[0], sets[1], settings)
    save_classifier(trained.classifier, trained.metrics, out)
    card = trained.classifier.card
    if json:
        done = {
            "directory": str(out),
            "digest": trained.classifier.digest,
            "metrics": trained.metrics,
            "training": card.training,
        }
        print(json_module.dumps(done, indent=2, ensure_ascii=False))
    else:
        _print_tables(out, card, trained.metrics)


def _range(text: str) -> tuple[int, int]:
    """`1-4` -> (1, 4); `3` -> (3, 3)."""
    first, _, last = text.partition("-")
    try:
        return int(first), int(last or first)
    except ValueError:
        raise InputError(f'--characters "{text}" is no range', hint="write, for instance, 1-4") from None


def _settings(**given: Any) -> TrainingSettings:
    """Validated settings; raises InputError with every mistake."""
    from pydantic import ValidationError

    from tsugiki.corpus.classifier.training import TrainingSettings

    try:
        return TrainingSettings.model_validate(given)
    except ValidationError as error:
        said = [
            f"{'.'.join(map(str, item['loc'])) or 'options'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        ]
        raise InputError("\n".join(said), hint="see `tsugiki corpus train-classifier --help`") from error


def _print_tables(out: Path, card: Card, metrics: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    sets = Table("set", "documents", "doubles", "in both sets", "unreadable")
    for name in ("positive", "negative"):
        part = card.training[name]
        numbers = (part[key] for key in ("documents", "duplicates", "overlapping", "unreadable"))
        sets.add_row(name, *(f"{number:,}" for number in numbers))
    console.print(sets)
    tested = metrics["documents"]
    title = f"on {tested['positive']:,} + {tested['negative']:,} held-out documents"
    figures = Table("figure", "value", "95 % interval", title=title)
    for name, shown in _NAMES.items():
        found = metrics[name]
        figures.add_row(shown, f"{found['value']:.3f}", f"{found['low']:.3f} to {found['high']:.3f}")
    console.print(figures)
    for title, grams in (("for", card.telling_for), ("against", card.telling_against)):
        named = ", ".join(repr(gram.ngram) for gram in grams[:_SHOWN])
        console.print(f"most telling {title}: {named}", markup=False, highlight=False)
    print(out)
