"""Does new vocabulary pay? Extension against none, at equal tokens, equal compute and equal text.

python benchmarks/extension_study.py            run what is not finished yet, then print the tables
python benchmarks/extension_study.py --next     run one stage more and stop: for a machine that others use too
python benchmarks/extension_study.py --tables   print the tables of what is finished

One recipe (written to DIRECTORY/extension-study.yaml) holds everything; its stages are those of any recipe,
so `tsugiki status` and `tsugiki report` work on the run directory. For each seed there are

  base        a small English model from scratch, with an English tokenizer
  extended    the base with new Japanese pieces, trained on with nine parts Japanese to one part English
  tokens      the base without new pieces, on as many tokens: less text, as its tokens are shorter
  compute     the same, for as many floating-point operations: a smaller head leaves some for more tokens
  text        the same, on as many tokens as the text of `extended` takes when the base's tokenizer cuts it

and `scores`: bits per byte of held-out pages, which no tokenizer can flatter. The corpora and with them the
held-out pages are the same for all seeds; a seed decides a model's first weights and the order of the pages.

Three kinds of 95 % interval are printed, and they answer different questions:
  pages, one seed     would other pages of this kind show it too, for these two trained models?
  pages, mean         the same for the mean over the seeds: would other pages show it, for all these models?
  seeds               would other seeds show it, on these pages? (Student's t over the seeds; wide for three.)
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from seeded_study import add_options, run_asked, run_next

from tsugiki.artifacts.contract import parse_count
from tsugiki.artifacts.manifest import is_finished, read_manifest
from tsugiki.artifacts.scores import read_scores
from tsugiki.evaluation.statistics.estimates import Estimate, cluster_sums, paired_differences
from tsugiki.student import t_quantile
from tsugiki.workflow.display import amount

NAME = "extension-study"
ARMS = ("extended", "tokens", "compute", "text")
MODELS = ("base", *ARMS)
LANGUAGES = ("japanese", "english")
MIXTURE = {"japanese": 0.9, "english": 0.1}
"""Shares of the tokens of every arm but `text`: nine to one, as Swallow (arXiv 2404.17790)."""

BOOTSTRAP_DRAWS = 10_000


def training(options: argparse.Namespace, seed: int, **body: Any) -> dict[str, Any]:
    """A train stage with the settings that all share: those of recipes/demo-ja.yaml."""
    return {
        "kind": "train",
        **body,
        "seed": seed,
        "sequence_length": 256,
        "batch_tokens": 1024,
        "learning_rate": 3e-3,
        "min_learning_rate": 3e-4,
        "threads": options.threads,
    }


def stages_of_seed(options: argparse.Namespace, run: Path, seed: int) -> dict[str, Any]:
    """The stages of one seed; `text` and `scores` only once the arms that they build on are finished."""
    base, vocabulary, extended = (f"{name}-{seed}" for name in ("base", "vocabulary", "extended"))
    new = {"preset": "llama-mini"}
    mixed = {"model": base, "data": dict(MIXTURE)}
    stages: dict[str, Any] = {
        base: training(
            options,
            seed,
            model=new,
            tokenizer={"train": "english", "size": 4096},
            data={"english": 1.0},
            tokens=options.base_tokens,
        ),
        vocabulary: {
            "kind": "vocabulary",
            "model": base,
            "corpus": "japanese",
            "add": options.add,
            "measure": list(LANGUAGES),
            "seed": seed,
        },
        extended: training(options, seed, **(mixed | {"model": vocabulary}), tokens=options.tokens),
        f"tokens-{seed}": training(options, seed, **mixed, tokens=options.tokens),
        f"compute-{seed}": training(options, seed, **mixed, equal_compute=extended),
    }
    if is_finished(run / extended) and is_finished(run / f"tokens-{seed}"):
        tokens = equal_text_tokens(run, seed)
        stages[f"text-{seed}"] = training(
            options, seed, **(mixed | {"data": tokens}), tokens=sum(tokens.values())
        )
        stages[f"scores-{seed}"] = {
            "kind": "evaluate",
            "models": [f"{name}-{seed}" for name in MODELS],
            "heldout": list(LANGUAGES),
            "tasks": ["bits-per-byte"],
            "maximum_documents": options.pages,
            "document_bytes": options.page_bytes,
            "threads": options.threads,
        }
    return stages


def equal_text_tokens(run: Path, seed: int) -> dict[str, int]:
    """Tokens of each source that the text behind `extended` takes in the base's tokenizer.

    Those of the source in `extended`, times the ratio of its whole text's tokens by the base's tokenizer to
    those by the extended one.
    """
    extended, plain = (sources(run / f"{arm}-{seed}") for arm in ("extended", "tokens"))
    return {
        name: round(
            extended[name]["tokens"] * plain[name]["available_tokens"] / extended[name]["available_tokens"]
        )
        for name in LANGUAGES
    }


def sources(stage: Path) -> dict[str, Mapping[str, Any]]:
    """What a finished train stage drew from each source, by the source's name."""
    return {source["dataset"]: source for source in read_manifest(stage).facts["sources"]}


