"""What a worker loads once for all of its units: pack, rules, lists, benchmark items, the classifier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa

from tsugiki.artifacts.documents import BASE_FIELDS
from tsugiki.corpus.classifier.model import Classifier, load_classifier
from tsugiki.corpus.cleaning.clean import CleanOptions
from tsugiki.corpus.config import QUALITY, Config, packs_of, rules_for
from tsugiki.corpus.contamination import Contamination
from tsugiki.corpus.features import feature_types
from tsugiki.corpus.hosts.filter import UrlFilter
from tsugiki.corpus.hosts.lists import HostLists
from tsugiki.corpus.resources import Resources
from tsugiki.corpus.rules import Rule
from tsugiki.languages import LanguagePack, load_pack

__all__ = ["CONTAMINATED", "Resources", "Toolbox", "open_toolbox", "save_host_lists", "toolbox_of"]

CONTAMINATED = "contaminated_items"


@dataclass(frozen=True)
class Toolbox:
    """Everything that decides over a document, ready to use."""

    config: Config
    pack: LanguagePack
    rules: tuple[Rule, ...]
    cleaning: CleanOptions
    urls: UrlFilter
    contamination: Contamination | None
    classifier: Classifier | None

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """The feature columns of a document, with their types."""
        extra: dict[str, pa.DataType] = {}
        if self.contamination is not None:
            extra[CONTAMINATED] = pa.int64()
        if self.classifier is not None:
            extra[QUALITY] = pa.float64()
        return {**feature_types(self.pack), **extra}

    @property
    def schema(self) -> pa.Schema:
        """The columns of a unit's files and of the documents: base fields, then features."""
        return pa.schema([*BASE_FIELDS, *(pa.field(name, kind) for name, kind in self.columns.items())])


def open_toolbox(config: Config, resources: Resources) -> Toolbox:
    """Load everything; raises InputError with what is wrong in a list, an item file or a model."""
    cleanup = config.cleanup
    options = CleanOptions(
        punctuation=cleanup.punctuation,
        footer=cleanup.footer,
        nfkc=cleanup.nfkc,
        personal_data=cleanup.personal_data,
    )
    pack = load_pack(config.language, packs_of(config))
    lists = HostLists.load(Path(resources.host_lists)) if resources.host_lists else None
    return Toolbox(
        config=config,
        pack=pack,
        rules=tuple(rules_for(config)),
        cleaning=options,
        urls=UrlFilter(tuple(pack.hosts.excluded), lists),
        contamination=_contamination(config, resources, pack),
        classifier=_classifier(config, resources),
    )


@cache
def toolbox_of(job: str) -> Toolbox:
    """The toolbox of a job's `config` and `resources` (as JSON text), loaded once a process."""
    data = json.loads(job)
    return open_toolbox(Config.model_validate(data["config"]), Resources.from_dict(data["resources"]))


def save_host_lists(paths: Sequence[Path], categories: Sequence[str] | None, target: Path) -> None:
    """Read block lists once, and save them for the workers. Raises InputError for what can't be read."""
    HostLists.from_paths(paths, categories).save(target)


def _classifier(config: Config, resources: Resources) -> Classifier | None:
    if config.classifier is None or resources.classifier is None:
        return None
    return load_classifier(Path(resources.classifier), config.classifier.positive)


def _contamination(config: Config, resources: Resources, pack: LanguagePack) -> Contamination | None:
    if config.decontaminate is None:
        return None
    return Contamination.from_files(
        [Path(item) for item in resources.items],
        pack,
        config.decontaminate.ngram,
        config.decontaminate.fields,
    )
