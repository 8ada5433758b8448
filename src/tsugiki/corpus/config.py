"""What the corpus stage may be told; every field is a key of a recipe and an option of `tsugiki corpus`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tsugiki.artifacts.contract import EXECUTION, ArtifactType, Count, Reference, StageConfig
from tsugiki.artifacts.identity import identity_of
from tsugiki.errors import InputError

if TYPE_CHECKING:
    from tsugiki.corpus.rules import Rule

QUALITY = "quality"
"""Column of the classifier's score, and name of the rule on it."""

_FACTS = ConfigDict(extra="forbid", frozen=True)


class NearDuplicates(BaseModel):
    """MinHash parameters.

    The default is Swallow's: 40 buckets of 20 hashes, which detect 37 % of pairs with a similarity of 0.8 and
    99.4 % of those with 0.9.
    """

    model_config = _FACTS
    ngram: int = Field(default=5, ge=1, le=64, description="Length of the character n-grams.")
    bands: int = Field(default=40, ge=1, le=4096, description="Bands (Swallow's r, buckets).")
    rows: int = Field(default=20, ge=1, le=256, description="Hashes a band (Swallow's b).")
    keep: Literal["newest", "longest", "best", "first"] = Field(
        default="newest", description="Which document of a cluster survives; best: the classifier's score."
    )
    verify: float | None = Field(
        default=None, gt=0, le=1, description="Join only pairs whose real Jaccard similarity is this or more."
    )
    against: tuple[str, ...] = Field(
        default=(), description="Earlier corpora with an index: what they hold already is a near-duplicate."
    )
    index: bool = Field(default=False, description="Keep an index, so that later corpora can name this one.")
    weights: dict[int, int] | None = Field(
        default=None,
        description="How often to repeat a document, by the least size of its cluster; default FineWeb-2's.",
    )


class HostRules(BaseModel):
    """Which hosts are left out as a whole (Swallow Corpus, arXiv 2404.17733; corpus.md §1.5)."""

    model_config = _FACTS
    lists: str | None = Field(
        default=None, description="Block lists in UT1's format: a folder, an archive, or a plain file."
    )
    categories: tuple[str, ...] | None = Field(
        default=None, description="Categories of the lists that count; default Swallow's."
    )
    statistics: bool = Field(
        default=True, description="Block hosts by the share of their pages that the pack's lists hit."
    )
    dating_share: float = Field(default=0.001, ge=0, le=1, description="Most pages with a dating-site name.")
    ng_share: float = Field(default=0.005, ge=0, le=1, description="Most pages with an NG expression.")
    minimum_documents: int = Field(
        default=1, ge=1, description="Hosts with fewer pages are not judged by shares."
    )
    scope: Literal["host", "domain"] = Field(
        default="host", description="Count by host, or by registered domain."
    )


class Cleanup(BaseModel):
    """What is mended in documents that passed, as far as the language pack has facts for it."""

    model_config = _FACTS
    punctuation: bool = Field(default=True, description="One kind of comma and full stop, by majority.")
    footer: Literal["off", "safe", "swallow"] = Field(
        default="safe", description="Cut page footers; swallow: as Swallow's code, which can empty a page."
    )
    nfkc: bool = Field(default=False, description="Unicode normalisation form KC.")
    personal_data: bool = Field(
        default=True, description="Mask mail addresses, telephone, card and identity numbers."
    )


class Decontamination(BaseModel):
    """Benchmark items that no document may hold."""

    model_config = _FACTS
    items: tuple[str, ...] = Field(min_length=1, description="Files of items: .jsonl(.gz, .zst) or .parquet.")
    fields: tuple[str, ...] | None = Field(
        default=None, description="Fields that hold text; default all strings."
    )
    ngram: int | None = Field(
        default=None, ge=4, le=512, description="Length of the character n-grams; default the pack's."
    )
    reject: bool = Field(default=True, description="Reject documents that are hit; else only count them.")


class QualityModel(BaseModel):
    """A classifier's score as a column, and how high it has to be."""

    model_config = _FACTS
    model: str = Field(description="Directory of `tsugiki corpus train-classifier`, or a fastText file.")
    minimum: float | None = Field(default=None, ge=0, le=1, description="Reject documents below this score.")
    positive: tuple[str, ...] = Field(
        default=(), description="Of a fastText model whose labels are no numbers: those of good documents."
    )


class Expected(BaseModel):
    """What a corpus that is not on this machine is known to give, for `plan`."""

    model_config = _FACTS
    documents: Count | None = Field(default=None, description="Kept documents.")
    characters: Count | None = Field(default=None, description="Characters of their text.")
    bytes: Count | None = Field(default=None, description="UTF-8 bytes of their text.")
    sample: str | None = Field(
        default=None, description="A finished corpus of a part of it: its measured yields and speed count."
    )
    snapshots: float | None = Field(
        default=None, gt=0, description="Common Crawl snapshots, for times and disk by the sample."
    )


