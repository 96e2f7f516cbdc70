"""The header by which testers choose the arm of an experiment.

Whoever may not choose is refused, not ignored: an answer that silently is from another arm than the caller asked for
would be believed.
"""

from collections.abc import Mapping

from serving.errors import InvalidRequest, VariantForbidden
from serving.experiments.assignment import Variant

HEADER = b"x-duet-variant"


def chosen_variant(headers: Mapping[bytes, bytes], *, tester: bool) -> Variant | None:
    """Return the arm that the header names, None without one; raises VariantForbidden and InvalidRequest."""
    value = headers.get(HEADER)
    if value is None:
        return None
    if not tester:
        raise VariantForbidden("`X-Duet-Variant` is for keys of testers: leave it out, or make a key with `--tester`.")
    try:
        return Variant(value.decode("latin-1").strip().lower())
    except ValueError:
        raise InvalidRequest(
            "`X-Duet-Variant` is `champion` or `challenger`.",
            [{"field": "X-Duet-Variant", "message": "must be `champion` or `challenger`"}],
        ) from None
