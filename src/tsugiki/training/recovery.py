"""What the loop does when a step went wrong: other data, an earlier checkpoint, or an end with a reason."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING

from tsugiki.artifacts.contract import Workspace
from tsugiki.dataset.mixture import Batch
from tsugiki.errors import StageError
from tsugiki.training.checkpointing import Checkpoints, resume
from tsugiki.training.engine import Engine, StepResult
from tsugiki.training.norms import are_finite
from tsugiki.training.planning import warmup_steps
from tsugiki.training.spikes import DataSteps, Kind, LeftOut, judge, limit, tell
from tsugiki.training.validation import ValidationSet

if TYPE_CHECKING:
    from tsugiki.training.loop import Counters, Run


@dataclass(frozen=True)
class Trouble:
    """What went wrong at step `step` (0-based).

    harmed: the weights after so many steps may be the first that are harmed, so a good checkpoint was made
    after fewer. loss, gradient_norm: what showed it; None where it was the weights themselves.
    """

    kind: Kind
    step: int
    harmed: int
    loss: float | None = None
    gradient_norm: float | None = None


def trouble_of(run: Run, counters: Counters, result: StepResult, step: int) -> Trouble | None:
    """What is wrong with step `step` by its loss and gradient, if anything has to be done."""
    if any(phase.first_step == step for phase in run.mixture.phases):
        counters.window, counters.high = [], 0  # other data have another usual loss
    rule = run.config.spikes
    kind = judge(rule, counters, result.loss, finite=result.is_finite, settled=_is_settled(run, step))
    if kind is None:
        return None
    harmed = step if kind == "not finite" else step + 1 - rule.patience
    return Trouble(kind, step, harmed, result.loss, result.gradient_norm)


def hidden_trouble(run: Run, data: DataSteps, counters: Counters, step: int) -> Trouble | None:
    """What no loss has shown after step `step`: numbers that are not finite, and harm of the last updates.

    Every process calls it before a checkpoint, a validation and the end. Before the last two the update is
    judged by the loss of a batch that was trained on, the last one whose loss was not high then: if it is
    high now, the weights are at fault and not the data. That takes one forward pass.
    """
    engine, steps = run.engine, run.mixture.steps
    if not engine.in_all(are_finite(engine.parameters, engine.optimizer)):
        return Trouble("not finite", step, step + 1)
    if step + 1 not in run.validation_steps:
        return None
    rule = run.config.spikes
    may_be_high = rule.action != "ignore" and _is_settled(run, step)
    highest = limit(rule, counters.window) if may_be_high else math.inf
    judged = step - counters.high
    loss = _loss_of(engine, run.mixture.batch(data.of(judged, steps)))
    if run.routed is not None:
        run.routed.watched()  # how this batch was routed says nothing of a validation set
    if math.isfinite(loss) and loss <= highest:
        return None
    kind: Kind = "loss spike" if math.isfinite(loss) else "not finite"
    return Trouble(kind, step, judged + 1, loss)


def _loss_of(engine: Engine, batch: Batch) -> float:
    """Mean cross entropy of a whole batch in nats a counted token, nothing being learned."""
    nats = engine.measure(ValidationSet("a batch", batch, target_bytes=1)) * math.log(2)
    return nats / max(1, int((batch.targets_BT >= 0).sum()))


def _is_settled(run: Run, step: int) -> bool:
    return step >= warmup_steps(run.config.warmup, run.mixture.steps)


def recover(
    run: Run,
    data: DataSteps,
    checkpoints: Checkpoints,
    out: Workspace,
    *,
    trouble: Trouble,
    counters: Counters,
) -> tuple[int, Counters] | None:
    """Where to go on after trouble; None: as if nothing had happened.

    Every process calls it at the same step. Raises StageError where the recipe says stop, where data were
    left out too often, or where nothing good is left to go back to and the weights can't be lived with.
    """
    rule, kind, step = run.config.spikes, trouble.kind, trouble.step
    if rule.action != "rewind":
        raise _ended(trouble, 'set spikes.action: "rewind"')
    if 0 < counters.not_finite < rule.patience:
        one = data.leave_out(kind, step, step)  # the weights are still those of before
        _keep(run, data, one, out)
        return step, counters
    place = _earlier(run, data, checkpoints, out, harmed=trouble.harmed, counters=counters)
    if place is None and kind == "not finite":
        raise _ended(trouble, "make checkpoints more often (checkpoint_every_steps) and keep two at least")
    facts = {
        "loss": trouble.loss if kind == "loss spike" else None,
        "usual_loss": median(counters.window) if counters.window else None,
        "fell_back": run.config.float8_fallback and run.engine.fall_back(),
    }
    if place is None:
        _keep(run, data, data.live_with(kind, step, **facts), out)
        counters.window, counters.high = [], 0  # this level becomes the usual one
        return None
    _keep(run, data, data.leave_out(kind, step, place[0], **facts), out)
    return place


def _earlier(
    run: Run, data: DataSteps, checkpoints: Checkpoints, out: Workspace, *, harmed: int, counters: Counters
) -> tuple[int, Counters] | None:
    """Go back to the newest checkpoint after fewer than `harmed` steps; None where there is none.

    A checkpoint that a spike followed a second time is passed over for an earlier one, where one is kept.
    Before the first checkpoint was due, training begins again. Later, where fewer than two are kept, the one
    that may be harmed is tried once: it may have been the data.
    """
    steps = checkpoints.steps()
    good = [step for step in steps if step < harmed]
    may_begin_again = harmed <= run.config.checkpoint_every_steps and run.start_over is not None
    if not good and not may_begin_again and harmed in steps and not data.came_back_to(harmed):
        good = [harmed]
    if good:
        again = len(good) > 1 and data.came_back_to(good[0])
        checkpoints.back_to(good[1] if again else good[0])
        found = resume(run.engine, out.work, run.identity, out.log)
        return None if found is None else (found.step, type(counters)(**found.counters))
    if not may_begin_again or run.start_over is None:
        return None
    checkpoints.back_to(0)
    run.start_over()
    run.engine.optimizer.state.clear()
    sources = len(run.mixture.shares)
    return 0, type(counters)(
        tokens_of_source=[0] * sources,
        bytes_of_source=[0] * sources,
        validation=[row for row in counters.validation if row["step"] == 0],
        samples=[row for row in counters.samples if row["step"] == 0],
        precision=run.engine.precision,
    )


def _keep(run: Run, data: DataSteps, one: LeftOut, out: Workspace) -> None:
    if run.engine.rank == 0:
        data.write()
        tell(one, out.log)
        row = asdict(one)
        row["seen_at"] = row.pop("step") + 1  # `step` is that of a step's own row, which has the losses
        out.metrics.append(event="left out", after_step=one.back_to, **row)
    run.engine.in_all(flag=True)  # on the disk before anybody goes on


def _ended(trouble: Trouble, hint: str) -> StageError:
    seen = (
        "weights or moments after it"
        if trouble.loss is None
        else f"loss {trouble.loss}"
        + ("" if trouble.gradient_norm is None else f", gradient_norm {trouble.gradient_norm}")
    )
    return StageError(
        f"step {trouble.step + 1}: {trouble.kind}: {seen}",
        hint=f"lower learning_rate, lengthen the warm-up, or train in float32; or {hint}",
    )
