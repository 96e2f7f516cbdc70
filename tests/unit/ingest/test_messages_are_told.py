"""Where data look like messages, the setting that suits them is named."""

import numpy as np

from pipelines.features.events import LIKE, PASS, Events
from pipelines.ingest.messages import SETTING, Contacts

IDS = np.arange(100, dtype=np.int64)


def contacts(n: int, answered: int, passes: int = 0) -> Contacts:
    rows = [(0, 1 + other, LIKE) for other in range(n)]
    rows += [(1 + other, 0, LIKE) for other in range(answered)] + [(0, 1, LIKE)]  # written to twice
    rows += [(50, 60 + other, PASS) for other in range(passes)]
    actor, target, kind = (np.array(column) for column in zip(*rows, strict=True))
    return Contacts.of(
        Events(IDS, actor.astype(np.int32), target.astype(np.int32), kind.astype(np.int8), np.arange(actor.size))
    )


def test_answered_contacts_without_passes_are_messages_and_each_pair_counts_once() -> None:
    found = contacts(40, 16)
    assert found == Contacts(0, 40, 16)
    advice = found.advice()
    assert advice is not None
    assert f"40% of the contacts were answered. `{SETTING}=true`" in advice


def test_passes_few_answers_and_few_contacts_are_no_messages() -> None:
    assert contacts(40, 16, passes=1).advice() is None
    assert contacts(40, 7).advice() is None
    assert contacts(29, 29).advice() is None
