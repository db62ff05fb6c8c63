"""Slurm's states and reasons of jobs, and what they mean for a run."""

from __future__ import annotations

#: States of jobs that have ended (squeue's manual, JOB STATE CODES). All others wait or run: a state that a
#: newer Slurm adds must not make a live job look dead.
ENDED = frozenset(
    ["BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL"]
    + ["OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"]
)
WAITING = frozenset(["PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"])

_WAITS = {
    "BeginTime": "Slurm holds it for some minutes after a requeue",
    "Dependency": "waits for the segment before it",
    "DependencyNeverSatisfied": "its dependency failed: it will never start",
    "JobHeldAdmin": "held by the site: ask its staff",
    "JobHeldUser": "held by you: `scontrol release` it",
    "JobLaunchFailure": "Slurm could not start it",
    "PartitionNodeLimit": "its partition allows fewer nodes: it will never start",
    "PartitionTimeLimit": "its partition allows less time: it will never start",
    "Priority": "other jobs are ahead",
    "ReqNodeNotAvail": "nodes that it needs are down or reserved",
    "Reservation": "waits for its reservation",
    "Resources": "waits for free nodes",
}
_ENDS = {
    "BOOT_FAIL": "a node did not boot",
    "DEADLINE": "it reached its deadline",
    "NODE_FAIL": "a node failed",
    "OUT_OF_MEMORY": "Slurm ended it: out of host memory",
    "PREEMPTED": "another job took its nodes",
    "REVOKED": "it was moved to another cluster",
    "TIMEOUT": "it reached its time limit before it had stopped",
}


def waiting_text(reason: str) -> str:
    """Why a job waits, for people; Slurm's own word first."""
    word = reason.strip("()").partition(",")[0]
    if word in ("", "None"):
        return ""
    if word in _WAITS:
        return f"{word}: {_WAITS[word]}"
    limited = word.startswith(("Assoc", "QOS", "MaxJobs", "MaxSubmit"))
    return f"{word}: a limit of your account or qos" if limited else word


def ending_text(state: str) -> str:
    """How a job ended, for people; empty if the state says nothing more than that it ended."""
    return f"{state}: {_ENDS[state]}" if state in _ENDS else ""
