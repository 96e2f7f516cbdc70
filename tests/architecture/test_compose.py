"""What compose.yaml promises, without Docker: `make topology` runs the same processes with the same files."""

import json
import os
import re
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from infra.settings import Settings, load_settings
from infra.variables import variables
from infra.web.limits import LimitedHttp
from infra.web.token import needs_token
from tests.architecture.compose import COMPOSE, TEXT, VARIABLE, composed, services
from tests.architecture.sources import ROOT

OURS = re.compile(r"localhost/duet-(serving|pipelines)$")
ONCE = {"migrate", "object-store-bucket", "cli"}
PROFILES = ("minimal", "full", "tools")


def healthy(name: str) -> bool:
    """Tell whether Compose can know that a service is healthy: by its own check, or by that of the serving image."""
    service = services()[name]
    return "healthcheck" in service or service["image"].endswith("duet-serving")


def test_the_file_obeys_the_schema_of_the_compose_specification() -> None:
    checker = pytest.importorskip("check_jsonschema", reason="`make install` brings it")
    schema = resources.files(checker) / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.Draft7Validator(json.loads(schema.read_text())).validate(composed())


def test_every_service_is_watched_limited_and_started_again() -> None:
    for name, service in services().items():
        assert name in ONCE or healthy(name), name
        limits = service["deploy"]["resources"]["limits"]
        assert limits.keys() == {"cpus", "memory"}, name
        assert service["restart"] == ("no" if name in ONCE else "unless-stopped"), name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_our_containers_have_no_rights_and_write_to_data_and_tmp_only() -> None:
    ours = {name: service for name, service in services().items() if OURS.search(service["image"])}
    assert len(ours) > 6
    for name, service in ours.items():
        assert service["read_only"] is True, name
        assert service["tmpfs"] == ["/tmp"], name  # noqa: S108 in the container
        assert service["cap_drop"] == ["ALL"], name
        writable = [mount for mount in service.get("volumes", []) if not mount.endswith(":ro")]
        assert [mount.partition(":")[2] for mount in writable] in ([], ["/var/lib/duet"]), name


def test_images_of_others_are_pinned_to_a_version() -> None:
    others = {service["image"] for service in services().values() if not OURS.search(service["image"])}
    assert len(others) > 6
    assert not [image for image in others if not re.search(r":v?\d", image)]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_has_whatever_its_services_wait_for(profile: str) -> None:
    chosen = services(profile)
    for name, service in chosen.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in chosen or how.get("required") is False, f"{name} waits for {needed}"
            ends = needed in ONCE
            assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy"), name
            assert ends or healthy(needed), needed


def test_one_machine_needs_less_than_the_full_profile() -> None:
    minimal, full = set(services("minimal")), set(services("full"))
    assert minimal < full
    assert full - minimal >= {"postgres-standby", "pgbouncer", "serving-2", "object-store", "prometheus", "grafana"}


def test_nothing_but_the_proxy_is_reached_from_outside() -> None:
    assert [name for name, service in services().items() if "ports" in service] == ["proxy"]
    [plain, tls] = services()["proxy"]["ports"]
    assert plain.startswith("127.0.0.1:")
    assert tls.startswith("127.0.0.1:")


def test_every_setting_that_a_container_is_given_is_one_of_duet() -> None:
    known = {variable.name for variable in variables(Settings)}
    for name, service in services().items():
        secret = [entry["target"] for entry in service.get("secrets", []) if isinstance(entry, dict)]
        given = {word for word in (*service.get("environment", {}), *secret) if word.startswith("DUET_")}
        assert given <= known, name


