"""`kind: vocabulary`: a model and documents in, the model with new pieces out, and proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tsugiki.artifacts.contract import (
    ArtifactType,
    Count,
    Forecast,
    Forecasts,
    Inputs,
    Outcome,
    Reference,
    StageConfig,
    Workspace,
)
from tsugiki.errors import DataError, StageError

if TYPE_CHECKING:
    from pathlib import Path

    from tsugiki.models.tokenizer import TextTokenizer
    from tsugiki.vocabulary.extend import Extension
    from tsugiki.vocabulary.measure import Measurement

KIND = "vocabulary"
PRODUCES = ArtifactType.MODEL
CODE_VERSION = 1

_PARITY_TEXTS = 8
_BYTES_OF_DTYPE = {"float32": 4, "bfloat16": 2, "float16": 2}

# For the forecast, measured on two cores: learning, and encoding twice with round trips.
_LEARNING_CHARACTERS_PER_SECOND = 300_000
_MEASURING_CHARACTERS_PER_SECOND = 1_500_000
_COPIED_BYTES_PER_SECOND = 200e6
_LEARNING_BYTES_PER_CHARACTER = 200
_SECONDS_TO_START = 3.0
_PROCESS_BYTES = 0.6e9  # torch, transformers and numba, loaded


class Config(StageConfig):
    """What the vocabulary stage reads and makes."""

    model: str = Field(description="The model to extend: a stage, a directory, or a Hugging Face hub id.")
    corpus: str = Field(description="Documents in the new language; pieces are learnt on their train split.")
    add: Count = Field(
        description="New pieces wanted. More are added where the rows would not divide by `multiple_of`."
    )
    method: Literal["append"] = Field(
        default="append",
        description="append: merges learnt on the base's own segmentation follow the base's merges.",
    )
    initialise: Literal["subtoken-mean", "random"] = Field(
        default="subtoken-mean",
        description="New rows of both embeddings: the mean of a piece's old parts' rows, or random ones.",
    )
    multiple_of: int = Field(
        default=8,
        gt=0,
        description="The number of rows will divide by this (Swallow: 8, for 8 tensor-parallel devices). "
        "More pieces are learnt rather than rows left empty.",
    )
    minimum_count: int = Field(
        default=2, gt=0, description="A new piece's last merge has to occur this often in the documents."
    )
    max_piece_characters: int = Field(
        default=16,
        gt=0,
        le=256,
        description="The longest new piece in characters (sentencepiece's default: 16).",
    )
    ascii_pieces: Literal["auto", "keep", "drop"] = Field(
        default="auto",
        description="Whether new pieces may be ASCII alone. With drop, all ASCII text (English, code) keeps "
        "its tokens. auto: keep if most letters of the documents are ASCII.",
    )
    sample: Count = Field(
        default=20_000_000,
        description="Characters to learn and measure on; of a larger corpus an even sample is taken.",
    )
    measure: tuple[str, ...] = Field(
        default=(),
        description="Further documents on which tokens before and after are counted (held-out split).",
    )

    def references(self) -> tuple[Reference, ...]:
        """The model, the documents to learn on, and those to measure on."""
        return (
            Reference("model", self.model, ArtifactType.MODEL),
            Reference("corpus", self.corpus, ArtifactType.DOCUMENTS),
            *(
                Reference(f"measure.{place}", name, ArtifactType.DOCUMENTS)
                for place, name in enumerate(self.measure)
            ),
        )


def final_rows(rows: int, add: int, multiple_of: int) -> int:
    """Rows of the extended embedding: at least `rows` + `add`, and a multiple of `multiple_of`."""
    return -(-(rows + add) // multiple_of) * multiple_of


def estimate(config: Config, inputs: Forecasts) -> Forecast:
    """The extended model's shape, and the cost of making it.

    Memory: the float32 model that the parity of logits is checked with, or the largest weight file (5 GB by
    custom) with what the learner holds, whichever is more. Weights are streamed file by file otherwise.
    """
    model = inputs.get(config.model, Forecast(ArtifactType.MODEL))
    facts = {"tokenizer": _tokenizer_name(config)}
    config_hf: Mapping[str, Any] | None = model.facts.get("model_config")
    if config_hf is None:
        return Forecast(PRODUCES, facts=facts)
    shape = {
        **config_hf,
        "vocab_size": final_rows(int(config_hf["vocab_size"]), config.add, config.multiple_of),
    }
    parameters = float(model.counts.get("parameters", 0)) + _new_parameters(config_hf, shape)
    counts = {"vocabulary_size": shape["vocab_size"], "parameters": parameters}
    dtype = config_hf.get("torch_dtype") or config_hf.get("dtype") or "bfloat16"
    disk_bytes = parameters * _BYTES_OF_DTYPE.get(str(dtype), 4)
    read = [
        min(inputs[name].counts.get("characters", 0), config.sample)
        for name in (config.corpus, *config.measure)
        if name in inputs
    ]
    learnt = read[0] if read else 0
    # The weights are copied once, then read by the base's, our and transformers' decoder.
    seconds = _SECONDS_TO_START + 4 * disk_bytes / _COPIED_BYTES_PER_SECOND
    seconds += learnt / _LEARNING_CHARACTERS_PER_SECOND + sum(read) / _MEASURING_CHARACTERS_PER_SECOND
    streaming_bytes = min(5e9, disk_bytes) + learnt * _LEARNING_BYTES_PER_CHARACTER
    memory_bytes = _PROCESS_BYTES + max(4.4 * parameters, streaming_bytes)
    return Forecast(
        PRODUCES,
        counts,
        {"model_config": shape, **facts},
        seconds=seconds,
        memory_bytes=memory_bytes,
        disk_bytes=disk_bytes,
    )


def _tokenizer_name(config: Config) -> str:
    """The same in forecast and result: which tokenizer this is, as a name to compare by."""
    return f"{config.model}+{config.corpus}:{config.add}"


def _new_parameters(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    tables = 1 if before.get("tie_word_embeddings") else 2
    return (int(after["vocab_size"]) - int(before["vocab_size"])) * int(before["hidden_size"]) * tables


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

    base = resolve_model(inputs.path(config.model))
    base_tokenizer = load_tokenizer(base)
    base_rows = vocabulary_size(base)
    extension = _extend(config, inputs, out, base_tokenizer, base_rows)
    out.progress(1, 4, "steps", "writing the model")
    rows.write_extended_model(base, extension, out.root, config.initialise, seed=config.seed)
    size = vocabulary_size(out.root)

    measured = _measure(config, inputs, out, base_tokenizer, extension)
    out.progress(3, 4, "steps", "comparing logits")
    facts = {
        "added": extension.added,
        "fragments": extension.fragments,
        "base_size": extension.base_size,
        "size": size,
        "padding_rows": size - extension.tokenizer.size,
        "unreachable": len(unreachable_pieces(extension.tokenizer, extension.base_size)),
        **_logit_facts(base, out, base_tokenizer, extension, measured),
        **_row_facts(out, extension),
        **_text_facts(measured, base_tokenizer, extension),
        "model_config": _read_config(out),
        "tokenizer": _tokenizer_name(config),
        "tokenizer_sha256": extension.tokenizer.sha256,
    }
    out.progress(4, 4, "steps", "done")
    return Outcome(_counts(out, config, measured, extension), facts)


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
        progress=lambda documents: out.progress(2, 4, "steps", f"{documents} documents measured"),
    )
    _check(measured, config.corpus)
    return measured


def _text_facts(measured: Measurement, base: TextTokenizer, extension: Extension) -> dict[str, Any]:
    from tsugiki.vocabulary import measure

    return {
        "round_trip": {"documents": measured.documents, "failures": measured.failures},
        "savings": measure.savings(measured),
        "coverage": measure.coverage(measured, base, extension.tokenizer),
        "examples": measure.examples(measured, extension),
        "unused_share": measure.unused_share(measured, extension),
    }


def _logit_facts(
    base: Path, out: Workspace, base_tokenizer: TextTokenizer, extension: Extension, measured: Measurement
) -> dict[str, Any]:
    from tsugiki.vocabulary import proof

    plain = measured.plain_texts or _plain_text(base_tokenizer, extension)
    tokenizers = (base_tokenizer, extension.tokenizer)
    old_parity = proof.prove_old_text_parity(base, out.root, tokenizers, plain)
    texts = [*measured.new_texts, *plain]
    return {
        "old_text_parity": vars(old_parity),
        "transformers_parity": proof.prove_transformers_parity(out.root, extension.tokenizer, texts),
    }


def _extend(config: Config, inputs: Inputs, out: Workspace, base: TextTokenizer, base_rows: int) -> Extension:
    from tsugiki.vocabulary.extend import check_extendable, extend_tokenizer
    from tsugiki.vocabulary.learner import Limits
    from tsugiki.vocabulary.words import segment_words, training_texts

    check_extendable(base)
    out.progress(0, 4, "steps", "learning pieces")
    words = segment_words(base, training_texts(inputs.path(config.corpus), config.sample))
    keeps_ascii = words.mostly_ascii if config.ascii_pieces == "auto" else config.ascii_pieces == "keep"
    wanted = final_rows(base_rows, config.add, config.multiple_of) - base.size
    limits = Limits(wanted, config.minimum_count, config.max_piece_characters, keeps_ascii)
    extension = extend_tokenizer(base, words, limits)
    out.log.info(
        "%d pieces added to %d (%d of them fragments of characters); ASCII pieces %s",
        extension.added,
        extension.base_size,
        extension.fragments,
        "kept" if keeps_ascii else "dropped",
    )
    return extension


def _check(measured: Measurement, corpus: str) -> None:
    """The post-conditions on text: nothing is lost, and the new pieces are of use."""
    if measured.failures:
        raise StageError(
            f"{measured.failures} of {measured.documents} documents do not survive encoding and decoding",
            hint="this is a fault in Tsugiki or in the base's tokenizer; please report it",
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