class Config(StageConfig):
    """What the corpus stage reads and how it chooses."""

    source: Annotated[str | list[str], EXECUTION] = Field(
        description="Paths, globs or addresses (https://, s3://) of WARC, WET, JSON lines or Parquet files."
    )
    language: str = Field(description="Code of the language pack, e.g. ja.")
    language_packs: Annotated[tuple[str, ...], EXECUTION] = Field(
        default=(), description="Folders that are searched for language packs before our own."
    )
    rules: str = Field(
        default="pack", description="Quality rules: pack (its default), none, or one of its named sets."
    )
    rule_overrides: dict[str, float] = Field(
        default_factory=dict, description="Thresholds by the rule's name in place of the pack's."
    )
    near_duplicates: NearDuplicates = Field(
        default=NearDuplicates(), description="How near-duplicates are found and which one is kept."
    )
    hosts: HostRules = Field(default=HostRules(), description="Which hosts are left out.")
    cleanup: Cleanup = Field(default=Cleanup(), description="What is mended in documents that passed.")
    decontaminate: Decontamination | None = Field(
        default=None, description="Benchmark items that no document may hold."
    )
    classifier: QualityModel | None = Field(default=None, description="A quality classifier's score.")
    heldout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the documents to hold out of training, in whole groups.",
    )
    heldout_similarity: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Documents at least this alike (Jaccard, character n-grams) stay on one side.",
    )
    heldout_max_documents: int | None = Field(
        default=None, ge=1, description="Hold out at most this many documents."
    )
    extractor: Literal["cascade", "resiliparse", "trafilatura"] = Field(
        default="cascade",
        description="What takes the main text out of a page; cascade: own blocks, else trafilatura.",
    )
    expected: Annotated[Expected | None, EXECUTION] = Field(
        default=None, description="Known size of the result, for planning with data that is elsewhere."
    )
    workers: Annotated[int | None, EXECUTION] = Field(
        default=None, ge=1, description="Processes; by default as many as cores, one for small inputs."
    )
    engine: Annotated[Literal["local", "ray"], EXECUTION] = Field(
        default="local", description="Where the work is done: on this machine, or on a Ray cluster."
    )
    ray_address: Annotated[str | None, EXECUTION] = Field(
        default=None, description="Address of the Ray cluster, e.g. auto; without it one is started here."
    )
    memory: Annotated[Count, EXECUTION] = Field(
        default=1_000_000_000, description="Bytes that a process may use to find near-duplicates."
    )

    @field_validator("source")
    @classmethod
    def _named(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            message = "name at least one file"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if self.rules == "none" and self.rule_overrides:
            message = 'rule_overrides changes rules, but rules is "none"'
            raise ValueError(message)
        if self.near_duplicates.keep == "best" and self.classifier is None:
            message = "near_duplicates.keep: best goes by the classifier's score, and there is no classifier"
            raise ValueError(message)
        return self

    def references(self) -> tuple[Reference, ...]:
        found = [Reference("source", name, ArtifactType.FILES) for name in self.sources]
        older = self.near_duplicates.against
        found += [Reference("near_duplicates.against", name, ArtifactType.DOCUMENTS) for name in older]
        if self.hosts.lists is not None:
            found.append(Reference("hosts.lists", self.hosts.lists, ArtifactType.FILES))
        items = self.decontaminate.items if self.decontaminate else ()
        found += [Reference("decontaminate.items", name, ArtifactType.FILES) for name in items]
        if self.classifier is not None:
            found.append(Reference("classifier.model", self.classifier.model, ArtifactType.FILES))
        return tuple(found)

    def identity_payload(self) -> dict[str, Any]:
        """The configuration, and what the language pack says: its thresholds decide as those written here."""
        pack = pack_identity(self.language, self.language_packs)
        return {**super().identity_payload(), "language_pack": pack}

    @property
    def sources(self) -> tuple[str, ...]:
        """The globs, paths and addresses, as written."""
        return (self.source,) if isinstance(self.source, str) else tuple(self.source)


def pack_identity(code: str, extra: tuple[str, ...] = ()) -> str | None:
    """A hash of the language pack's facts, those for forecasts left out; None for an unknown language."""
    from tsugiki.languages import load_pack

    try:
        pack = load_pack(code, [Path(folder) for folder in extra])
    except InputError:  # `estimate` says so, with all other faults of the recipe
        return None
    facts = pack.model_dump(mode="json", exclude={"typical", "name", "native_name"})
    facts["identification"].pop("index_languages")  # how pages are looked up elsewhere
    facts["lists"].pop("refusals", None)  # of models' answers
    # the order of columns and reasons, which the hash of a mapping leaves out
    orders = {name: list(rules) for name, rules in {"": pack.rules, **pack.rule_sets}.items()}
    return identity_of({"facts": facts, "classes": list(pack.script.classes), "rules": orders})


def packs_of(config: Config) -> list[Path]:
    """The folders that are searched for language packs first."""
    return [Path(folder) for folder in config.language_packs]


def rules_for(config: Config) -> list[Rule]:
    """The rules of a configuration, the classifier's included. Raises InputError for unknown names."""
    from tsugiki.corpus.rules import Rule, rules_of
    from tsugiki.languages import load_pack

    pack = load_pack(config.language, packs_of(config))
    chosen = None if config.rules in {"pack", "none"} else config.rules
    rules = rules_of(pack, config.rule_overrides, chosen)
    rules = [] if config.rules == "none" else rules
    if config.classifier is not None and config.classifier.minimum is not None:
        rules.append(Rule(QUALITY, QUALITY, "<", config.classifier.minimum))
    return rules
