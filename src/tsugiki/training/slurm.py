"""The Slurm script of a training run: one task a GPU, started by srun, ended gently, and queued again.

srun starts the processes itself, without torchrun between: torchrun's agent kills its processes 30 seconds
after a SIGTERM (torch.distributed.elastic's default), which is too short for a step and a checkpoint of a
large model. Slurm sends SIGTERM to every task some minutes before the time is up (`--signal`); the run
finishes its step, writes a checkpoint and exits with 143, and the script then queues the job again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from tsugiki.errors import InputError

GPUS_PER_NODE = 8
"""Of the machines that such runs are made on (DGX and HGX A100 and H100); where there are fewer, say so."""

SIGNAL_SECONDS = 300
"""Before the end: a step of a large model takes up to a minute, its checkpoint as long again. A quarter of
the time where that is less: Slurm sends a signal that is due already as soon as the job starts, and a job
that is asked to end at once would queue itself again for ever."""

_TIME = re.compile(r"\d+(-\d+(:\d+){0,2})?|\d+(:\d+){1,2}")
_WORD = re.compile(r"[A-Za-z0-9_.,:+-]+")
_PORTS = (20000, 20000)


@dataclass(frozen=True)
class Slurm:
    """What the script asks Slurm for. nodes or gpus_per_node follow from the layout where they are None.

    time: as sbatch has it, such as 24:00:00 or 2-0. setup: a line of shell before the run (modules, the
    environment). cpus: of each task.
    """

    nodes: int | None = None
    gpus_per_node: int | None = None
    partition: str | None = None
    account: str | None = None
    time: str | None = None
    cpus: int | None = None
    setup: str | None = None


def script(name: str, command: Sequence[str], processes: int, inner: int, asked: Slurm) -> str:
    """The script, text for `sbatch`. The same arguments give the same text.

    processes: of the layout, one a GPU. inner: those that exchange most and belong into one node (tensor
    times context). Raises InputError where nodes and GPUs don't multiply to `processes`, or a value is none
    that sbatch takes.
    """
    nodes, gpus = _nodes(processes, asked)
    _check(asked)
    lines = ["#!/bin/bash", *_directives(name, nodes, gpus, asked), ""]
    cpus, few_cores = "", ["# Without --cpus many clusters give a task one core: tokenising would be slow."]
    if asked.cpus is not None:
        cpus, few_cores = f" --cpus-per-task={asked.cpus}", []  # srun doesn't take it from sbatch (22.05)
    if inner > gpus:
        lines += [
            f"# Note: tensor x context parallelism ({inner}) is wider than a node ({gpus} GPUs): what it",
            "# exchanges goes over the network, and will be slow.",
        ]
    lines += [
        f"# {processes} processes, one a GPU. The directory of the result has to be on a disk that all nodes",
        "# share. What is finished is kept: the job may be cancelled, fail or be queued again at any time.",
        "set -uo pipefail",
        asked.setup or "# Here: load modules, and activate the environment that has tsugiki.",
        "",
        'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        f"MASTER_PORT=$(({_PORTS[0]} + SLURM_JOB_ID % {_PORTS[1]}))",
        *few_cores,
        f"OMP_NUM_THREADS={asked.cpus or 4}",
        "export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS",
        "# Where nodes don't find each other: export NCCL_SOCKET_IFNAME=ib0 (see `ip link`).",
        "",
        "status=0",
        "# --wait: the first process writes the model when the others are done, however long that takes.",
        f"srun --kill-on-bad-exit=1 --wait=0{cpus} bash -c '",
        "  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS",
        '  exec "$@"',
        "' task \\",
        f"  {shlex.join(command)} || status=$?",
        "",
        "# 143: asked to end before its time was up, after a checkpoint. Go on in a new allocation.",
        'if [ "$status" -eq 143 ]; then',
        '  scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"


def _directives(name: str, nodes: int, gpus: int, asked: Slurm) -> list[str]:
    given = {
        "job-name": re.sub(r"[^A-Za-z0-9_.-]", "-", name),
        "nodes": nodes,
        "ntasks-per-node": gpus,
        "gpus-per-node": gpus,
        "cpus-per-task": asked.cpus,
        "partition": asked.partition,
        "account": asked.account,
        "time": asked.time,
        "signal": f"TERM@{_signal_seconds(asked.time)}",
        "requeue": "",
        "open-mode": "append",
        "output": "%x-%j.txt",
    }
    return [
        f"#SBATCH --{key}" + (f"={value}" if value != "" else "")
        for key, value in given.items()
        if value is not None
    ]


def _signal_seconds(time: str | None) -> int:
    """How long before the end Slurm asks the run to end; `time` as sbatch has it."""
    if time is None:
        return SIGNAL_SECONDS
    days, has_days, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    # minutes, minutes:seconds, hours:minutes:seconds; behind days hours come first, whatever their number
    first = "h" if has_days or len(parts) == len("hms") else "m"
    sizes = {"h": (3600, 60, 1), "m": (60, 1)}[first]
    seconds = 86400 * int(days or 0) + sum(part * size for part, size in zip(parts, sizes, strict=False))
    return max(1, min(SIGNAL_SECONDS, seconds // 4))


def _nodes(processes: int, asked: Slurm) -> tuple[int, int]:
    """Nodes, and GPUs of each."""
    gpus = asked.gpus_per_node
    if gpus is None:
        fitting = [size for size in range(1, GPUS_PER_NODE + 1) if processes % size == 0]
        gpus = fitting[-1] if asked.nodes is None else max(1, processes // asked.nodes)
    nodes = asked.nodes if asked.nodes is not None else max(1, processes // gpus)
    if nodes * gpus != processes:
        pairs = [f"{processes // size} x {size}" for size in range(1, 17) if processes % size == 0]
        raise InputError(
            f"{nodes} nodes of {gpus} GPUs are {nodes * gpus}; the layout has {processes} processes",
            hint=f"nodes x GPUs per node that fit: {', '.join(pairs)}; or change `parallel`",
        )
    return nodes, gpus


def _check(asked: Slurm) -> None:
    for option, value in (("partition", asked.partition), ("account", asked.account)):
        if value is not None and not _WORD.fullmatch(value):
            raise InputError(f"--{option} {value!r} is no name", hint="letters, digits and _.,:+- are")
    if asked.time is not None and not _TIME.fullmatch(asked.time):
        raise InputError(
            f"--time {asked.time!r} is no time that sbatch takes",
            hint="write minutes, hours:minutes:seconds (24:00:00) or days-hours (2-0)",
        )
    if asked.setup is not None and "\n" in asked.setup:
        raise InputError("--setup is more than one line", hint="separate commands with ; or name a script")
