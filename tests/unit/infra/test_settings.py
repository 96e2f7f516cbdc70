from pathlib import Path

import pytest
from pydantic import ValidationError

from infra.errors import ConfigurationError
from infra.settings import Settings, load_settings
from infra.variables import render, variables

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a `.env` and without secret files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("infra.variables.DEFAULT_SECRETS_DIR", tmp_path / "no-secrets")
    return tmp_path


def test_defaults_need_nothing_from_outside() -> None:
    settings = load_settings()
    assert settings.environment == "development"
    assert settings.data_dir == Path(".duet")
    assert settings.database_url is None
    assert settings.serving.n_candidates == 300


def test_the_environment_reaches_a_nested_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_POSTGRES__POOL_SIZE", "7")
    monkeypatch.setenv("duet_ranking__pending_likes", "true")
    settings = load_settings()
    assert settings.postgres.pool_size == 7
    assert settings.ranking.pending_likes is True


def test_an_override_wins_over_the_environment_and_leaves_its_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_POSTGRES__POOL_SIZE", "7")
    monkeypatch.setenv("DUET_POSTGRES__MAX_OVERFLOW", "3")
    settings = load_settings(postgres={"pool_size": 9})
    assert (settings.postgres.pool_size, settings.postgres.max_overflow) == (9, 3)


def test_an_empty_variable_means_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_DATABASE_URL", "")
    monkeypatch.setenv("DUET_POSTGRES__PORT", " ")
    assert load_settings().database_url is None


def test_a_misspelt_variable_is_refused_with_the_closest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_POSTGRES__POLL_SIZE", "3")
    with pytest.raises(ConfigurationError, match=r"`DUET_POSTGRES__POLL_SIZE` is not.*`DUET_POSTGRES__POOL_SIZE`"):
        load_settings()


def test_a_group_is_not_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_POSTGRES", "{}")
    with pytest.raises(ConfigurationError, match="`DUET_POSTGRES` is a group"):
        load_settings()


def test_a_misspelt_override_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"`DUET_SERVING__PROT`.*`DUET_SERVING__PORT`"):
        load_settings(serving={"prot": 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DUET_POSTGRES__POOL_SIZE", "0"),
        ("DUET_POSTGRES__PORT", "65536"),
        ("DUET_SERVING__EXPLORATION_SHARE", "0.51"),
        ("DUET_SERVING__TIMEOUT_S", "nan"),
        ("DUET_SERVING__TIMEOUT_S", "inf"),
        ("DUET_SERVING__N_CANDIDATES", "many"),
        ("DUET_SERVING__AGGREGATOR", "sum"),
        ("DUET_SERVING__HOST", "a host"),
        ("DUET_MLFLOW__URL", "ftp://example.org"),
        ("DUET_ENVIRONMENT", "prod"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name_and_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"`{name}` is `{value}`, which is refused: ")
    assert "\n" not in str(caught.value)


def test_a_refused_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(database_url={"a": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_secrets_do_not_show_in_a_repr() -> None:
    assert "hunter2" not in repr(load_settings(database_url="postgresql://duet:hunter2@db/duet"))


def test_dotenv_is_read_in_development(elsewhere: Path) -> None:
    (elsewhere / ".env").write_text("DUET_SERVING__PORT=8123\nOTHER=1\n")
    assert load_settings().serving.port == 8123


def test_the_environment_wins_over_dotenv(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / ".env").write_text("DUET_SERVING__PORT=8123\n")
    monkeypatch.setenv("DUET_SERVING__PORT", "8124")
    assert load_settings().serving.port == 8124


def test_dotenv_is_not_read_in_production(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / ".env").write_text("DUET_SERVING__PORT=8123\n")
    monkeypatch.setenv("DUET_ENVIRONMENT", "production")
    assert load_settings().serving.port == 8000


def test_dotenv_cannot_claim_production(elsewhere: Path) -> None:
    (elsewhere / ".env").write_text("DUET_ENVIRONMENT=production\n")
    with pytest.raises(ConfigurationError, match="in development only"):
        load_settings()


def test_a_misspelling_in_dotenv_is_refused(elsewhere: Path) -> None:
    (elsewhere / ".env").write_text("DUET_SERVING__PROT=1\n")
    with pytest.raises(ConfigurationError, match="DUET_SERVING__PORT"):
        load_settings()


def test_a_secret_file_stands_in_for_a_variable(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = elsewhere / "secrets"
    folder.mkdir()
    (folder / "duet_database_url").write_text("postgresql://duet:hunter2@db/duet\n")
    (folder / "unrelated").write_text("x")
    monkeypatch.setenv("DUET_SECRETS_DIR", str(folder))
    url = load_settings().database_url
    assert url is not None
    assert url.get_secret_value() == "postgresql://duet:hunter2@db/duet"


def test_an_unreadable_secret_file_is_refused(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = elsewhere / "secrets"
    folder.mkdir()
    (folder / "DUET_DATABASE_URL").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("DUET_SECRETS_DIR", str(folder))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings()


def test_a_missing_secrets_folder_is_refused(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_SECRETS_DIR", str(elsewhere / "absent"))
    with pytest.raises(ConfigurationError, match="which is no folder"):
        load_settings()


def test_settings_built_directly_read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_SERVING__PORT", "8124")
    assert Settings().serving.port == 8000


def test_settings_cannot_change_after_they_are_built() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.data_dir = Path("x")
    with pytest.raises(ValidationError, match="frozen"):
        settings.serving.port = 1


def test_every_setting_says_what_it_means_and_every_number_is_bounded() -> None:
    for variable in variables(Settings):
        assert variable.field.description, variable.name
        if variable.field.annotation in {int, float}:
            bounds = {type(rule).__name__ for rule in variable.field.metadata}
            assert bounds & {"Le", "Lt"}, variable.name
            assert bounds & {"Ge", "Gt"}, variable.name


def test_the_example_file_documents_every_setting() -> None:
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == render(Settings)


def test_the_example_file_is_accepted_when_every_line_is_uncommented(elsewhere: Path) -> None:
    lines = [line.removeprefix("# ") for line in render(Settings).splitlines() if line.startswith("# DUET_")]
    (elsewhere / ".env").write_text("\n".join(lines))
    assert load_settings() == Settings()
