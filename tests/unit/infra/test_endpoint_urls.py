import pytest

from infra.endpoints import Endpoints, open_endpoints
from infra.errors import ConfigurationError
from infra.redis import connection_string
from infra.settings import Settings
from infra.urls import libpq_url, sqlalchemy_url, without_password

ENDPOINTS = Endpoints("postgresql://duet:hunter2@h:5/duet", "redis://:hunter3@h:6/2", "http://h:7")


def test_passwords_do_not_show_in_a_repr() -> None:
    assert repr(ENDPOINTS) == "Endpoints(postgresql://duet:***@h:5/duet, redis://:***@h:6/2, http://h:7)"


def test_children_are_told_every_url() -> None:
    assert ENDPOINTS.environment() == {
        "DUET_DATABASE_URL": "postgresql://duet:hunter2@h:5/duet",
        "DUET_REDIS_URL": "redis://:hunter3@h:6/2",
        "DUET_MLFLOW__URL": "http://h:7",
    }


def test_the_sqlalchemy_url_names_the_driver_and_the_schema() -> None:
    assert (
        ENDPOINTS.sqlalchemy_url("mlflow")
        == "postgresql+psycopg2://duet:hunter2@h:5/duet?options=-csearch_path%3Dmlflow"
    )


def test_the_sqlalchemy_url_keeps_the_options_of_its_database() -> None:
    url = sqlalchemy_url("postgresql://u:p%40ss@h/d?sslmode=require&options=-cjit%3Doff", "feast")
    assert url == "postgresql+psycopg2://u:p%40ss@h/d?sslmode=require&options=-cjit%3Doff%20-csearch_path%3Dfeast"


def test_a_driver_name_is_taken_off_for_libpq() -> None:
    assert libpq_url("postgresql+psycopg2://u@h/d") == "postgresql://u@h/d"
    assert libpq_url("postgres://u@h/d") == "postgresql://u@h/d"


@pytest.mark.parametrize(
    "url", ["mysql://u:hunter2@h/d", "u:hunter2@h/d", "postgresql:///hunter2", "postgresql://u:hunter2@h:port/d"]
)
def test_another_kind_of_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DUET_DATABASE_URL") as caught:
        libpq_url(url)
    assert "hunter2" not in str(caught.value)


def test_a_redis_url_of_another_kind_is_refused_before_anything_is_opened() -> None:
    settings = Settings(database_url="postgresql://u@127.0.0.1:1/d", redis_url="http://h:1")
    with pytest.raises(ConfigurationError, match="DUET_REDIS_URL"), open_endpoints(settings):
        pass


def test_a_password_is_masked_and_the_rest_kept() -> None:
    assert without_password("redis://:secret@[::1]:6/0") == "redis://:***@[::1]:6/0"
    assert without_password("http://h:7/x") == "http://h:7/x"


def test_a_redis_url_is_written_in_feasts_notation() -> None:
    assert connection_string("redis://:p%40ss@h:6/2") == "h:6,db=2,password=p@ss"
    assert connection_string("rediss://me:pw@h") == "h:6379,db=0,username=me,password=pw,ssl=true"
