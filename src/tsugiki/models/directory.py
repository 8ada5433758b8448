"""Hugging Face model directories: reading, writing, and proving that transformers agrees."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tsugiki.artifacts.files import read_json, write_bytes, write_json
from tsugiki.errors import InputError, StageError
from tsugiki.models.config import DecoderConfig
from tsugiki.models.decoder import Decoder
from tsugiki.models.tokenizer import TOKENIZER_FILE, TextTokenizer, pieces_in_json
from tsugiki.models.weights import SHARD_BYTES, read_headers, read_tensors, weight_files, write_weights

CONFIG_FILE = "config.json"
_FAULTS_SHOWN = 20
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"

_DOWNLOADED = ("model*.safetensors", "*.json", "*.jinja", "tokenizer.model")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_STALE_BUFFER = "rotary_emb.inv_freq"  # stored by transformers before 4.32; recomputed by everyone since


def read_config(directory: Path) -> DecoderConfig:
    """The decoder's shape from config.json; raises InputError where it is missing or not supported."""
    return DecoderConfig.from_hf(read_json(directory / CONFIG_FILE))


def load_decoder(directory: Path, *, dtype: torch.dtype = torch.float32) -> Decoder:
    """A decoder with the weights of a model directory, on the CPU, cast to `dtype`.

    Raises InputError that lists every missing, unknown or misshaped tensor; nothing is left at random values.
    """
    config = read_config(directory)
    with torch.device("meta"):
        decoder = Decoder(config)
    expected = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    stored = {
        name: entry for name, entry in read_headers(directory).items() if not name.endswith(_STALE_BUFFER)
    }
    if config.tied_embeddings:
        stored.pop(HEAD, None)  # some writers store the tied matrix under both names
    _check_tensors(directory, expected, {name: entry.shape for name, entry in stored.items()})
    weights = {
        # A copy: safetensors maps the file, and where the map lies decides how kernels round.
        name: tensor.to(dtype, copy=True)
        for file in weight_files(directory)
        for name, tensor in read_tensors(file, [name for name, entry in stored.items() if entry.file == file])
    }
    decoder.load_state_dict(weights, assign=True)
    return decoder


def _check_tensors(
    directory: Path, expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, tuple[int, ...]]
) -> None:
    faults = [f"{name} is missing" for name in expected if name not in stored]
    faults += [f"{name} is not known" for name in stored if name not in expected]
    faults += [
        f"{name} has shape {list(stored[name])}, config.json says {list(shape)}"
        for name, shape in expected.items()
        if name in stored and stored[name] != shape
    ]
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:_FAULTS_SHOWN])
        more = f"\n  and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
        raise InputError(
            f"the weights in {directory} are not those of its {CONFIG_FILE}:\n{shown}{more}",
            hint="fetch the model again, or mend config.json",
        )


