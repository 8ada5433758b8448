"""Hugging Face model directories: reading, writing, and proving that transformers agrees."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tsugiki.artifacts.files import read_json, write_bytes, write_json
from tsugiki.artifacts.memory import free_memory_bytes
from tsugiki.errors import InputError, StageError
from tsugiki.models import names
from tsugiki.models.config import DecoderConfig
from tsugiki.models.decoder import Decoder
from tsugiki.models.names import (
    export_config,
    export_tensors,
    is_fused,
    stored_pieces,
    stored_shapes,
)
from tsugiki.models.quiet import quiet, without_bars
from tsugiki.models.sharding import copy_whole, gathered, named_parameters
from tsugiki.models.tokenizer import TOKENIZER_FILE, TextTokenizer, pieces_in_json
from tsugiki.models.weights import (
    SHARD_BYTES,
    TensorEntry,
    read_headers,
    read_tensors,
    weight_files,
    write_stream,
)

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
EMBEDDING, HEAD = names.EMBEDDING, names.HEAD
_FAULTS_SHOWN = 20
_FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights that are read as they are; integers and float8 are quantised, and mean nothing alone."""

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
    stored = stored_tensors(config, directory)  # before memory is asked for
    with torch.device("meta"):
        decoder = Decoder(config).to(dtype)
    decoder.to_empty(device="cpu")
    _fill(decoder, stored)
    return decoder


def load_weights(decoder: Decoder, directory: Path) -> None:
    """Fill a decoder, or the part of one that it is, with the weights of a model directory, in place.

    One stored tensor at a time is copied from the mapped file and cast to the decoder's type: no second copy
    of the model is ever held. Parameters may be DTensors: each process copies, and so reads, its own shards
    only, and waits for no other. Tensors of layers that the decoder lacks are passed over. Raises InputError
    as `load_decoder`, before anything is read.
    """
    _fill(decoder, stored_tensors(decoder.config, directory))


def stored_tensors(config: DecoderConfig, directory: Path) -> dict[str, TensorEntry]:
    """Where the weights of a model lie, by their names in the files.

    Raises InputError that lists every missing, unknown or misshaped tensor.
    """
    stored = {
        name: entry for name, entry in read_headers(directory).items() if not name.endswith(_STALE_BUFFER)
    }
    if config.tied_embeddings and (head := stored.pop(HEAD, None)) is not None:
        _check_copy(directory, head, stored.get(EMBEDDING))
    if config.layers > len(stored):
        raise InputError(
            f"{directory / CONFIG_FILE} says {config.layers} layers; the weights are {len(stored)} tensors",
            hint="fetch the model again, or mend config.json",
        )
    _check_tensors(directory, stored_shapes(config, fused=is_fused(stored)), stored)
    return stored


def _check_copy(directory: Path, head: TensorEntry, rows: TensorEntry | None) -> None:
    """Some writers store the tied matrix under both names; where the two differ, they were never tied."""
    if rows is None or head.shape != rows.shape:
        return  # said with all that is wrong
    (_, one), (_, two) = (*read_tensors(head.file, [HEAD]), *read_tensors(rows.file, [EMBEDDING]))
    if not torch.equal(one, two):
        raise InputError(
            f"{directory / CONFIG_FILE} says that the embeddings are tied, but {HEAD} and {EMBEDDING} differ",
            hint="set tie_word_embeddings to false; transformers 5 does not tie them either",
        )


def _fill(decoder: Decoder, stored: Mapping[str, TensorEntry]) -> None:
    parameters = named_parameters(decoder)
    pieces = stored_pieces(decoder.config, parameters, fused=is_fused(stored))
    for file in sorted({stored[name].file for name in pieces}):
        for name, tensor in read_tensors(file, [name for name in pieces if stored[name].file == file]):
            targets = [(parameters[piece.name], piece.expert) for piece in pieces[name]]
            heights = [parameter.shape[-2] for parameter, _ in targets] if len(targets) > 1 else []
            wholes = torch.split(tensor, heights, dim=-2) if heights else (tensor,)
            for (parameter, expert), whole in zip(targets, wholes, strict=True):
                copy_whole(parameter, whole, expert)


