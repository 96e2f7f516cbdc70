"""What can go wrong with features.

DuetError
└── FeatureError               anything of this package
    ├── UnknownColumn          a column name that no layout has
    ├── MalformedFeatures      arrays of a wrong width, length, order or type
    ├── CatalogueNotApplied    the Feast registry lacks the catalogue, or holds another one
    └── FeatureStoreUnavailable  the online or offline store does not answer
"""

from infra.errors import DuetError


class FeatureError(DuetError):
    """Anything that this package refuses."""


class UnknownColumn(FeatureError):
    """A column was named that the layout does not have."""


class MalformedFeatures(FeatureError):
    """Packed vectors do not have the shape, order or type that their layout promises."""


class CatalogueNotApplied(FeatureError):
    """The Feast registry does not hold this catalogue yet."""


class FeatureStoreUnavailable(FeatureError):
    """The online or offline store does not answer."""
