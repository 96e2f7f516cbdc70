"""The forms in which a server's URL is needed, and the refusal of what is no such URL.

Nothing here opens a connection, and no message repeats what may be a secret.
"""

from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit, urlunsplit

from infra.errors import ConfigurationError


def libpq_url(url: str) -> str:
    """Return a PostgreSQL URL without SQLAlchemy's driver name; raises ConfigurationError for any other URL."""
    parts = _checked(url, "DUET_DATABASE_URL", {"postgresql", "postgres"}, "postgresql://user@host/name")
    return urlunsplit(parts._replace(scheme="postgresql"))


def checked_redis_url(url: str) -> str:
    """Return a Redis URL as it is; raises ConfigurationError for any other URL."""
    _checked(url, "DUET_REDIS_URL", {"redis", "rediss"}, "redis://host:6379/0")
    return url


def sqlalchemy_url(database_url: str, schema: str) -> str:
    """Return a database's URL for SQLAlchemy on psycopg2, with `schema` as search path.

    psycopg2 because Dagster's and MLflow's SQL fails on psycopg 3, which a bare `postgresql://` means today.
    """
    parts = urlsplit(libpq_url(database_url))
    query = dict(parse_qsl(parts.query))
    query["options"] = f"{query.get('options', '')} -csearch_path={schema}".strip()
    return urlunsplit(parts._replace(scheme="postgresql+psycopg2", query=urlencode(query, quote_via=quote)))


def without_password(url: str) -> str:
    """Return the URL with its password replaced by `***`."""
    parts = urlsplit(url)
    if not parts.password:
        return url
    user = parts.username or ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{user}:***@{host}{port}"))


def _checked(url: str, variable: str, schemes: set[str], example: str) -> SplitResult:
    """Refuse a URL of another kind; the message repeats only what cannot be secret."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme.partition("+")[0] in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        is_good = False
    if not is_good:
        raise ConfigurationError(f"`{variable}` is not a URL of the form `{example}`: correct it.")
    return parts
