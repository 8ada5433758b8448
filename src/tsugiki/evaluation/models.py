"""The models of an evaluation: how to load each, all of them with the same window; and followers' work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsugiki.artifacts.contract import Inputs, Workspace, open_workspace
from tsugiki.errors import InputError
from tsugiki.evaluation.backend import Backend
from tsugiki.evaluation.engines.loading import Engine, load_backend, trained_context
from tsugiki.evaluation.engines.remote import RemoteBackend, Server
from tsugiki.evaluation.sharing import Share
from tsugiki.models.directory import resolve_model

if TYPE_CHECKING:
    from tsugiki.evaluation.stage import Config


def loaders_of(
    config: Config, inputs: Inputs, names: Mapping[str, str], out: Workspace
) -> dict[str, Callable[[], Backend]]:
    """How to load each model, by its name in the rows.

    names: the name of each model of the configuration. Raises InputError for what is neither a model
    directory, nor a hub id, nor the address of a server.
    """
    from tsugiki.evaluation.stage import is_address

    served = {names[model]: _server(config, model) for model in names if is_address(model)}
    directories = {
        names[model]: resolve_model(inputs.path(model) if model in inputs else model)
        for model in names
        if not is_address(model)
    }
    loaders: dict[str, Callable[[], Backend]] = {
        name: _remote_loader(server) for name, server in served.items()
    }
    if not directories:
        return loaders
    window = config.context_length or min(trained_context(path) for path in directories.values())
    engine = Engine(
        context_length=window,
        stride=config.stride or max(1, window * 3 // 4),
        batch_tokens=config.batch_tokens,
        precision=config.precision,
        device=config.device,
        boundary=config.boundary,
    )
    out.log.info("window of %d tokens, stride %d", engine.context_length, engine.stride)
    return loaders | {
        name: _local_loader(name, directory, engine, out) for name, directory in directories.items()
    }


def _local_loader(name: str, directory: Path, engine: Engine, out: Workspace) -> Callable[[], Backend]:
    def load() -> Backend:
        out.log.info("loading %s", name)
        return load_backend(directory, engine)

    return load


def _remote_loader(server: Server) -> Callable[[], Backend]:
    return lambda: RemoteBackend(server)


def _server(config: Config, model: str) -> Server:
    """The server behind `http://host/v1#model`."""
    address, mark, name = model.partition("#")
    if not (mark and name):
        raise InputError(
            f"{model} does not say which model the server is asked for",
            hint=f"write {address}#NAME, with the name that {address.rstrip('/')}/models gives",
        )
    return Server(
        address,
        name,
        likelihoods=config.server_likelihoods,
        boundary=config.boundary,
        concurrency=config.concurrency,
        key=None if config.server_key is None else _key(Path(config.server_key)),
    )


def _key(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the key of the server can't be read from {path}: {error}",
            hint="write it into a file that only you may read",
        ) from error
    if not key or not key.isprintable() or " " in key:
        raise InputError(f"{path} holds no key", hint="write the key alone into the file")
    return key


def take_part(work: Path) -> None:
    """For the other processes: answer a share of the items of the evaluation whose directory is `work`."""
    from tsugiki.evaluation import sharing

    sharing.follow(work, answer_job)


def answer_job(job: Mapping[str, Any], share: Share) -> None:
    """Answer this process's part of the job that process 0 has left (`sharing.lead`)."""
    from tsugiki.evaluation.engines.loading import cpu_threads
    from tsugiki.evaluation.items import dataset_names
    from tsugiki.evaluation.launching import threads_of
    from tsugiki.evaluation.runner import answer_share, plan_units
    from tsugiki.evaluation.stage import Config, questions_of

    assert share.directory is not None  # noqa: S101 (`follow` gives one)
    config = Config.model_validate(job["config"])
    inputs = Inputs({name: tuple(map(Path, paths)) for name, paths in job["inputs"].items()})
    out = open_workspace(share.directory / f"process-{share.rank}")
    names = dataset_names(config.models)
    units = plan_units(tuple(names.values()), questions_of(config, inputs, out))
    with cpu_threads(threads_of(config.threads, config.processes)):
        answer_share(
            units,
            loaders_of(config, inputs, names, out),
            share.directory / "units",
            lambda *_: None,
            maximum_error_share=config.maximum_error_share,
            share=share,
        )
