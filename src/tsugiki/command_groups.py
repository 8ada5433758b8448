"""The commands beside a recipe's verbs: where each is, and what its help says first.

Imported for every `--help`, so nothing heavy stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Group(NamedTuple):
    """`target`: module:object, imported when the command is called or asked for its own help."""

    target: str
    help: str


_ALONE = """Inputs are directories that other stages made, or plain files; values are written as in a recipe.
The result is an artifact like that of a run: killed at any moment, the same command goes on where it was."""
_CORPUS = f"""Turn a crawl (WARC) or other documents into clean, deduplicated documents of one language.

`tsugiki corpus OUT --source ... --language ...` makes a corpus: of WARC, WET, JSON lines or Parquet files,
given as paths, globs, http(s):// and s3:// addresses, or as a listing such as Common Crawl's warc.paths.gz.
Everything that was dropped is kept aside with all its reasons; the commands below select from Common Crawl,
see and steer.

{_ALONE}

Example: `tsugiki corpus out/japanese --source 'crawl/*.warc.gz' --language ja --heldout 0.1`"""
_VOCABULARY = f"""Extend a model's tokenizer and embeddings for a language, and show what it saves.

`tsugiki vocabulary OUT --model ... --corpus ... --add ...` extends a model; `tsugiki vocabulary measure`
shows before that what a tokenizer makes of documents, and what how many new pieces would save.

{_ALONE}

Example: `tsugiki vocabulary out/extended --model base --corpus out/japanese --add 8k`"""
_TRAIN = f"""Train a model on documents: from scratch, or on from a base model.

`tsugiki train OUT --model ... --data ... --tokens ...` trains, in one process or in many (`--parallel`).
`--dry-run` shows what each process of the layout would hold, `--sbatch` prints a Slurm script; both also
take a recipe. The commands below list the checkpoints of a run and make a Hugging Face model of any of them,
at any time.

{_ALONE}

Example: `tsugiki train out/adapted --model out/extended --data '{{out/japanese: 1.0}}' --tokens 10M`

Example: `tsugiki train recipes/swallow-llama2-7b.yaml --stage adapted --dry-run`"""
_UPCYCLE = f"""Turn a dense model into a mixture of experts (Drop-Upcycling and its baselines), with proof.

{_ALONE}

Example: `tsugiki upcycle out/sparse --model out/adapted --num-experts 8 --ratio 0.5`

Example: `tsugiki upcycle out/sparse --model out/adapted --shared-expert copy`"""
_EVALUATE = f"""Score models on held-out documents and on benchmarks, with intervals and paired tests.

`tsugiki evaluate OUT --models ... --tasks ...` scores models; `tsugiki evaluate tasks` lists the benchmarks,
with their licences and the known faults of published numbers; `tsugiki evaluate fetch` downloads their files.

{_ALONE}

Example: `tsugiki evaluate out/scores --models base --models out/adapted --heldout out/japanese`

Example: `tsugiki evaluate out/scores --models base --tasks gsm8k --tasks jemhopqa --data sample`"""
_COMPARE = """Compare models item by item: intervals, paired tests and verdicts in words.

Takes evaluate stages, tables of items and logs of lm-evaluation-harness; aligns the items, and says what
could not be aligned. Methods are chosen for the data and named: Wilson's form or the bootstrap, by clusters
where items share a passage; McNemar, paired t or paired bootstrap; Holm or Benjamini-Hochberg over the tasks.
Where no difference is seen, it says which one would have been, and how many questions the one that matters
needs.

Example: `tsugiki compare runs/demo-ja/scores`

Example: `tsugiki compare old=a/scores new=b/scores --correction bh --html compared.html`"""
_CONTAMINATION = """Find benchmark items in training documents, and what scores are without them.

`tsugiki contamination DOCUMENTS --tasks ... --data FOLDER` streams documents (a corpus stage's directory,
.jsonl, .parquet or .txt files) past an index of the items' character n-grams, so it works without spaces
between words. Questions of too few letters are looked for as a whole, and told apart as weak evidence. With
`--scores` it compares a finished evaluation with and without the items that were found.

Example: `tsugiki contamination out/japanese --tasks jcommonsenseqa niilc --data benchmarks`"""
_JUDGE = """Score a model's answers about images by a judge, after Heron-Bench's protocol.

`tsugiki judge QUESTIONS ANSWERS --reference ... --judgments FILE --address http://...` asks any address that
speaks OpenAI's protocol and keeps every review; without `--address` it replays what is kept and asks no one.
Scores are relative to the reference's answers, by category, with intervals over images. `--swap` asks in both
orders and shows how often the order decides. Reviews that can't be read are counted, never taken for -1.

Example: `tsugiki judge questions.jsonl model.jsonl --reference gpt4.jsonl --judgments reviews.jsonl`"""
_STUDY = """Study a table of models x benchmarks: what is measured in common, and what compute buys.

`tsugiki study TABLE` checks the scores (zeros, chance, bounds, stale averages, outliers), finds the
principal components with a bootstrap and parallel analysis, correlates benchmarks, and with `--budgets` sets
factors and benchmarks against the compute of each language (6ND) with errors by model family.

    tsugiki study --example --html study.html
    tsugiki study scores.csv --budgets budgets.csv --rotation promax
    tsugiki study runs/demo-ja/scores more-scores.parquet --percent --drop Elo
    tsugiki study mixture runs.csv --target bpb_ja --other bpb_en --parameters 7B --tokens 100B --allow 0.02

A table has a row a model and a column a benchmark, scores in [0, 1]; an empty cell is a missing score.

Example: `tsugiki study --example`"""
_PLANNER = """Find the parallel layout of a model on so many GPUs: memory, speed, cost, before one is rented.

Every legal layout is judged: `safe` (tensors count to at most 80 % of the memory), `probe` (80 to 90 %: try a
few steps) or refused, with the reason and the nearest change that fits; and ranked by predicted speed.

    tsugiki planner llama-3-70b --gpus 512 --device h100-80gb --sequence 8192 --batch 1024 --tokens 100B
    tsugiki planner recipes/swallow-llama2-7b.yaml --stage adapted --gpus 32 --device a100-40gb
    tsugiki planner config.json --gpus 64 --sequence 4096 --batch 512 --tensor 2,4 --html layouts.html
    tsugiki planner mixtral-8x7b --gpus 64 --sequence 4096 --batch 1024 --emit megatron-lm

A device of your own: a TOML file, `--devices FILE`, with `[ours]` and `like = "h100-80gb"`, `node = 4`,
`network_bandwidth = 25e9`, `dollars_per_hour = 2.1`.

Example: `tsugiki planner llama-3.1-8b --gpus 16 --device h100-80gb --sequence 8192 --batch 1024`"""

GROUPS: Mapping[str, Group] = {
    "corpus": Group("tsugiki.commands.corpus:app", _CORPUS),
    "vocabulary": Group("tsugiki.commands.vocabulary:app", _VOCABULARY),
    "train": Group("tsugiki.commands.train:app", _TRAIN),
    "upcycle": Group("tsugiki.stage_commands:upcycle", _UPCYCLE),
    "evaluate": Group("tsugiki.commands.evaluate:app", _EVALUATE),
    "compare": Group("tsugiki.commands.compare:compare", _COMPARE),
    "contamination": Group("tsugiki.commands.contamination:contamination", _CONTAMINATION),
    "judge": Group("tsugiki.commands.judge:judge", _JUDGE),
    "study": Group("tsugiki.commands.study:app", _STUDY),
    "planner": Group("tsugiki.commands.planner:app", _PLANNER),
}
"""In the order of their use."""
