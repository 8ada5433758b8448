"""`kind: vocabulary`: a model and documents in, the model with new pieces out, and proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tsugiki.artifacts.contract import Inputs, Outcome, Workspace
from tsugiki.errors import DataError, StageError
from tsugiki.vocabulary.config import Config, final_rows
from tsugiki.vocabulary.planning import PRODUCES, estimate, tokenizer_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tsugiki.models.tokenizer import TextTokenizer
    from tsugiki.vocabulary.extend import Extension
    from tsugiki.vocabulary.measure import Measurement

__all__ = ["CODE_VERSION", "KIND", "PRODUCES", "Config", "estimate", "final_rows", "run"]

KIND = "vocabulary"
CODE_VERSION = 3

_PARITY_TEXTS = 8


def run(config: Config, inputs: Inputs, out: Workspace) -> Outcome:
    """Extend the model, write it to `out.root`, and prove it.

    The stage is short, so a run that was killed starts again from the beginning; every file is written
    atomically. Raises InputError for a tokenizer that can't be extended, DataError where the documents hold
    too few pieces, StageError where a proof fails.
    """
    from tsugiki.models.directory import resolve_model, vocabulary_size
    from tsugiki.models.tokenizer import load_tokenizer
    from tsugiki.vocabulary import rows
    from tsugiki.vocabulary.extend import unreachable_pieces
    from tsugiki.vocabulary.initialising import row_knowledge
    from tsugiki.vocabulary.learning import learn_extension

    inputs = _of_documents(config, inputs, out)
    base = resolve_model(inputs.path(config.model))
    base_tokenizer = load_tokenizer(base)
    learnt = learn_extension(config, inputs, out, base_tokenizer, vocabulary_size(base))
    extension = learnt.extension
    out.progress(1, 5, "steps", "rows of the new pieces")
    knowledge, how = row_knowledge(config, base, learnt, out)
    out.progress(2, 5, "steps", "writing the model")
    rows.write_extended_model(
        base, extension, out.root, config.initialise, seed=config.seed, knowledge=knowledge
    )
    size = vocabulary_size(out.root)
    _check_size(extension, size, config.multiple_of)

    measured = _measure(config, inputs, out, base_tokenizer, extension)
    out.progress(4, 5, "steps", "comparing logits")
    facts = {
        "method": config.method,
        "initialise": config.initialise,
        "added": extension.added,
        "fragments": extension.fragments,
        **({"unigram": dict(extension.facts)} if extension.facts else {}),
        "base_size": extension.base_size,
        "size": size,
        # Rows that a trainer may train alone at first: the first one, and the one behind the last.
        "new_rows": [extension.base_size, size],
        "padding_rows": size - extension.tokenizer.size,
        "unreachable": len(unreachable_pieces(extension.tokenizer, extension.base_size)),
        "curve": [vars(point) for point in learnt.curve],
        **_logit_facts(base, out, base_tokenizer, extension, measured),
        **how,
        **_row_facts(out, extension),
        **_text_facts(measured, base_tokenizer, extension),
        "model_config": _read_config(out),
        "tokenizer": tokenizer_name(config),
        "tokenizer_sha256": extension.tokenizer.sha256,
    }
    out.progress(5, 5, "steps", "done")
    return Outcome(_counts(out, config, measured, extension), facts)


def _of_documents(config: Config, inputs: Inputs, out: Workspace) -> Inputs:
    """The inputs with documents in the place of plain files."""
    from tsugiki.artifacts.plain import as_documents

    names = dict.fromkeys((config.corpus, *config.measure))
    found = {name: (as_documents(name, inputs[name], out.work, log=out.log),) for name in names}
    return Inputs({**inputs, **found})


def _check_size(extension: Extension, rows: int, multiple_of: int) -> None:
    """Every row is a piece's: none is left that a model could give and the tokenizer not spell.

    `vocabulary_size` has compared tokenizer, embeddings and config.json already.
    """
    if rows != extension.tokenizer.size or rows % multiple_of:
        raise StageError(
            f"{rows} rows for {extension.tokenizer.size} pieces, where a multiple of {multiple_of} is due",
            hint="this is a fault in Tsugiki; please report it with the base model's name",
        )


def _measure(
    config: Config, inputs: Inputs, out: Workspace, base: TextTokenizer, extension: Extension
) -> Measurement:
    """Encode the documents with both tokenizers; raises where text is lost or nothing is saved."""
    from tsugiki.vocabulary.measure import measure

    measured = measure(
        base,
        extension,
        [(name, inputs.path(name)) for name in dict.fromkeys((config.corpus, *config.measure))],
        maximum_characters=config.sample,
        wanted_texts=_PARITY_TEXTS,
        progress=lambda documents: out.progress(3, 5, "steps", f"{documents} documents measured"),
    )
    _check(measured, config.corpus)
    if extension.keeps_ids and measured.old_documents_same < measured.old_documents:
        raise StageError(
            f"{measured.old_documents - measured.old_documents_same} of {measured.old_documents} documents "
            "that use no new piece have other ids than with the base",
            hint="this is a fault in Tsugiki; please report it with the base model's name",
        )
    return measured


def _text_facts(measured: Measurement, base: TextTokenizer, extension: Extension) -> dict[str, Any]:
    from tsugiki.vocabulary import measure

    return {
        "round_trip": {
            "documents": measured.documents,
            "failures": measured.failures,
            "altered_by_base": measured.altered_by_base,
            **({"all_documents": measured.all_documents} if measured.is_sample else {}),
            **({"unknown": measured.unknown} if extension.tokenizer.unknown_id is not None else {}),
        },
        "old_ids": {
            "documents": measured.old_documents,
            "same": measured.old_documents_same,
            "promised": extension.keeps_ids,
        },
        **({"sentencepiece": measured.sentencepiece.facts()} if measured.sentencepiece else {}),
        "savings": measure.savings(measured),
        "coverage": measure.coverage(measured, base, extension.tokenizer),
        "examples": measure.examples(measured, extension),
        "unused_share": measure.unused_share(measured, extension),
    }


def _logit_facts(
    base: Path, out: Workspace, base_tokenizer: TextTokenizer, extension: Extension, measured: Measurement
) -> dict[str, Any]:
    from tsugiki.vocabulary import proof

    tokenizers = (base_tokenizer, extension.tokenizer)
    plain = measured.plain_texts or _plain_text(base_tokenizer, extension)
    if not extension.keeps_ids:
        # Old text may be cut anew; what can be proved is that the same ids give the same logits.
        plain = _same_text(*tokenizers, measured.plain_texts) or _same_text(
            *tokenizers, _plain_text(base_tokenizer, extension)
        )
    old_parity = proof.prove_old_text_parity(base, out.root, tokenizers, plain)
    texts = [*measured.new_texts, *plain]
    return {
        "old_text_parity": vars(old_parity),
        "transformers_parity": proof.prove_transformers_parity(out.root, extension.tokenizer, texts),
    }


def _check(measured: Measurement, corpus: str) -> None:
    """The post-conditions on text: nothing is lost, and the new pieces are of use."""
    if measured.failures:
        raise StageError(
            f"{measured.failures} of {measured.documents} documents do not survive encoding and decoding",
            hint="this is a fault in Tsugiki or in the base's tokenizer; please report it",
        )
    if measured.sentencepiece and measured.sentencepiece.differences:
        peer = measured.sentencepiece
        raise StageError(
            f"tokenizer.model gives other ids than tokenizer.json for {peer.differences} of {peer.documents} "
            "documents",
            hint="this is a fault in Tsugiki; please report it with the base model's name",
        )
    tallies = [tally for (dataset, _, _), tally in measured.tallies.items() if dataset == corpus]
    before, after = (
        sum(getattr(tally, name) for tally in tallies) for name in ("tokens_before", "tokens_after")
    )
    if before == 0:
        raise DataError(f'"{corpus}" holds no text to measure on', hint="name a corpus with documents")
    if after >= before:
        raise StageError(
            f'the new pieces save nothing: "{corpus}" has {before} tokens before and {after} after',
            hint="the base may know this language already; try a larger `add`, or go on without an extension",
        )


def _plain_text(base: TextTokenizer, extension: Extension) -> list[str]:
    from itertools import islice

    from tsugiki.vocabulary.measure import plain_pieces_text

    return list(islice(plain_pieces_text(base, extension), 4 * _PARITY_TEXTS))


def _same_text(base: TextTokenizer, extended: TextTokenizer, texts: Sequence[str]) -> list[str]:
    encoded = zip(texts, base.encode_batch(texts), extended.encode_batch(texts), strict=True)
    return [text for text, old_T, new_T in encoded if old_T.tolist() == new_T.tolist()]


def _row_facts(out: Workspace, extension: Extension) -> dict[str, Any]:
    """Norms of the new and old rows of the input embedding, and of the head where there is one."""
    from tsugiki.models.directory import EMBEDDING, HEAD
    from tsugiki.models.weights import read_headers, read_tensors
    from tsugiki.vocabulary.rows import row_facts

    headers = read_headers(out.root)
    named = {"new_row_norms": EMBEDDING, "new_head_row_norms": HEAD}
    return {
        key: row_facts(tensor, extension.base_size)
        for key, name in named.items()
        if name in headers
        for _, tensor in read_tensors(headers[name].file, [name])
    }


def _read_config(out: Workspace) -> dict[str, Any]:
    from tsugiki.artifacts.files import read_json
    from tsugiki.models.directory import CONFIG_FILE

    shape: dict[str, Any] = read_json(out.root / CONFIG_FILE)
    return shape


def _counts(out: Workspace, config: Config, measured: Measurement, extension: Extension) -> dict[str, int]:
    from tsugiki.models.directory import read_config

    tallies = [tally for (dataset, _, _), tally in measured.tallies.items() if dataset == config.corpus]
    return {
        "vocabulary_size": extension.tokenizer.size,
        "added": extension.added,
        "parameters": read_config(out.root).parameters,
        "measured_documents": sum(tally.documents for tally in tallies),
        "measured_characters": sum(tally.characters for tally in tallies),
        "measured_bytes": sum(tally.bytes for tally in tallies),
        "tokens_before": sum(tally.tokens_before for tally in tallies),
        "tokens_after": sum(tally.tokens_after for tally in tallies),
    }
