from pathlib import Path

from pydantic import SecretStr

from infra.person_names import PersonNames
from infra.settings import LoggingSettings, Settings


def test_a_person_has_one_name_and_another_salt_gives_another() -> None:
    names = PersonNames("salt")
    assert names(42) == names("42") == PersonNames("salt")(42)
    assert len({names(42), names(43), PersonNames("pepper")(42)}) == 3
    assert "42" not in {names(42), names(43)}
    assert len(names(42)) == 16


def test_a_long_salt_counts_to_its_end() -> None:
    assert PersonNames("x" * 100 + "a")(1) != PersonNames("x" * 100 + "b")(1)


def test_replicas_with_one_salt_agree_and_a_data_folder_keeps_its_own(tmp_path: Path) -> None:
    given = LoggingSettings(person_salt=SecretStr("one for all"))
    here, there = (Settings(data_dir=tmp_path / name, logging=given) for name in ("here", "there"))
    assert PersonNames.of(here)(42) == PersonNames.of(there)(42)
    own = Settings(data_dir=tmp_path / "own")
    assert PersonNames.of(own)(42) == PersonNames.of(own)(42) != PersonNames.of(here)(42)
    assert (tmp_path / "own" / "secrets" / "log_salt").stat().st_mode & 0o777 == 0o600
