"""From files to records: one function a source format.

A record is a dictionary with an `id` (unique in its split) and the fields that a task's templates name. Every
loader says in its docstring which fields those are. Nothing is executed or unpickled, and a file that is not
what its format says is an InputError with file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tsugiki.errors import InputError, did_you_mean
from tsugiki.evaluation.benchmarks.schema import Origin
from tsugiki.evaluation.benchmarks.sources import answers, choices, safety, texts
from tsugiki.evaluation.benchmarks.sources.files import Record
from tsugiki.evaluation.benchmarks.store import SourceFile

__all__ = ["LOADERS", "Record", "load_records"]

Loader = Callable[[Sequence[SourceFile], Origin], list[Record]]

LOADERS: Mapping[str, Loader] = {
    "bbh": answers.bbh,
    "gsm8k": answers.gsm8k,
    "hellaswag": choices.hellaswag,
    "human_eval": answers.human_eval,
    "jcommonsenseqa": choices.jcommonsenseqa,
    "jemhopqa": answers.jemhopqa,
    "mgsm": answers.mgsm,
    "mgsm_exemplars": answers.mgsm_exemplars,
    "mmlu": choices.mmlu,
    "mmlu_rows": choices.mmlu_rows,
    "niilc": answers.niilc,
    "openbookqa": choices.openbookqa,
    "openbookqa_wrapped": choices.openbookqa_wrapped,
    "parallel": texts.parallel,
    "refusals": safety.refusals,
    "squad": answers.squad,
    "squad_rows": answers.squad_rows,
    "triviaqa": answers.triviaqa,
    "xlsum": texts.xlsum,
    "xwino": choices.xwino,
    "xwinograd_rows": choices.xwinograd_rows,
}


def load_records(files: Sequence[SourceFile], origin: Origin) -> list[Record]:
    """The records of a split, in the files' order.

    Raises InputError for a format that is unknown, a file that is not of it, an item without gold, no item at
    all, and two items of one id.
    """
    if origin.format not in LOADERS:
        raise InputError(
            f'there is no source format "{origin.format}"', hint=did_you_mean(origin.format, list(LOADERS))
        )
    records = LOADERS[origin.format](files, origin)
    names = ", ".join(str(file.path) for file in files[:3])
    if not records:
        raise InputError(f"{names} holds no item", hint="fetch the file again")
    seen: set[str] = set()
    for record in records:
        if record["id"] in seen:
            raise InputError(f'{names}: two items have the id "{record["id"]}"', hint="fetch the file again")
        seen.add(record["id"])
    return records
