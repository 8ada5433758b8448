"""`tsugiki corpus|vocabulary|train|evaluate`: each stage alone, on plain files, without a recipe.

Imported only when one of them is called: its options are the fields of the stage's Config, so the two can't
drift apart. The result is an artifact like that of a run, resumable and guarded against drift.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tsugiki.artifacts.contract import StageConfig
from tsugiki.artifacts.manifest import read_manifest
from tsugiki.workflow.display import choose_display
from tsugiki.workflow.kinds import stage_module
from tsugiki.workflow.recipe import Recipe, Stage
from tsugiki.workflow.running import RunOptions, run_alone

_EXAMPLES = {
    "corpus": "tsugiki corpus out/japanese --source 'crawl/*.warc.gz' --language ja --heldout 0.1",
    "vocabulary": "tsugiki vocabulary out/extended --model base/ --corpus out/japanese --add 8k",
    "train": "tsugiki train out/adapted --model out/extended --data '{\"out/japanese\": 1.0}' --tokens 10M",
    "evaluate": "tsugiki evaluate out/scores --models base/ --models out/adapted --heldout out/japanese",
}


def _command(kind: str) -> Callable[..., None]:
    config_type: Any = stage_module(kind).Config

    def command(
        out: Path,
        *,
        config: Annotated[config_type, Parameter(name="*")],
        rebuild: Annotated[bool, Parameter(negative="", show_default=False)] = False,
        json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    ) -> None:
        _run(kind, out, config, rebuild=rebuild, json=json)

    command.__name__ = kind
    command.__doc__ = f"""{(config_type.__doc__ or "").strip()}

    Inputs are directories that other stages made, or plain files. Killed at any moment, the same command
    goes on where it was.

    Example: `{_EXAMPLES[kind]}`

    Args:
        out: Directory of the result; made if absent.
        rebuild: Replace a result that was made from something else.
        json: Print the manifest's counts and facts as JSON.
    """
    return command


def _run(kind: str, out: Path, config: StageConfig, *, rebuild: bool, json: bool) -> None:
    name = out.resolve().name
    data = {"stages": {name: {"kind": kind}}}
    recipe = Recipe(Path("command line"), name, "", "", {name: Stage(name, kind, config)}, data)
    display = choose_display(silent=json)
    try:
        run_alone(recipe, out.resolve(), RunOptions(rebuild=rebuild), display)
    finally:
        display.close()
    manifest = read_manifest(out)
    if json:
        done = {"directory": str(out), "counts": manifest.counts, "facts": manifest.facts}
        print(json_module.dumps(done, indent=2, ensure_ascii=False))
    else:
        print(out)


def __getattr__(name: str) -> Callable[..., None]:
    """The command of a kind, made when it is asked for: the other stages are not imported."""
    if name not in _EXAMPLES:
        raise AttributeError(name)
    return _command(name)
