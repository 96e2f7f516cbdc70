"""What production refuses, seen from the settings alone, so that it is refused before any server is started."""

from infra.errors import ConfigurationError
from infra.settings import Settings
from infra.web.token import needs_token


def needs_key(settings: Settings) -> bool:
    """Tell whether calls need an API key."""
    mode = settings.serving.auth.mode
    return mode == "required" or (mode == "auto" and settings.environment == "production")


def refuse_unsafe(settings: Settings) -> None:
    """Refuse settings that would leave a production service open; raises ConfigurationError."""
    if settings.environment != "production":
        return
    if not needs_key(settings):
        raise ConfigurationError(
            "`DUET_SERVING__AUTH__MODE` is `off`, which is refused in production: set it to `required`."
        )
    if "*" in settings.serving.cors_origins and settings.serving.cors_credentials:
        raise ConfigurationError(
            "`DUET_SERVING__CORS_ORIGINS` is `*` with credentials, which is refused in production: name the origins."
        )
    needs_token(settings)  # it has its own refusal