def _check_tensors(
    directory: Path, expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, TensorEntry]
) -> None:
    faults = [f"{name} is missing" for name in expected if name not in stored]
    faults += [f"{name} is not known" for name in stored if name not in expected]
    faults += [
        f"{name} has shape {list(stored[name].shape)}, config.json says {list(shape)}"
        for name, shape in expected.items()
        if name in stored and stored[name].shape != shape
    ]
    faults += [
        f"{name} is {stored[name].dtype}, which is not one of {', '.join(_FLOATS)}"
        for name in expected
        if name in stored and stored[name].dtype not in _FLOATS
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

    The same decoder and tokenizer give the same bytes. An `embedding_scale` goes into the rows, since no
    Hugging Face family of ours has one (`names.export_config`). config.json takes the tokenizer's first and
    last token. Raises InputError where the tokenizer has more pieces than the embedding has rows.
    """
    config = export_config(decoder.config)
    config = replace(config, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    if tokenizer.size > config.vocabulary_size:
        raise InputError(
            f"the tokenizer has {tokenizer.size} pieces, the embedding {config.vocabulary_size} rows",
            hint="make the decoder with the tokenizer's size",
        )
    dtype = decoder.head_weight_VD.dtype
    write_model_directory(
        config, exported(decoder), tokenizer, directory, dtype=dtype, shard_bytes=shard_bytes
    )


def write_model_directory(
    config: DecoderConfig,
    tensors: Iterable[tuple[str, Tensor]],
    tokenizer: TextTokenizer,
    directory: Path,
    *,
    dtype: torch.dtype,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the files of a model directory. config: as it is stored (`names.export_config`).

    tensors: what the files hold, in `dtype`, in their order, one in memory at a time.
    """
    sizes_bytes = {name: dtype.itemsize * math.prod(shape) for name, shape in stored_shapes(config).items()}
    write_stream(directory, sizes_bytes, tensors, shard_bytes=shard_bytes)
    write_tokenizer(tokenizer, directory)
    if GENERATION_FILE not in tokenizer.side_files:
        generation = {"bos_token_id": config.bos_id, "eos_token_id": config.eos_id}
        write_json(directory / GENERATION_FILE, {"_from_model_config": True, **generation})
    name = str(dtype).removeprefix("torch.")
    write_json(directory / CONFIG_FILE, {**config.to_hf(), "torch_dtype": name})


def exported(decoder: Decoder) -> Iterator[tuple[str, Tensor]]:
    """What the files hold of a decoder, or of the part of one that it is, one tensor after the other.

    Parameters may be DTensors: then all processes that share them have to go through this to its end, and
    each gets the whole tensors, one parameter at a time. Another stage's copy of tied embeddings is left
    out.
    """
    for name, tensor in decoder.state_dict().items():
        if name != HEAD or not decoder.config.tied_embeddings:
            yield from export_tensors(decoder.config, {name: gathered(tensor)}).items()


def differing_tensors(decoder: Decoder, directory: Path) -> list[str]:
    """Names of the tensors that are not, to the bit, in `directory` what they are in `decoder`, sorted.

    decoder: on the CPU. One tensor at a time is read. Names are those of the files.
    """
    expected = dict(exported(decoder))
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
        raise InputError(
            f"{directory} holds no {EMBEDDING}", hint="choose a Llama, Mistral, Mixtral, Qwen2 or Qwen3 model"
        )
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
    """How far our logits are from those of transformers, over all of `positions` tokens.

    layers: those that were in both, from the first on: all of `all_layers` unless memory was too small.
    """

    max_abs_difference: float
    tolerance: float
    positions: int
    layers: int
    all_layers: int

    @property
    def note(self) -> str:
        """What to add where only some layers were compared."""
        return "" if self.layers == self.all_layers else f", of {self.layers} of {self.all_layers} layers"


def check_parity(directory: Path, ids_BT: Tensor, tolerance: float = 1e-4) -> Parity:
    """Compare our logits with those of transformers' AutoModelForCausalLM, both in float32.

    The two models are in memory one after the other, never together; of one that does not fit into what is
    free, as many layers as do, and the head. Remote code is never run. Raises StageError where any logit
    differs by more than `tolerance`.
    """
    config = read_config(directory)
    layers = _layers_that_fit(config, free_memory_bytes())
    with torch.inference_mode():
        ours_BTV = load_first_layers(directory, layers)(ids_BT)
        theirs_BTV = _transformers_logits(directory, config, layers, ids_BT)
    difference = float((ours_BTV - theirs_BTV).abs().max())
    if not difference <= tolerance:
        raise StageError(
            f"the logits of {directory} differ from those of transformers by {difference:.3g} "
            f"(tolerance {tolerance:g})",
            hint="this is a fault in Tsugiki or a model that it does not support; please report it",
        )
    return Parity(difference, tolerance, ids_BT.numel(), layers, config.layers)


def _layers_that_fit(config: DecoderConfig, free_bytes: int) -> int:
    """How many layers, one at least, fit with both ends into three quarters of the free memory."""
    all_bytes = 4 * config.parameters
    ends_bytes = 4 * config.vocabulary_size * config.hidden_size * (1 if config.tied_embeddings else 2)
    layer_bytes = (all_bytes - ends_bytes) / config.layers
    return max(1, min(config.layers, int((0.75 * free_bytes - ends_bytes) // layer_bytes)))


def layers_that_fit(directory: Path) -> int:
    """How many layers of a model, one at least, fit with both ends into three quarters of free memory."""
    return _layers_that_fit(read_config(directory), free_memory_bytes())


def load_first_layers(directory: Path, layers: int) -> Decoder:
    """`load_decoder`, but with the first `layers` layers only, and the head."""
    config = read_config(directory)
    if layers == config.layers:
        return load_decoder(directory)
    with torch.device("meta"):
        decoder = Decoder(config, layers=range(layers))
    decoder.to_empty(device="cpu")
    load_weights(decoder, directory)
    return decoder


def _transformers_logits(directory: Path, config: DecoderConfig, layers: int, ids_BT: Tensor) -> Tensor:
    from transformers import AutoConfig, AutoModelForCausalLM

    with quiet(), without_bars():
        theirs = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
        if layers < config.layers:
            theirs.num_hidden_layers = layers
            if getattr(theirs, "layer_types", None):
                theirs.layer_types = theirs.layer_types[:layers]
        model = AutoModelForCausalLM.from_pretrained(
            directory, config=theirs, trust_remote_code=False, local_files_only=True
        )
    return model.float().eval()(ids_BT).logits


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
