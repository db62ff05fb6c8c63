"""Basic types of run, machine and sweep files."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import CoreSchema, PydanticCustomError, ValidationError


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
    """A section of a file. The docstrings below its fields describe them in the JSON schema.

    pydantic's ``use_attribute_docstrings`` would parse the source of all sections whenever a command starts.
    Validators are built when they are first needed. Modules with sections do not import ``annotations`` from
    ``__future__``: pydantic would compile each of their annotations again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for name, text in descriptions(cls).items():
            properties[cls.model_fields[name].alias or name].setdefault("description", text)
        return schema


def descriptions(section: type[BaseModel]) -> dict[str, str]:
    """The docstrings of a section's fields, by name."""
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if issubclass(base, Frozen) and base is not Frozen:
            found |= _docstrings(base)
    return {name: text for name, text in found.items() if name in section.model_fields}


def _docstrings(section: type[BaseModel]) -> dict[str, str]:
    """Those that a class has itself."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        match statement, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = inspect.cleandoc(text)
    return found


def derived(rule: Callable[..., Any], *keys: str) -> Callable[[dict[str, Any]], Any]:
    """A default derived from other fields; None if those are invalid (the file is then refused anyway)."""
    return lambda given: rule(*(given[key] for key in keys)) if given.keys() >= set(keys) else None
