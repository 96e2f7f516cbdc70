"""The Helm chart, rendered without a cluster: valid, safe, overridable, and of settings and commands that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings import Settings
from infra.variables import variables
from infra.web.limits import LimitedHttp
from tests.architecture.sources import ROOT

helm = pytest.importorskip("helm_python", reason="the wheel helm-python-sdk has none for this machine")
CHART = ROOT / "infra" / "helm" / "duet"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
VERSIONS = ("1.37",)
CUSTOM = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of operators: their schemas are not Kubernetes'."""
THEIRS = {"postgres", "redis"}
Objects = dict[tuple[str, str], dict[str, Any]]


def values_of(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})


def rendered(values: dict[str, Any] | None = None) -> Objects:
    """Return every object by its kind and component."""
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(values=values or {}, name="live", namespace="people")
    found = [
        one
        for path, text in texts.items()
        if not path.endswith("NOTES.txt")
        for one in yaml.safe_load_all(text)
        if one is not None
    ]
    by_key = {(one["kind"], one["metadata"]["labels"]["app.kubernetes.io/component"]): one for one in found}
    assert len(by_key) == len(found), "two objects have one kind and one component"
    return by_key


@pytest.fixture(scope="module", params=[{}, *map(values_of, EXAMPLES)], ids=["default", *(p.stem for p in EXAMPLES)])
def objects(request: pytest.FixtureRequest) -> Objects:
    return rendered(request.param)


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """Return the template of the pods of each workload."""
    kinds = {"Deployment", "StatefulSet", "Job"}
    return {component: one["spec"]["template"] for (kind, component), one in objects.items() if kind in kinds}


def containers(objects: Objects) -> list[tuple[str, dict[str, Any]]]:
    return [(name, one) for name, pod in pods(objects).items() for one in pod["spec"]["containers"]]