def test_the_example_of_the_environment_has_each_variable_with_the_default_of_the_file() -> None:
    lines = (COMPOSE / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    used = dict(VARIABLE.findall(TEXT))
    assert example == used | {"COMPOSE_PROFILES": "full"}


def sources(mount: str) -> Path:
    return COMPOSE / mount.partition(":")[0]


def test_every_file_that_is_mounted_is_there() -> None:
    mounts = [mount for service in services().values() for mount in service.get("volumes", [])]
    files = [sources(mount) for mount in mounts if mount.startswith(".") and not mount.startswith("./import:")]
    assert len(files) > 8
    assert not [path for path in files if not path.exists()]
    named = {mount.partition(":")[0] for mount in mounts if not mount.startswith(".")}
    assert named == set(composed()["volumes"])


@pytest.mark.parametrize("profile", ["minimal", "full"])
def test_the_secrets_are_made_once_and_only_their_owner_opens_the_folder(tmp_path: Path, profile: str) -> None:
    command = ["sh", COMPOSE / "make-secrets.sh", profile, "duet.example.com"]
    folder = tmp_path / "secrets"
    environment = {**os.environ, "SECRETS_DIR": str(folder)}
    subprocess.run(command, env=environment, check=True)
    declared: dict[str, Any] = composed()["secrets"]
    assert {Path(entry["file"]).name for entry in declared.values()} == set(declared)
    assert set(declared) <= {path.name for path in folder.iterdir()}
    used = [entry for service in services().values() for entry in service.get("secrets", [])]
    assert {entry if isinstance(entry, str) else entry["source"] for entry in used} == set(declared)
    assert folder.stat().st_mode & 0o777 == 0o700
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    subprocess.run(command, env=environment, check=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    host = "pgbouncer" if profile == "full" else "postgres"
    assert f"@{host}:" in before["serving_database_url"].decode()
    assert bool(before["replica_url"]) == (profile == "full")
    assert len({before[name] for name in before if name.endswith(("_password", "_token", "_salt"))}) == 11


def test_the_urls_of_stores_of_ones_own_stay_when_the_secrets_are_made_again(tmp_path: Path) -> None:
    command = ["sh", COMPOSE / "make-secrets.sh", "full"]
    environment = {**os.environ, "SECRETS_DIR": str(tmp_path)}
    subprocess.run(command, env=environment, check=True)
    own = "postgresql://duet_serving@db.example.com/duet"
    (tmp_path / "serving_database_url").write_text(own)
    subprocess.run(command, env=environment, check=True)
    assert (tmp_path / "serving_database_url").read_text() == own


def test_all_that_knows_people_names_them_by_one_salt() -> None:
    for name, service in services().items():
        given = {entry["target"] for entry in service.get("secrets", []) if isinstance(entry, dict)}
        knows_people = "DUET_DATABASE_URL" in given and name != "mlflow"
        assert ("DUET_LOGGING__PERSON_SALT" in given) == knows_people, name


def test_a_profile_that_is_none_is_refused(tmp_path: Path) -> None:
    environment = {**os.environ, "SECRETS_DIR": str(tmp_path / "secrets")}
    command = ["sh", COMPOSE / "make-secrets.sh", "tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "minimal|full" in done.stderr) == (2, True)
    assert not (tmp_path / "secrets").exists()


def test_the_proxy_sends_to_the_addresses_that_the_services_have_and_is_trusted_at_its_own() -> None:
    config = (COMPOSE / "haproxy" / "haproxy.cfg").read_text()
    addresses = {
        name: service["networks"]["inside"]["ipv4_address"]
        for name, service in services().items()
        if isinstance(service["networks"], dict)
    }
    behind = set(re.findall(r"(?m)^    server (\S+) ([\d.]+):\d+(?: no-check)?$", config))
    assert {address for _, address in behind} == {at for name, at in addresses.items() if name != "proxy"}
    for replica in ("serving-1", "serving-2"):
        assert (replica, addresses[replica]) in behind
        environment = services()[replica]["environment"]
        assert environment["DUET_SERVING__TRUSTED_PROXIES"] == addresses["proxy"]


def test_mlflow_and_dagster_ask_for_a_token_because_they_are_in_production() -> None:
    production = load_settings(environment="production", web={"auth": "auto"})
    assert needs_token(production)
    assert "DUET_ENVIRONMENT=production" in (ROOT / "infra" / "docker" / "Dockerfile").read_text()
    for name, command in (("mlflow", "mlflow server --app-name duet"), ("dagster-webserver", "pipelines.webserver")):
        service = services()[name]
        assert command in " ".join(service["command"]), name
        assert {"source": "web_token", "target": "DUET_WEB__TOKEN"} in service["secrets"], name
        assert not {"DUET_ENVIRONMENT", "DUET_WEB__AUTH"} & set(service["environment"]), name


def test_mlflow_takes_connections_within_the_bounds_of_all_our_servers() -> None:
    protocol = f"{LimitedHttp.__module__}:{LimitedHttp.__name__}"
    assert f'--uvicorn-opts "--no-access-log --http {protocol}"' in " ".join(services()["mlflow"]["command"])


def test_the_proxy_speaks_tls_sends_everybody_there_and_writes_no_token_into_its_log() -> None:
    config = (COMPOSE / "haproxy" / "haproxy.cfg").read_text()
    plain, tls = re.findall(r"(?ms)^frontend (?:plain|tls) .*?(?=^\w)", config)
    assert re.search(r"bind \*:8080$", plain, re.MULTILINE)
    sent_to = r'http-request redirect location "https://%\[req.hdr\(host\),field\(1,:\)\]:\$\{HTTPS_PORT-8443\}'
    assert re.search(sent_to, plain), "to the port where TLS is published, not to the one that was asked"
    proxy = services()["proxy"]
    assert f"127.0.0.1:{proxy['environment']['HTTPS_PORT']}:8443" in proxy["ports"]
    assert "backend" not in plain
    assert re.findall(r"(?m)^    bind (.*)$", tls) == ["*:8443 ssl crt /run/secrets/proxy_certificate alpn h2,http/1.1"]
    assert "ssl-min-ver TLSv1.2" in config
    assert "X-Forwarded-Proto https" in tls
    assert "httplog" not in config.replace("`option httplog`", "")
    assert "%HM %HP %HV" in config


def test_prometheus_asks_the_replicas_that_there_are() -> None:
    [targets] = yaml.safe_load((COMPOSE / "targets" / "serving.yaml").read_text())
    serving = {name for name, service in services().items() if service["image"].endswith("duet-serving")}
    replicas = [f"{name}:8000" for name in sorted(serving - {"stream"})]
    assert targets["targets"] == replicas
