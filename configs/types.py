"""Basic types of run, machine and sweep files."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError, ValidationError


def say(message: str, fix: str) -> WrapValidator:
    """Replaces all errors of a union type by one message and one fix."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("said", "{message}", {"message": message, "fix": fix}) from None

    return WrapValidator(validate)


LARGEST = 2**53  # integers up to here are exact in JSON
PositiveInt = Annotated[int, Field(gt=0, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[
    str,
    Field(pattern=r"^[^\x00-\x1f\x7f]{1,100}$"),
    say("must be text of 1 to 100 characters on one line", "shorten it to one line; put a number in quotes"),
]


class Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