def save_model(
    decoder: Decoder, tokenizer: TextTokenizer, directory: Path, *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write a directory that `transformers` loads: config, weights, tokenizer; each file atomically.

    The same decoder and tokenizer give the same bytes. config.json takes the tokenizer's first and last
    token. Raises InputError where the tokenizer has more pieces than the embedding has rows.
    """
    config = replace(decoder.config, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    if tokenizer.size > config.vocabulary_size:
        raise InputError(
            f"the tokenizer has {tokenizer.size} pieces, the embedding {config.vocabulary_size} rows",
            hint="make the decoder with the tokenizer's size",
        )
    write_weights(directory, decoder.state_dict(), shard_bytes=shard_bytes)
    write_tokenizer(tokenizer, directory)
    generation = {"bos_token_id": config.bos_id, "eos_token_id": config.eos_id}
    write_json(directory / "generation_config.json", {"_from_model_config": True, **generation})
    dtype = str(decoder.head_weight_VD.dtype).removeprefix("torch.")
    write_json(directory / CONFIG_FILE, {**config.to_hf(), "torch_dtype": dtype})


def differing_tensors(decoder: Decoder, directory: Path) -> list[str]:
    """Names of the tensors that are not, to the bit, in `directory` what they are in `decoder`, sorted.

    decoder: on the CPU. One tensor at a time is read.
    """
    expected = decoder.state_dict()
    equal = {
        name
        for file in weight_files(directory)
        for name, stored in read_tensors(file)
        if name in expected and torch.equal(stored, expected[name])
    }
    return sorted(expected.keys() ^ equal)


def write_tokenizer(tokenizer: TextTokenizer, directory: Path) -> None:
    """Write tokenizer.json and the files beside it, each atomically."""
    for name, content in tokenizer.files().items():
        write_bytes(directory / name, content)


def vocabulary_size(directory: Path) -> int:
    """The number of rows of the vocabulary, after checking that everything agrees on it.

    Asserts tokenizer pieces ≤ rows of the input embedding = `vocab_size` of config.json (= rows of the
    output head where there is one); reads only JSON files and the headers of the weights. Raises InputError
    otherwise.
    """
    claimed = read_json(directory / CONFIG_FILE).get("vocab_size")
    headers = read_headers(directory)
    if EMBEDDING not in headers:
        raise InputError(f"{directory} holds no {EMBEDDING}", hint="choose a Llama-family model")
    rows = {name: headers[name].shape[0] for name in (EMBEDDING, HEAD) if name in headers}
    pieces = pieces_in_json(read_json(directory / TOKENIZER_FILE))
    if {claimed} != set(rows.values()) or pieces > rows[EMBEDDING]:
        seen = ", ".join(f"{name} {count} rows" for name, count in rows.items())
        raise InputError(
            f"{directory} is at odds about its vocabulary: {CONFIG_FILE} says {claimed}, {seen}, "
            f"{TOKENIZER_FILE} has {pieces} pieces",
            hint="the rows have to be config.json's vocab_size, and no fewer than the tokenizer's pieces",
        )
    return rows[EMBEDDING]


@dataclass(frozen=True)
class Parity:
    """How far our logits are from those of transformers, over all of `positions` tokens."""

    max_abs_difference: float
    tolerance: float
    positions: int


def check_parity(directory: Path, ids_BT: Tensor, tolerance: float = 1e-4) -> Parity:
    """Compare our logits with those of transformers' AutoModelForCausalLM, both in float32.

    The two models are in memory one after the other, never together. Remote code is never run.
    Raises StageError where any logit differs by more than `tolerance`.
    """
    with torch.inference_mode():
        ours_BTV = load_decoder(directory)(ids_BT)
        theirs_BTV = _transformers_logits(directory, ids_BT)
    difference = float((ours_BTV - theirs_BTV).abs().max())
    if not difference <= tolerance:
        raise StageError(
            f"the logits of {directory} differ from those of transformers by {difference:.3g} "
            f"(tolerance {tolerance:g})",
            hint="this is a fault in Tsugiki or a model that it does not support; please report it",
        )
    return Parity(difference, tolerance, ids_BT.numel())


def _transformers_logits(directory: Path, ids_BT: Tensor) -> Tensor:
    from transformers import AutoModelForCausalLM

    with _quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
    return model.float().eval()(ids_BT).logits


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without the progress bar that transformers draws for a file that loads in milliseconds."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def resolve_model(name_or_path: str | Path) -> Path:
    """The directory of a model: a local one as it is, a hub id (`owner/name`) downloaded or from the cache.

    Only safetensors, JSON and tokenizer files are fetched. Raises InputError where there is no such
    directory, or where the hub can't be reached, asks for a licence, or has no such model.
    """
    path = Path(name_or_path)
    if (path / CONFIG_FILE).exists():
        return path
    if path.exists() or not _HUB_ID.fullmatch(str(name_or_path)):
        raise InputError(
            f"{path} is neither a model directory (no {CONFIG_FILE}) nor the id of a hub model",
            hint="name a directory with config.json, or a hub model such as meta-llama/Llama-2-7b-hf",
        )
    return _download(str(name_or_path))


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(_DOWNLOADED)))
    except GatedRepoError as error:
        raise InputError(
            f"the hub gives {hub_id} only to those who accepted its licence",
            hint="accept it on the model's page, then set HF_TOKEN to a token of yours",
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"the hub has no model {hub_id}, or it is private",
            hint="check the name; for a private one set HF_TOKEN",
        ) from error
    except (HfHubHTTPError, OSError) as error:  # offline mode and an unreachable hub are both OSErrors
        raise InputError(
            f"{hub_id} is not in the local cache and the hub can't be reached: {type(error).__name__}",
            hint="check the network and HF_HUB_OFFLINE, or give the path of a local copy",
        ) from error