def write_recipe(options: argparse.Namespace) -> Path:
    """Write the recipe as far as it is known now; finished stages keep their place in it."""
    run = options.directory / NAME
    crawl = str(options.crawl)
    corpora = {
        name: {"kind": "corpus", "source": crawl, "language": code, "heldout": 0.1, "seed": 0}
        for name, code in (("japanese", "ja"), ("english", "en"))
    }
    stages = dict(corpora)
    for seed in range(options.seeds):
        stages |= stages_of_seed(options, run, seed)
    recipe = {
        "recipe": NAME,
        "language": "ja",
        "description": "Extension against none at equal tokens, equal compute and equal text.",
        "stages": stages,
    }
    options.directory.mkdir(parents=True, exist_ok=True)
    path = Path(options.directory / f"{NAME}.yaml")
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(recipe, file)
    return path


def next_stage(options: argparse.Namespace) -> bool:
    """Run the first stage that is not finished, seed by seed; gives whether there was one."""
    return run_next(
        write_recipe(options),
        options.directory / NAME,
        lambda name: name.rsplit("-", 1)[-1] if name[-1].isdigit() else "",
    )


def bits_and_bytes(
    run: Path, seed: int, language: str
) -> dict[str, tuple[list[float], list[float], list[str]]]:
    """For each model: bits, bytes and cluster of every held-out page, pages in order."""
    found: dict[str, tuple[list[float], list[float], list[str]]] = {}
    rows = [row for row in read_scores(run / f"scores-{seed}").to_pylist() if row["dataset"] == language]
    for model in MODELS:
        mine = sorted((row for row in rows if row["model"] == f"{model}-{seed}"), key=lambda row: row["item"])
        found[model] = (
            [row["nll_nats"] / math.log(2) for row in mine],
            [float(row["bytes"]) for row in mine],
            [row["cluster"] for row in mine],
        )
    return found


