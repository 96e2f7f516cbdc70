"""The first stage: an embedding, the index built from it, and what likes in common say."""

from dataclasses import dataclass
from typing import Protocol

from registry.models.embedding import Embedding
from registry.models.item_index import ItemIndex
from registry.models.neighbours import Neighbours


class FirstStage(Protocol):
    """What finds candidates: a release, or what will become one.

    `last_likes` says with how many of a person's latest likes a candidate is compared.
    """

    @property
    def embedding(self) -> Embedding:
        """Return the factors."""

    @property
    def index(self) -> ItemIndex:
        """Return the index built from them."""

    @property
    def neighbours(self) -> Neighbours | None:
        """Return what likes in common say."""

    @property
    def last_likes(self) -> int:
        """Return with how many latest likes a candidate is compared."""


@dataclass(frozen=True)
class FittedStage:
    """A first stage without a ranker: what candidates are drawn from before there is one."""

    embedding: Embedding
    index: ItemIndex
    neighbours: Neighbours | None
    last_likes: int
