"""Turns a body that names people by text into the same body by number."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from serving.api import responses
from serving.errors import UnknownUser
from serving.people.names import Name

Body = TypeVar("Body", bound=BaseModel)


def names_in(asked: BaseModel, one: Sequence[str], many: Sequence[str] = ()) -> list[Name]:
    """Return whom a body names in the fields `one`, and in the lists `many`."""
    return [
        *(getattr(asked, field) for field in one),
        *(name for field in many for name in getattr(asked, field) or ()),
    ]


def numbered(
    model: type[Body], asked: BaseModel, numbers: Mapping[Name, int], one: Sequence[str], many: Sequence[str] = ()
) -> Body:
    """Return a body as `model` has it; whom nobody knows is left out of lists.

    Raises UnknownUser where a field names nobody, and InvalidRequest where two names are of one person who must be two.
    """
    unknown = [field for field in one if getattr(asked, field) not in numbers]
    if unknown:
        raise UnknownUser.named(getattr(asked, unknown[0]), unknown)
    given = {field: getattr(asked, field) for field in asked.model_fields_set}
    given |= {field: numbers[given[field]] for field in one}
    for field in many:
        if given.get(field) is not None:
            given[field] = [numbers[name] for name in given[field] if name in numbers]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise responses.invalid(error) from None
