"""The token that MLflow and Dagster ask for: who needs one, where it is kept, how it is sent.

One token for both, configured or in `data_dir/secrets/web_token`, readable by its owner only. It is needed in
production, and where other people have accounts on this machine: they reach every port of it.
"""

import hashlib
import hmac
import os
import pwd
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

from infra.embedded.files import secret
from infra.embedded.lease import locked
from infra.errors import ConfigurationError
from infra.settings import Settings

PARAMETER = "token"
_PEOPLE = range(1000, 60_000)
"""User ids that Linux gives to people; those below and above belong to services."""


def needs_token(settings: Settings) -> bool:
    """Tell whether MLflow and Dagster ask for a token; raises ConfigurationError where it must not be off."""
    if settings.web.auth == "off" and settings.environment == "production":
        raise ConfigurationError(
            "`DUET_WEB__AUTH` is `off`, which is refused in production: set it to `required` or leave it unset."
        )
    if settings.web.auth == "auto":
        return settings.environment == "production" or not {os.geteuid()}.issuperset(_people())
    return settings.web.auth == "required"


def decided(settings: Settings) -> Settings:
    """Return the settings with `auto` decided: an account made meanwhile must not part servers from their clients."""
    auth = "required" if needs_token(settings) else "off"
    return settings.model_copy(update={"web": settings.web.model_copy(update={"auth": auth})})


def web_token(settings: Settings) -> str | None:
    """Return the token that MLflow and Dagster ask for; None where none is needed."""
    return own_token(settings) if needs_token(settings) else None


def own_token(settings: Settings) -> str:
    """Return the configured token, or that of this data directory, which is made the first time.

    Who has it can read the files of this account.
    """
    if settings.web.token is not None:
        return settings.web.token.get_secret_value()
    root = settings.data_dir.absolute()
    with locked(root / "run" / "web"):  # two first callers must not make two tokens
        return secret(root / "secrets" / "web_token")


def mlflow_token(settings: Settings) -> str | None:
    """Return the token for MLflow: the configured one, or that of the server which Duet starts."""
    if settings.mlflow.token is not None:
        return settings.mlflow.token.get_secret_value()
    return web_token(settings) if settings.mlflow.url is None else None


def guard_environment(settings: Settings) -> dict[str, str]:
    """Return the variables that make a server's process guard itself as these settings say."""
    return {
        "DUET_ENVIRONMENT": settings.environment,
        "DUET_DATA_DIR": str(settings.data_dir.resolve()),
        "DUET_WEB__AUTH": settings.web.auth,
        "DUET_WEB__ALLOWED_HOSTS": ",".join(settings.web.allowed_hosts),
    }


def bearer(token: str | None) -> dict[str, str]:
    """Return the headers that send the token."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def with_token(url: str, token: str | None) -> str:
    """Return the link that lets a browser in; the page it opens keeps a cookie instead."""
    return url if token is None else f"{url.rstrip('/')}/?{urlencode({PARAMETER: token})}"


def guarded(settings: Settings, urls: Mapping[str, str]) -> dict[str, str]:
    """Return, of the named addresses, those of servers that ask for the token where one is needed."""
    names = ("dagster",) if settings.mlflow.url is not None else ("dagster", "mlflow")
    return {name: urls[name] for name in names if name in urls}


def links(settings: Settings, urls: Mapping[str, str]) -> dict[str, str]:
    """Return, of the named addresses, those that ask for the token as links that let a browser in."""
    token = web_token(settings)
    return {} if token is None else {name: with_token(url, token) for name, url in guarded(settings, urls).items()}


def give_to_mlflow(token: str | None) -> None:
    """Let MLflow's own client in this process, and in its children, send the token."""
    if token is not None:
        os.environ["MLFLOW_TRACKING_TOKEN"] = token


def cookie(token: str) -> tuple[str, str]:
    """Return name and value of the cookie that stands for the token.

    Cookies do not know ports: MLflow and Dagster share this one, two platforms on one machine do not, and the value is
    no token, because servers on other ports of the same address see it.
    """
    name = hashlib.sha256(token.encode()).hexdigest()[:12]
    return f"duet_{name}", hmac.new(token.encode(), b"cookie", hashlib.sha256).hexdigest()


def _people() -> Iterator[int]:
    """Yield the ids of accounts that a person can log in to."""
    for entry in pwd.getpwall():
        if entry.pw_uid in _PEOPLE and entry.pw_shell and not entry.pw_shell.endswith(("nologin", "false")):
            yield entry.pw_uid
