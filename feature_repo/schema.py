"""The fingerprint of the ranking vector: a ranker serves only where it equals the one it was trained on."""

import hashlib
import json

from feature_repo.layout import RANKING_FEATURES, RATE_PRIOR, RATE_STRENGTH, VIEWS

TRANSFORM_VERSION = "1"
"""Raise this whenever a transformation gives other numbers for the same people."""


def ranking_schema_digest() -> str:
    """Return the sha256 (hex) of names, order and types of all features, and of the transformations' version."""
    described = {
        "transform_version": TRANSFORM_VERSION,
        "dtype": "float32",
        "features": list(RANKING_FEATURES),
        "views": {layout.name: list(layout.columns) for layout in VIEWS},
        # NaN has no JSON of its own: the text of a number is unambiguous.
        "defaults": {layout.name: [repr(float(value)) for value in layout.default_row] for layout in VIEWS},
        "rate": [RATE_PRIOR, RATE_STRENGTH],
    }
    canonical = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
