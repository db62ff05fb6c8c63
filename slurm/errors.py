"""What is not the user's fault."""

from __future__ import annotations


class SlurmFailed(Exception):
    """The site does not do what it should; the message says all that the user needs. Exit code 1."""


class NoAnswer(SlurmFailed):
    """Slurm was asked and its answer did not come: it may have done what it was asked for."""
