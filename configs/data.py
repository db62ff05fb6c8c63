"""The corpus of a run."""

import re
from typing import Annotated, Any

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from frontrunner.configs.types import Frozen, Probability

#: Megatron's --data-path: weights and prefixes in turn.
_BLEND = re.compile(r"\s*(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s+\S+\s*)+")


def _one_corpus(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Refuses several corpora, in whatever form other trainers take them, as what they are."""
    if isinstance(value, list | dict) or isinstance(value, str) and _BLEND.fullmatch(value):
        message = "must be one corpus: a blend of several, with or without weights, is not supported"
        fix = "join their inputs: frontrunner data prepare --input A B --output PREFIX"
        raise PydanticCustomError("said", "{message}", {"message": message, "fix": fix})
    return handler(value)


Prefix = Annotated[str, Field(min_length=1), WrapValidator(_one_corpus)]


class DataSpec(Frozen):
    """A prepared corpus."""

    train: Prefix
    """PREFIX of PREFIX.bin and PREFIX.idx, relative to the working directory."""
    tokenizer: Annotated[str, Field(min_length=1)] | None = None
    """A tokenizer.json, relative to the working directory."""
    validation_fraction: Probability = 0.01
    """Fraction of the corpus (its last documents) that is held out for validation."""