def differences(run: Path, seeds: Sequence[int], language: str) -> tuple[np.ndarray, list[Estimate]]:
    """Bits per byte of each model, and `extended` minus each other model, of the mean over the seeds.

    The pages are those of every seed, so the mean over seeds of a page's bits is one number a page.
    """
    by_seed = [bits_and_bytes(run, seed, language) for seed in seeds]
    bits_IM = np.mean([np.array([one[model][0] for model in MODELS]).T for one in by_seed], axis=0)
    _, size_I, cluster_I = by_seed[0]["base"]
    sums = cluster_sums(bits_IM, size_I, cluster_I)
    pairs = [(MODELS.index(model), MODELS.index("extended")) for model in MODELS if model != "extended"]
    return bits_IM.sum(axis=0) / sum(size_I), paired_differences(sums, pairs, draws=BOOTSTRAP_DRAWS)


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of independent values by Student's t; infinite for fewer than two."""
    mean = statistics.fmean(values)
    if len(values) < 2:  # noqa: PLR2004 (a deviation needs two)
        return -math.inf, math.inf
    half = t_quantile(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


def print_amounts(run: Path, seeds: Sequence[int]) -> None:
    """What each arm was trained on: the check that "equal" is equal."""
    print("\n| seed | arm | tokens | operations | Japanese text | English text | epochs of Japanese |")
    print("|---|---|---|---|---|---|---|")
    for seed in seeds:
        for arm in ARMS:
            counts, drawn = read_manifest(run / f"{arm}-{seed}").counts, sources(run / f"{arm}-{seed}")
            japanese, english = drawn["japanese"], drawn["english"]
            print(
                f"| {seed} | {arm} | {amount(counts['tokens'])} | {counts['training_flops']:.3g} | "
                f"{japanese['bytes'] / 1e6:.3f} MB | {english['bytes'] / 1e6:.3f} MB | "
                f"{japanese['epochs']:.2f} |"
            )


def print_scores(run: Path, seeds: Sequence[int]) -> None:
    """Bits per byte, and the differences with the intervals that the module's head explains."""
    others = [model for model in MODELS if model != "extended"]
    for language in LANGUAGES:
        found = {seed: differences(run, [seed], language) for seed in seeds}
        values_SM = np.array([found[seed][0] for seed in seeds])
        print(f"\n{language}, bits per byte of held-out pages (lower is better)\n")
        print(f"| seed | {' | '.join(MODELS)} |\n|---|{'---|' * len(MODELS)}")
        for seed, values_M in zip(seeds, values_SM, strict=True):
            print(f"| {seed} | {' | '.join(f'{value:.3f}' for value in values_M)} |")
        print(f"| mean | {' | '.join(f'{value:.3f}' for value in values_SM.mean(axis=0))} |")
        print("\n| extended minus | seed | difference | 95 % interval | over |\n|---|---|---|---|---|")
        _, pooled = differences(run, seeds, language)
        for place, other in enumerate(others):
            ones = [found[seed][1][place] for seed in seeds]
            for seed, one in zip(seeds, ones, strict=True):
                print(f"| {other} | {seed} | {one.value:+.3f} | {one.low:+.3f} to {one.high:+.3f} | pages |")
            mean = pooled[place]
            print(f"| {other} | mean | {mean.value:+.3f} | {mean.low:+.3f} to {mean.high:+.3f} | pages |")
            low, high = student_interval([one.value for one in ones])
            print(f"| {other} | mean | {mean.value:+.3f} | {low:+.3f} to {high:+.3f} | seeds |")


def main() -> None:
    """Read the command line, run what is left, print what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, default=Path("build/extension-study"), help="kept: goes on")
    parser.add_argument("--crawl", default="examples/crawl/*.warc.gz", help="WARC files of the sample crawl")
    parser.add_argument("--seeds", type=int, default=3, help="so many seeds, from 0 on (at most 10)")
    parser.add_argument("--base-tokens", type=parse_count, default=400_000, help="tokens of the base model")
    parser.add_argument(
        "--tokens", type=parse_count, default=150_000, help="tokens of extended and of tokens"
    )
    parser.add_argument("--add", type=parse_count, default=2048, help="new Japanese pieces")
    parser.add_argument("--pages", type=int, default=150, help="held-out pages of each language, at most")
    parser.add_argument("--page-bytes", type=int, default=4096, help="bytes of a page that are read")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of training and scoring")
    add_options(parser)
    options = parser.parse_args()
    options.crawl = str(Path(options.crawl).absolute())
    if not run_asked(options, lambda: next_stage(options)):
        return
    run = options.directory / NAME
    seeds = [seed for seed in range(options.seeds) if is_finished(run / f"scores-{seed}")]
    if not seeds:
        raise SystemExit("no seed is finished yet")
    print_amounts(run, seeds)
    print_scores(run, seeds)


if __name__ == "__main__":
    main()
