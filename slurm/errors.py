"""Errors that are not the user's fault."""

from __future__ import annotations


class SlurmFailed(Exception):
    """The site failed, and the message is complete. Exit code 1."""


class NoAnswer(SlurmFailed):
    """Slurm did not answer: it may still have executed the request."""
