"""Errors of candidate generation.

DuetError
└── RetrievalError
    ├── TooFewLikes   there is nothing to factorise
    └── BadInputs     the arrays given do not describe the same people
"""

from infra.errors import DuetError


class RetrievalError(DuetError):
    """Embeddings or the index cannot be built."""


class TooFewLikes(RetrievalError):
    """The window holds too few likes or people to factorise."""


class BadInputs(RetrievalError):
    """The arrays given do not belong together."""
