"""Checks a run against everything that is known before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import Document, Examination, examine
from frontrunner.parallelism.engines import check_engine
from frontrunner.parallelism.layout import Layout


def verified(run: str, overrides: Sequence[str]) -> tuple[Document, Layout]:
    """A run and its layout; SpecError lists the violations of both."""
    return judged(examine(run, overrides))


def judged(examination: Examination) -> tuple[Document, Layout]:
    """An examined run and its layout; SpecError lists the violations of both."""
    violations = list(examination.violations)
    document, layout = examination.document, None
    placed = {"nodes", "layout.tensor", "layout.pipeline"}  # the layout would report it again
    if document and not placed & {violation.path for violation in violations}:
        try:
            layout = Layout.from_spec(document.spec)
            check_engine(document.spec, layout)
        except SpecError as error:
            violations += document.annotate(error).violations
    if violations or document is None or layout is None:
        raise SpecError(violations)
    return document, layout
