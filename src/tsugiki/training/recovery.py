"""What the loop does when a step went wrong: other data, an earlier checkpoint, or an end with a reason."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING

from tsugiki.artifacts.contract import Workspace
from tsugiki.errors import StageError
from tsugiki.training.checkpointing import Checkpoints, resume
from tsugiki.training.engine import StepResult
from tsugiki.training.spikes import DataSteps, Kind, LeftOut, tell

if TYPE_CHECKING:
    from tsugiki.training.loop import Counters, Run


def recover(
    run: Run,
    data: DataSteps,
    checkpoints: Checkpoints,
    out: Workspace,
    *,
    kind: Kind,
    step: int,
    counters: Counters,
    result: StepResult,
) -> tuple[int, Counters] | None:
    """Where to go on after step `step` (0-based) went wrong; None: as if nothing had happened.

    Every process calls it at the same step. Raises StageError where the recipe says stop, where data were
    left out too often, or where nothing is left to go back to.
    """
    rule = run.config.spikes
    if rule.action != "rewind":
        raise _ended(kind, step, result, 'set spikes.action: "rewind"')
    if kind == "not finite" and counters.not_finite < rule.patience:
        one = data.leave_out(kind, step, step)  # the weights are still those of before
        _keep(run, data, one, out)
        return step, counters
    rise = step + 1 - rule.patience
    found = resume(run.engine, out.work, run.identity, out.log) if checkpoints.back_to(rise) else None
    if found is None:
        _without_checkpoint(kind, step, counters, result, out)
        return None
    one = data.leave_out(
        *(kind, step, found.step),
        loss=result.loss if result.is_finite else None,
        usual_loss=median(counters.window) if counters.window else None,
        fell_back=run.config.float8_fallback and run.engine.fall_back(),
    )
    _keep(run, data, one, out)
    return found.step, type(counters)(**found.counters)


def _keep(run: Run, data: DataSteps, one: LeftOut, out: Workspace) -> None:
    if run.engine.rank == 0:
        data.write()
        tell(one, out.log)
        row = asdict(one)
        row["seen_at"] = row.pop("step") + 1  # `step` is that of a step's own row, which has the losses
        out.metrics.append(event="left out", after_step=one.back_to, **row)
    run.engine.in_all(flag=True)  # on the disk before anybody goes on


def _without_checkpoint(
    kind: Kind, step: int, counters: Counters, result: StepResult, out: Workspace
) -> None:
    """Nothing to go back to: a spike is lived with, and its level becomes the usual one."""
    if kind == "not finite":
        raise _ended(kind, step, result, "make checkpoints more often (checkpoint_every_steps)")
    out.log.warning(
        "step %d: loss spike (loss %.3f, usual %.3f), and no checkpoint from before it: going on",
        *(step + 1, result.loss, median(counters.window)),
    )
    counters.window, counters.high = [], 0


def _ended(kind: Kind, step: int, result: StepResult, hint: str) -> StageError:
    return StageError(
        f"step {step + 1}: {kind}: loss {result.loss}, gradient_norm {result.gradient_norm}",
        hint=f"lower learning_rate, lengthen the warm-up, or train in float32; or {hint}",
    )
