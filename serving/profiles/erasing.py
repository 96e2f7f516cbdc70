"""Begins to erase people, and tells what became of it; the pipelines empty the places that serving does not own."""

from collections.abc import Callable
from typing import Final

import structlog
from psycopg.types.numeric import Int8

from feature_repo.contract.identities import canonical
from serving.errors import StorageUnavailable, UnknownUser
from serving.people.names import Name, Names, number_in
from serving.people.statements import Storage
from serving.profiles.erasure_models import ErasureReport

_TEXTS: Final = b"""
SELECT array_remove(ARRAY[external_id, attributes->>'source_id'], NULL) FROM duet.users WHERE user_id = $1
"""
_BEGIN: Final = b"SELECT duet.begin_erasure($1, $2::text[], $3::text[], 'api', $4)"
_ERASE_ROWS: Final = b"SELECT duet.erase_rows($1)"
_REPORT: Final = b"SELECT duet.erasure_report($1)"
_AGAIN: Final = "send it again."
_log = structlog.get_logger(__name__)


class Erasing:
    """Writes by `writes`, reads by `reads`; `name_person` hashes ids, `changed` is told whose answers count no more."""

    def __init__(
        self,
        writes: Storage,
        reads: Storage,
        name_person: Callable[[object], str],
        changed: Callable[[int], None] | None = None,
    ) -> None:
        self._writes = writes
        self._reads = reads
        self._names = Names(reads)
        self._name_person = name_person
        self._changed = changed

    async def erase(self, name: Name, actor: str, request_id: str) -> ErasureReport:
        """Hide a person for good, delete their rows, and leave the rest to the pipelines.

        Whoever was erased before is told of that erasure. Raises UnknownUser and StorageUnavailable.
        """
        number = (await self._names.numbers([name])).get(name)
        rows = [] if number is None else await self._reads.rows(_TEXTS, [Int8(number)], _AGAIN)
        if not rows or number is None:
            return await self.report(name, request_id)
        texts = list(dict.fromkeys([spelled(name), str(number), *map(canonical, rows[0][0])]))
        begun = [Int8(number), texts, [self._name_person(text) for text in texts], actor]
        [[erasure]] = await self._writes.rows(_BEGIN, begun, _AGAIN)
        if self._changed is not None:
            self._changed(number)
        if erasure is not None:
            try:
                await self._writes.rows(_ERASE_ROWS, [Int8(erasure)], _AGAIN)
            except StorageUnavailable:
                # They are hidden. Whoever has very many interactions is left to the pipelines, which may take longer.
                _log.warning("rows_not_erased_yet", erasure=erasure)
        return await self.report(name, request_id)

    async def report(self, name: Name, request_id: str) -> ErasureReport:
        """Return the newest erasure of whoever had this id; raises UnknownUser and StorageUnavailable."""
        # By `writes`: a replica may not have what was written a moment ago.
        [[report]] = await self._writes.rows(_REPORT, [self._name_person(spelled(name))], "ask again.")
        if report is None:
            raise UnknownUser.named(name)
        return ErasureReport(**report, request_id=request_id)


def spelled(name: Name) -> str:
    """Return an id as it is hashed: digits as they are, other text in its canonical form."""
    return str(name) if number_in(name) is not None else canonical(str(name))
