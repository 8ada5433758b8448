"""Drop-Upcycling's comparison in miniature over several seeds: recipes/drop-upcycling-mini-ja.yaml.

    python benchmarks/upcycling_study.py            run what is not finished yet, then print the tables
    python benchmarks/upcycling_study.py --next     run one stage more and stop: for a machine that others use
    python benchmarks/upcycling_study.py --tables   print the tables of what is finished

The recipe's stages are taken once for each seed (but for the corpora, which all seeds share, and with them
the held-out pages) and written to DIRECTORY/upcycling-study.yaml; `tsugiki status` and `tsugiki report` work
on the run directory, and the report draws the curves with intervals over the seeds. A seed decides the dense
model's first weights, what the converters draw, the routers' first weights and the order of the pages.

Printed are bits per byte of held-out pages at the end, means over the seeds, and the paired differences from
the naive copies and from the dense model: the seeds' own, with 95 % intervals by Student's t over the seeds
(wide for three). Every arm sees the same tokens in the same order; a mixture's tokens cost more operations.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from seeded_study import add_options, run_asked, run_next

from tsugiki.artifacts.contract import parse_count
from tsugiki.artifacts.manifest import is_finished, read_manifest
from tsugiki.student import t_quantile
from tsugiki.workflow.display import amount

NAME = "upcycling-study"
ARMS = ("dense", "naive", "noise", "drop-25", "drop-50", "drop-75", "drop-100", "scratch")
REFERENCES = ("naive", "dense")
LANGUAGES = ("japanese", "english")
DENSE = "base"
REFERRING = ("model", "equal_compute")
"""Keys of a stage that name another stage of its own seed."""


def of_seed(options: argparse.Namespace, stages: dict[str, Any], seed: int) -> dict[str, Any]:
    """The stages of one seed, called by their names and the seed; corpora stay shared."""
    own = {name for name, stage in stages.items() if stage["kind"] != "corpus"}
    found = {}
    for name in own:
        stage = {**stages[name], "seed": seed}
        for key in REFERRING:
            if isinstance(stage.get(key), str) and stage[key] in own:
                stage[key] = f"{stage[key]}-{seed}"
        if stage["kind"] == "train":
            stage["threads"] = options.threads
            tokens = options.base_tokens if name == DENSE else options.tokens
            stage["tokens"] = tokens or stage["tokens"]
        if stage["kind"] == "upcycle":
            stage["workers"] = options.threads
        found[f"{name}-{seed}"] = stage
    return found


def write_recipe(options: argparse.Namespace) -> Path:
    """Write the recipe with the stages of all seeds."""
    recipe = YAML(typ="safe").load(options.recipe.read_text(encoding="utf-8"))
    stages = {name: dict(stage) for name, stage in recipe["stages"].items()}
    corpora = {name: stage for name, stage in stages.items() if stage["kind"] == "corpus"}
    for stage in corpora.values():
        stage["source"] = str(options.crawl)
        stage["seed"] = 0
    everything = dict(corpora)
    for seed in range(options.seeds):
        everything |= of_seed(options, stages, seed)
    options.directory.mkdir(parents=True, exist_ok=True)
    path = Path(options.directory / f"{NAME}.yaml")
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump({**recipe, "recipe": NAME, "stages": everything}, file)
    return path


def next_stage(options: argparse.Namespace) -> bool:
    """Run the first stage that is not finished, seed by seed; gives whether there was one."""
    return run_next(
        write_recipe(options),
        options.directory / NAME,
        lambda name: seed_of(name) if name not in LANGUAGES else -1,
    )


def seed_of(name: str) -> int:
    """The seed at the end of a stage's name."""
    return int(name.rpartition("-")[2])


def finished_seeds(options: argparse.Namespace) -> list[int]:
    """Seeds of which every arm is finished."""
    run = options.directory / NAME
    return [seed for seed in range(options.seeds) if all(is_finished(run / f"{arm}-{seed}") for arm in ARMS)]


