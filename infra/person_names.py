"""The names that logs have for people: salted hashes, so that one person's lines are found and no id stands in them."""

from hashlib import blake2b
from typing import Final

from infra.embedded.files import secret
from infra.embedded.lease import locked
from infra.settings import Settings

_DIGITS: Final = 8
_LONGEST_KEY: Final = 64


class PersonNames:
    """Names people by their ids; without the salt nobody can tell whose name it is."""

    def __init__(self, salt: str) -> None:
        self._key = salt.encode()
        if len(self._key) > _LONGEST_KEY:
            self._key = blake2b(self._key).digest()

    @classmethod
    def of(cls, settings: Settings) -> "PersonNames":
        """Return the names by the salt of the settings, or by that of the data folder, which is made the first time."""
        if settings.logging.person_salt is not None:
            return cls(settings.logging.person_salt.get_secret_value())
        root = settings.data_dir.absolute()
        with locked(root / "run" / "logs"):  # two first callers must not make two salts
            return cls(secret(root / "secrets" / "log_salt"))

    def __call__(self, user_id: object) -> str:
        """Return the name of one person, 16 hexadecimal digits."""
        return blake2b(str(user_id).encode(), digest_size=_DIGITS, key=self._key).hexdigest()
