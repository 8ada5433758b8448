"""The kinds of stages that a recipe may name. A dictionary, so that adding one is adding a line."""

from __future__ import annotations

import importlib
from typing import Any, Protocol, cast

from tsugiki.artifacts.contract import (
    ArtifactType,
    Forecast,
    Forecasts,
    Inputs,
    Outcome,
    StageConfig,
    Workspace,
)

KINDS = {
    "corpus": "tsugiki.corpus.stage",
    "vocabulary": "tsugiki.vocabulary.stage",
    "upcycle": "tsugiki.upcycling.stage",
    "train": "tsugiki.training.stage",
    "evaluate": "tsugiki.evaluation.stage",
}


class StageModule(Protocol):
    """The door of a stage package; see `tsugiki.artifacts.contract`."""

    KIND: str
    PRODUCES: ArtifactType
    CODE_VERSION: int
    Config: type[StageConfig]

    def estimate(self, config: Any, inputs: Forecasts) -> Forecast:
        """Foretell the result and its cost; no work is done."""

    def run(self, config: Any, inputs: Inputs, out: Workspace) -> Outcome:
        """Do the work."""


def stage_module(kind: str) -> StageModule:
    """The `stage.py` of a kind; raises KeyError for a kind that is not in KINDS."""
    return cast("StageModule", importlib.import_module(KINDS[kind]))