def final_bits(run: Path, arm: str, seed: int, language: str) -> float:
    """Bits per byte of the held-out pages after the last step."""
    rows = read_manifest(run / f"{arm}-{seed}").facts["validation"]
    return float([row for row in rows if row["dataset"] == language][-1]["bits_per_byte"])


def interval(values: Sequence[float]) -> str:
    """The mean with its 95 % interval by Student's t, for a person."""
    mean = statistics.fmean(values)
    if len(values) < 2:  # noqa: PLR2004 (one seed says nothing of others)
        return f"{mean:+.4f}"
    half = t_quantile(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


def print_bits(run: Path, seeds: Sequence[int]) -> None:
    """Bits per byte at the end, and the differences from the naive copies and from the dense model."""
    for language in LANGUAGES:
        found = {arm: [final_bits(run, arm, seed, language) for seed in seeds] for arm in ARMS}
        print(f"\n{language}, bits per byte of held-out pages at the end (lower is better)\n")
        heads = "".join(f" minus {reference} (95 % over seeds) |" for reference in REFERENCES)
        print(f"| arm |{''.join(f' seed {seed} |' for seed in seeds)} mean |{heads}")
        print(f"|---|{'---|' * (len(seeds) + 1 + len(REFERENCES))}")
        for arm, values in found.items():
            differences = [
                interval([ours - theirs for ours, theirs in zip(values, found[reference], strict=True)])
                if arm != reference
                else ""
                for reference in REFERENCES
            ]
            row = [*(f"{value:.4f}" for value in values), f"{statistics.fmean(values):.4f}", *differences]
            print(f"| {arm} | {' | '.join(row)} |")


def print_amounts(run: Path, seeds: Sequence[int]) -> None:
    """What each arm was trained on, and how its experts were used; means over the seeds."""
    print("\n| arm | tokens | operations | parameters | dead experts | load entropy | specialisation |")
    print("|---|---|---|---|---|---|---|")
    for arm in ARMS:
        manifests = [read_manifest(run / f"{arm}-{seed}") for seed in seeds]
        counts = manifests[0].counts
        routing = [found.facts["routing"] for found in manifests if "routing" in found.facts]
        used = ["", "", ""]
        if routing:
            dead = [sum(one["training"]["dead_experts"]) for one in routing]
            entropy = [statistics.fmean(one["training"]["load_entropy"]) for one in routing]
            apart = [statistics.fmean(one["specialisation"][-1]["by_dataset"]) for one in routing]
            used = [
                f"{statistics.fmean(dead):.1f}",
                *(f"{statistics.fmean(x):.3f}" for x in (entropy, apart)),
            ]
        print(
            f"| {arm} | {amount(counts['tokens'])} | {counts['training_flops']:.3g} | "
            f"{amount(counts['parameters'])} | {' | '.join(used)} |"
        )


def main() -> None:
    """Read the command line, run what is left, print what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, default=Path("build/upcycling-study"), help="kept: goes on")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/drop-upcycling-mini-ja.yaml"))
    parser.add_argument("--crawl", default="examples/crawl/*.warc.gz", help="WARC files of the sample crawl")
    parser.add_argument("--seeds", type=int, default=3, help="so many seeds, from 0 on")
    parser.add_argument("--base-tokens", type=parse_count, help="tokens of the dense model, not the recipe's")
    parser.add_argument("--tokens", type=parse_count, help="tokens of every arm, not the recipe's")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    add_options(parser)
    options = parser.parse_args()
    options.crawl = str(Path(options.crawl).absolute())
    if not run_asked(options, lambda: next_stage(options)):
        return
    seeds = finished_seeds(options)
    if not seeds:
        raise SystemExit("no seed is finished yet")
    print_amounts(options.directory / NAME, seeds)
    print_bits(options.directory / NAME, seeds)


if __name__ == "__main__":
    main()
