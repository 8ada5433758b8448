"""Between Tsugiki and lm-evaluation-harness: its sample logs as our rows, our benchmarks as its tasks."""

from tsugiki.evaluation.exchange.samples import read_lm_eval
from tsugiki.evaluation.exchange.tasks import export_tasks

__all__ = ["export_tasks", "read_lm_eval"]
