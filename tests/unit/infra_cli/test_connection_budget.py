"""What `duet doctor` says of the connections that every replica of the service may open."""

import re

from pydantic import SecretStr

from infra.cli.checks import connections
from infra.settings import Settings


def with_replicas(settings: Settings, replicas: int, workers: int = 2) -> Settings:
    serving = settings.serving.model_copy(update={"replicas": replicas, "workers": workers})
    return settings.model_copy(update={"serving": serving})


def test_pools_that_fit_are_well(settings: Settings) -> None:
    finding = connections(with_replicas(settings, 1), 197, 20)
    assert finding.ok
    assert finding.seen == "1 replicas x 2 workers x (10 + 20 + 3 in the background) = 66, others 20, of 197"


def test_pools_that_do_not_fit_are_refused_with_numbers_that_would(settings: Settings) -> None:
    wanted = with_replicas(settings, 4)
    finding = connections(wanted, 197, 21)
    assert not finding.ok
    size, overflow = (int(found) for found in re.findall(r"__(?:POOL_SIZE|MAX_OVERFLOW)=(\d+)", finding.remedy))
    assert (size, overflow) == (10, 9)
    postgres = wanted.postgres.model_copy(update={"pool_size": size, "max_overflow": overflow})
    assert connections(wanted.model_copy(update={"postgres": postgres}), 197, 21).ok
    assert "max_connections of the server to at least 295" in finding.remedy


def test_without_room_for_any_pool_no_pool_is_proposed(settings: Settings) -> None:
    remedy = connections(with_replicas(settings, 100), 97, 0).remedy
    assert "POOL_SIZE" not in remedy
    assert "PgBouncer" in remedy


def test_behind_pgbouncer_the_server_s_limit_is_not_ours(settings: Settings) -> None:
    finding = connections(with_replicas(settings, 100), 97, 0, pgbouncer=True)
    assert finding.ok
    assert "1.21" in finding.seen


def test_a_read_replica_costs_the_primary_one_connection_of_each_worker(settings: Settings) -> None:
    wanted = with_replicas(settings, 1)
    postgres = wanted.postgres.model_copy(update={"read_replica_url": SecretStr("postgresql://example.com/replica")})
    seen = connections(wanted.model_copy(update={"postgres": postgres}), 197, 20).seen
    assert "2 workers x (10 + 20 + 4 in the background) = 68" in seen