@pytest.mark.parametrize("values", [{}, *map(values_of, EXAMPLES)], ids=["default", *(p.stem for p in EXAMPLES)])
def test_helm_finds_nothing_to_complain_of(values: dict[str, Any]) -> None:
    report = helm.lint(CHART, values, strict=True, namespace="people")
    worth_saying = [one for one in report["messages"] if one["severity"] > 1]
    assert not worth_saying
    assert not report["errors"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_takes(objects: Objects, version: str) -> None:
    import kubernetes_validate

    for (kind, _), one in objects.items():
        if kind not in CUSTOM:
            kubernetes_validate.validate(one, version, strict=True)


def test_every_container_is_without_rights_and_bounded(objects: Objects) -> None:
    for name, pod in pods(objects).items():
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"], name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for name, one in containers(objects):
        security = one["securityContext"]
        assert security["readOnlyRootFilesystem"], name
        assert not security["allowPrivilegeEscalation"], name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert one["resources"]["limits"]["memory"], name
        assert one["resources"]["requests"]["cpu"], name
        written = {mount["mountPath"] for mount in one["volumeMounts"] if not mount.get("readOnly")}
        assert "/tmp" in written, name  # noqa: S108 the only place besides the data


def test_only_what_launches_runs_may_talk_to_kubernetes(objects: Objects) -> None:
    launches = ("Role", "dagster") in objects
    for name, pod in pods(objects).items():
        assert pod["spec"]["automountServiceAccountToken"] is (launches and name in {"webserver", "daemon"}), name


def test_everything_that_answers_is_asked_how_it_is(objects: Objects) -> None:
    asked = {name: one for name, one in containers(objects) if name != "migrations"}
    for name, one in asked.items():
        assert "livenessProbe" in one, name
        assert name == "daemon" or "readinessProbe" in one, name
    serving = asked["serving"]
    assert serving["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert serving["livenessProbe"]["httpGet"]["path"] == "/health/live"


def test_no_secret_is_a_value_and_every_process_of_ours_reads_them_as_files(objects: Objects) -> None:
    text = yaml.safe_dump_all(objects.values())
    for variable in variables(Settings):
        if variable.is_secret:
            assert f"name: {variable.name}" not in text
    assert not [kind for kind, _ in objects if kind == "Secret"]
    for name, one in containers(objects):
        if name not in THEIRS:
            assert {"mountPath": "/run/secrets", "name": "secrets", "readOnly": True} in one["volumeMounts"], name


def test_every_setting_is_one_of_duets(objects: Objects) -> None:
    known = {variable.name for variable in variables(Settings)}
    text = yaml.safe_dump_all(one for (kind, _), one in objects.items() if kind not in CUSTOM)
    named = set(re.findall(r"\bDUET_[A-Z][A-Z0-9_]+", text))
    told_by_the_shell = {"DUET_MLFLOW__URL", "DUET_MLFLOW__TOKEN"}
    assert named - told_by_the_shell <= known


def test_mlflow_and_dagster_ask_for_a_token_because_they_are_in_production(objects: Objects) -> None:
    settings = objects["ConfigMap", "settings"]["data"]
    assert settings["DUET_ENVIRONMENT"] == "production"
    assert "DUET_WEB__AUTH" not in yaml.safe_dump_all(objects.values())
    for name, command in (("mlflow", "mlflow server --app-name duet"), ("webserver", "pipelines.webserver")):
        if ("Deployment", name) in objects:
            (one,) = pods(objects)[name]["spec"]["containers"]
            assert command in " ".join(one["args"]), name
            if name == "mlflow":
                assert f"--http {LimitedHttp.__module__}:{LimitedHttp.__name__}'" in " ".join(one["args"])


@pytest.mark.parametrize("part", ["serving", "dagster", "mlflow"])
def test_an_ingress_has_a_certificate_or_a_load_balancer_that_has_one(part: str) -> None:
    with pytest.raises(Exception, match="would carry keys and tokens in the clear: name a Secret"):
        rendered({part: {"ingress": {"enabled": True}}})
    component = {"dagster": "webserver"}.get(part, part)
    assert (
        "tls"
        not in rendered({part: {"ingress": {"enabled": True, "tlsEndsBefore": True}}})["Ingress", component]["spec"]
    )
    with_secret = rendered({part: {"ingress": {"enabled": True, "tlsSecret": "mine"}}})["Ingress", component]
    assert [entry["secretName"] for entry in with_secret["spec"]["tls"]] == ["mine"]


def test_whoever_is_in_the_cluster_reaches_only_what_they_need(objects: Objects) -> None:
    policies = {component: one["spec"] for (kind, component), one in objects.items() if kind == "NetworkPolicy"}
    assert set(pods(objects)) - {"migrations"} | {"run"} == set(policies)
    for component, policy in policies.items():
        selected = policy["podSelector"]["matchLabels"]
        assert selected["app.kubernetes.io/component"] == component
        assert policy["policyTypes"] == ["Ingress"]
        for rule in policy["ingress"]:
            assert component == "serving" or rule["from"], f"{component} is open to everybody"
    to_code = policies["code"]["ingress"][0]["from"]
    assert all("podSelector" in one and "namespaceSelector" not in one for one in to_code)


def test_services_and_policies_and_budgets_select_the_pods_they_are_for(objects: Objects) -> None:
    for (kind, component), one in objects.items():
        if kind == "Service":
            labels = pods(objects)[component]["metadata"]["labels"]
            assert one["spec"]["selector"].items() <= labels.items(), component
            ports = {port["name"] for port in pods(objects)[component]["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in one["spec"]["ports"]} <= ports


def test_migrations_run_before_an_upgrade_and_when_there_is_a_database(objects: Objects) -> None:
    hooks = objects["Job", "migrations"]["metadata"]["annotations"]["helm.sh/hook"]
    bundled = ("StatefulSet", "postgres") in objects
    assert hooks == ("post-install,pre-upgrade" if bundled else "pre-install,pre-upgrade")
    environment = objects["Job", "migrations"]["spec"]["template"]["spec"]["containers"][0]
    assert "envFrom" not in environment, "before an installation the chart's settings are not there yet"


def test_a_migration_gives_the_roles_that_are_named_what_they_need() -> None:
    for example, said in (("minimal", False), ("external", True)):
        job = rendered(values_of(CHART / "examples" / f"{example}.yaml"))["Job", "migrations"]
        command = job["spec"]["template"]["spec"]["containers"][0]["args"][-1]
        assert ("&& duet db-roles --serving duet_serving --pipelines duet_pipelines" in command) is said


def test_alerts_lead_to_the_runbook_where_the_team_reads_it() -> None:
    monitoring = {"rules": {"enabled": True, "runbook": "https://wiki.example.com/runbook"}}
    groups = rendered({"monitoring": monitoring})["PrometheusRule", "rules"]["spec"]["groups"]
    links = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert {link.partition("#")[0] for link in links} == {"https://wiki.example.com/runbook"}


def test_mlflow_is_given_a_secret_and_a_role_of_its_own_where_they_are_named() -> None:
    roles = {"serving": "duet_serving", "pipelines": "duet_pipelines", "mlflow": "duet_mlflow"}
    objects = rendered({"secrets": {"mlflow": "duet-mlflow"}, "migrations": {"roles": roles}})
    volumes = objects["Deployment", "mlflow"]["spec"]["template"]["spec"]["volumes"]
    assert [one["secret"]["secretName"] for one in volumes if "secret" in one] == ["duet-mlflow"]
    command = objects["Job", "migrations"]["spec"]["template"]["spec"]["containers"][0]["args"][-1]
    assert command.endswith("--pipelines duet_pipelines --mlflow duet_mlflow")


def test_runs_share_a_volume_or_a_bucket_whose_keys_they_are_given() -> None:
    shared, bucket = rendered(), rendered(values_of(CHART / "examples" / "production.yaml"))
    assert ("PersistentVolumeClaim", "dagster") in shared
    assert ("PersistentVolumeClaim", "dagster") not in bucket
    assert bucket["ConfigMap", "settings"]["data"]["DUET_RESULTS_URI"] == "s3://duet-models/results"
    runs = yaml.safe_load(bucket["ConfigMap", "dagster"]["data"]["dagster.yaml"])["run_launcher"]["config"]
    assert {"name": "data", "emptyDir": {"sizeLimit": "200Gi"}} in runs["volumes"]
    names = [one["name"] for one in runs["run_k8s_config"]["container_config"]["env"]]
    assert names == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


def test_replicas_follow_the_load_where_they_should() -> None:
    production = rendered(values_of(CHART / "examples" / "production.yaml"))
    scaler = production["HorizontalPodAutoscaler", "serving"]["spec"]
    assert [metric["type"] for metric in scaler["metrics"]] == ["Resource", "External"]
    assert "replicas" not in production["Deployment", "serving"]["spec"], "it would undo the autoscaler's choice"
    (serving,) = production["Deployment", "serving"]["spec"]["template"]["spec"]["containers"]
    told = {one["name"]: one.get("value") for one in serving["env"]}
    assert told["DUET_SERVING__REPLICAS"] == str(scaler["maxReplicas"]), "`duet doctor` counts connections by it"
    assert production["PodDisruptionBudget", "serving"]["spec"]["minAvailable"] < scaler["minReplicas"]


def test_the_rules_of_the_chart_are_those_of_the_project() -> None:
    production = rendered(values_of(CHART / "examples" / "production.yaml"))
    theirs = {group["name"] for group in production["PrometheusRule", "rules"]["spec"]["groups"]}
    folder = ROOT / "infra" / "monitoring" / "rules"
    ours = {group["name"] for path in folder.glob("*.yaml") for group in yaml.safe_load(path.read_text())["groups"]}
    assert theirs == ours
    (endpoint,) = production["ServiceMonitor", "serving"]["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "duet-metrics-key", "key": "key"}


def test_every_field_of_every_object_can_be_overridden() -> None:
    values = values_of(CHART / "examples" / "production.yaml")
    before = rendered(values)
    changes = {f"{kind}/{name}": {"metadata": {"annotations": {"changed": "yes"}}} for kind, name in before}
    after = rendered({**values, "overrides": changes})
    assert after.keys() == before.keys()
    for key, one in after.items():
        assert one["metadata"]["annotations"]["changed"] == "yes", key
        assert one["metadata"]["name"] == before[key]["metadata"]["name"]


def test_the_runs_of_dagster_are_as_the_launcher_wants_them() -> None:
    launcher = pytest.importorskip("dagster_k8s").K8sRunLauncher
    import dagster as dg

    @dg.op(config_schema=launcher.config_type())
    def launched() -> None: ...

    @dg.job
    def one() -> None:
        launched()

    instance = yaml.safe_load(rendered()["ConfigMap", "dagster"]["data"]["dagster.yaml"])
    told = instance["run_launcher"]
    assert (told["module"], told["class"]) == ("dagster_k8s", "K8sRunLauncher")
    dg.validate_run_config(one, {"ops": {"launched": {"config": told["config"]}}})
    ours = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    assert {name: value for name, value in instance.items() if name in ours} | {
        "run_monitoring": ours["run_monitoring"]
    } == ours, "Dagster's instance in the chart is another than the project's"
