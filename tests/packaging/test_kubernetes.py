"""The Kubernetes example is valid, agrees with image, unit and configuration, and its configuration works."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from running import PROGRAM, ROOT, running

FOLDER, SCHEMAS = ROOT / "config" / "kubernetes", Path(__file__).with_name("schemas")
FILES = sorted(path.name for path in FOLDER.iterdir())
OLDEST = "1.30"  # its schema is strict about every field, as is that of the newest version
IMAGE, UNIT, PAGE = (
    (ROOT / name).read_text() for name in ("Dockerfile", "config/dnsblock.service", "docs/kubernetes.md")
)
LABELS = {"app.kubernetes.io/name": "dnsblock"}


def read(name: str) -> dict[str, Any]:
    """The only document of a file."""
    return yaml.safe_load((FOLDER / name).read_text())


DAEMON_SET, CONFIG_MAP = read("daemonset.yaml"), read("configmap.yaml")["data"]
CONFIG = yaml.safe_load(CONFIG_MAP["dnsblock.yaml"])
POD = DAEMON_SET["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
PROBES = {kind: CONTAINER[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
MOUNTS = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
VOLUMES = {volume["name"]: volume for volume in POD["volumes"]}


def instruction(word: str) -> str:
    """The last value of an instruction of the Dockerfile."""
    return re.findall(rf"^{word} (.+)$", IMAGE, re.MULTILINE)[-1]


def directive(name: str) -> str:
    """The value of a directive of the systemd unit."""
    return re.search(rf"^{name}=(.+)$", UNIT, re.MULTILINE)[1]


# ------- Schemas


def problem(document: dict[str, Any], version: str) -> str:
    """The first error by the schema of this version of Kubernetes, or of the own kind; empty if valid."""
    own = SCHEMAS / f"{document['kind'].lower()}.json"
    try:
        if own.exists():
            jsonschema.Draft202012Validator(json.loads(own.read_text())).validate(document)
        else:
            kubernetes_validate.validate(document, version, strict=True)
    except jsonschema.ValidationError as err:
        return err.message
    return ""


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", FILES)
def test_every_document_has_the_form_of_its_schema(name: str, version: str):
    """The API server refuses or drops anything else."""
    assert problem(read(name), version) == ""


@pytest.mark.parametrize("name", FILES)
def test_a_misspelled_field_is_refused(name: str):
    """So the schemas are strict: a Pod without its security context would still start."""
    assert "securtyContext" in problem(read(name) | {"securtyContext": {}}, OLDEST)


def test_the_kustomization_has_every_document():
    """`kubectl apply -k` applies all of them."""
    kustomization = read("kustomization.yaml")
    assert sorted([*kustomization["resources"], "kustomization.yaml"]) == FILES
    (image,) = kustomization["images"]
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert (image["name"], image["newTag"]) == (CONTAINER["image"], version)


def test_all_documents_belong_together():
    """Namespace, labels, names and ports."""
    documents = [read(name) for name in FILES if name not in ("namespace.yaml", "kustomization.yaml")]
    assert {one["metadata"]["namespace"] for one in documents} == {read("namespace.yaml")["metadata"]["name"]}
    service, monitor = read("service.yaml"), read("servicemonitor.yaml")
    pods, selected = DAEMON_SET["spec"]["template"]["metadata"]["labels"], DAEMON_SET["spec"]["selector"]
    assert pods == selected["matchLabels"] == service["spec"]["selector"] == LABELS
    assert service["metadata"]["labels"] == monitor["spec"]["selector"]["matchLabels"] == LABELS
    assert VOLUMES["config"]["configMap"]["name"] == read("configmap.yaml")["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    (port,), (endpoint,) = service["spec"]["ports"], monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")
    assert port["targetPort"] == PROBES["liveness"]["httpGet"]["port"] == "metrics"


def test_the_job_of_prometheus_is_that_of_the_alerts():
    """The Prometheus Operator takes the name of the Service as the label `job`."""
    jobs = set(re.findall(r'job="(\w+)"', (ROOT / "config" / "alerts.yaml").read_text()))
    assert {read("service.yaml")["metadata"]["name"]} == jobs


# ------- Image, unit and configuration


def test_the_ports_are_those_of_the_configuration_and_the_image():
    """On the host network, a wrong port is a wrong listener or a probe that always fails."""
    ports = {(port["containerPort"], port["protocol"]) for port in CONTAINER["ports"]}
    listen = {int(address.rpartition(":")[2]) for address in CONFIG["listen"]}
    metrics = int(CONFIG["metrics"].rpartition(":")[2])
    assert ports == {(port, kind) for port in listen for kind in ("UDP", "TCP")} | {(metrics, "TCP")}
    assert {f"{port}/{kind.lower()}" for port, kind in ports} == set(instruction("EXPOSE").split())
    assert all(port["hostPort"] == port["containerPort"] for port in CONTAINER["ports"])
    assert next(p["containerPort"] for p in CONTAINER["ports"] if p["name"] == "metrics") == metrics
    assert read("service.yaml")["spec"]["ports"][0]["port"] == metrics


def test_user_folders_and_command_are_those_of_the_image():
    """A Pod that changes them needs another image."""
    context = POD["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == instruction("USER")
    assert context["fsGroup"] == context["runAsGroup"]
    assert MOUNTS["state"] == CONFIG["state"] == instruction("VOLUME")
    assert MOUNTS["run"] == str(Path(CONFIG["control"]).parent) == "/run/dnsblock"
    assert f"DNSBLOCK_CONFIG={MOUNTS['config']}/dnsblock.yaml" in IMAGE
    assert not CONTAINER.keys() & {"command", "args", "env"}


def test_the_privileges_are_those_of_the_unit():
    """Least privilege, whichever way it is started."""
    inner, outer = CONTAINER["securityContext"], POD["securityContext"]
    names = [f"CAP_{name}" for name in inner["capabilities"]["add"]]
    assert names == directive("CapabilityBoundingSet").split()
    assert inner["capabilities"]["drop"] == ["ALL"]
    assert (inner["allowPrivilegeEscalation"], inner["readOnlyRootFilesystem"]) == (False, True)
    assert (outer["runAsNonRoot"], outer["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert POD["automountServiceAccountToken"] is False
    assert not POD.keys() & {"hostPID", "hostIPC", "initContainers"}
    assert [name for name, volume in VOLUMES.items() if "hostPath" in volume] == ["state"]


def test_clients_have_their_own_addresses_and_names_do_not_depend_on_the_cluster():
    """The ACL needs the former; a cluster whose DNS is behind dnsblock needs the latter."""
    assert (POD["hostNetwork"], POD["dnsPolicy"]) == (True, "Default")


def test_times_and_processors_agree_with_unit_and_configuration():
    """SIGKILL while queries are outstanding, or during startup, is an outage."""
    grace, startup = POD["terminationGracePeriodSeconds"], PROBES["startup"]
    assert grace == int(directive("TimeoutStopSec")) > CONFIG["stop_timeout_ms"] / 1000
    assert startup["periodSeconds"] * startup["failureThreshold"] == int(directive("TimeoutStartSec"))
    assert CONTAINER["resources"]["requests"]["cpu"] == str(CONFIG["workers"])
    assert "cpu" not in CONTAINER["resources"]["limits"]
    assert DAEMON_SET["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


def test_the_commands_for_a_node_are_on_the_page():
    """Folder, owner, port and label of docs/kubernetes.md are those of the DaemonSet."""
    user, path = POD["securityContext"]["runAsUser"], VOLUMES["state"]["hostPath"]["path"]
    assert f"install -d -o {user} -g {user} -m 0700 {path}\n" in PAGE
    assert "net.ipv4.ip_unprivileged_port_start=53" in PAGE
    ((key, value),) = POD["nodeSelector"].items()
    assert re.search(rf"^kubectl label node \S+ {key}={value}$", PAGE, re.MULTILINE)


# ------- The configuration works


def mount(folder: Path, data: dict[str, str]) -> None:
    """Files as the kubelet mounts a ConfigMap: links through `..data`, which it replaces at once."""
    version = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    version.chmod(0o755)
    for name, text in data.items():
        (version / name).write_text(text)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    (folder / "..new").symlink_to(version.name)
    (folder / "..new").rename(folder / "..data")


def dnsblock(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=120)


def test_check_accepts_the_configuration(tmp_path: Path):
    """As on a node, without the network of the cluster."""
    mount(tmp_path, CONFIG_MAP)
    checked = dnsblock("check", "-c", tmp_path / "dnsblock.yaml")
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout


def is_open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.resolve().parents))


def open_program() -> tuple[list[str | Path], dict[str, str]]:
    """The program, with a Python that every user can execute."""
    if is_open_to_all(Path(os.__file__).parent):
        return [PROGRAM], {}
    python = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")
    if python is None or not is_open_to_all(ROOT):
        pytest.skip("another user than root cannot execute this Python, or cannot read this folder")
    return [python, PROGRAM], {"PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])}


@contextmanager
def node(lowest_port: int) -> Iterator[list[str]]:
    """A network namespace with a node's setting for low ports. Yields the start of a command in it."""
    setting = f"sysctl -qw net.ipv4.ip_unprivileged_port_start={lowest_port}"
    command = ["unshare", "--net", "sh", "-c", f"ip link set lo up && {setting} && echo ready && exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout.readline() == b"ready\n"
        yield ["nsenter", f"--net=/proc/{keeper.pid}/ns/net", "--"]
        keeper.stdin.close()  # `cat` ends


# Only the folders of state and control socket can be written to.
MOUNT = 'mount --bind "$0" "$0" && mount --bind "$1" "$1" && shift && mount -o remount,bind,ro / && exec "$@"'


@dataclass(frozen=True)
class Pod:
    """Files and command of a container, as the DaemonSet describes them."""

    config: Path
    data: dict[str, str]
    program: list[str | Path]
    environment: dict[str, str]


@pytest.fixture
def pod() -> Iterator[Pod]:
    """User, capabilities and read-only root; the folders are elsewhere."""
    program, environment = open_program()
    user = POD["securityContext"]["runAsUser"]
    rights = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
    rights += ["--bounding-set=-all,+net_bind_service", "--inh-caps=-all", "--ambient-caps=-all", "--"]
    with tempfile.TemporaryDirectory(prefix="node-") as path:
        folder, text = Path(path), CONFIG_MAP["dnsblock.yaml"]
        folder.chmod(0o755)
        for name in ("state", "run"):
            (folder / name).mkdir(mode=0o700)
            os.chown(folder / name, user, user)
            text = text.replace(MOUNTS[name], str(folder / name))
        data = CONFIG_MAP | {"dnsblock.yaml": text}
        mount(folder, data)
        mounts = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT]
        whole = [*mounts, folder / "state", folder / "run", *rights, *program]
        yield Pod(folder / "dnsblock.yaml", data, whole, environment)


as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can make namespaces and become another user"
)


@as_root
def test_it_runs_and_is_ready_as_the_pod_runs_it(pod: Pod):
    """User, capabilities, host network, read-only root, probes, and a reload."""
    with (
        node(lowest_port=53) as inside,
        running(pod.config, program=[*inside, *pod.program], **pod.environment) as ready,
    ):
        assert set(ready["listening"]) == set(CONFIG["listen"])
        assert ready["metrics"] == CONFIG["metrics"]
        for probe in PROBES.values():
            url = f"http://{probe['httpGet']['host']}:9353{probe['httpGet']['path']}"
            curl = [*inside, "curl", "--silent", "--show-error", "--fail", "--retry", "9", url]
            done = subprocess.run(curl, capture_output=True, text=True, timeout=120)
            assert (done.returncode, done.stdout) == (0, '{"status":"pass"}'), done.stderr
        # No resolver is reachable here.
        assert (ask(inside, "www.blocked.example"), ask(inside, "www.new.example")) == (
            "NXDOMAIN",
            "SERVFAIL",
        )
        mount(pod.config.parent, pod.data | {"own.txt": "new.example\n"})
        reloaded = dnsblock("reload", "-c", pod.config)
        assert reloaded.returncode == 0, reloaded
        assert (ask(inside, "www.blocked.example"), ask(inside, "www.new.example")) == (
            "SERVFAIL",
            "NXDOMAIN",
        )


def ask(inside: list[str], name: str) -> str:
    """The response code."""
    command = [*inside, "dig", "@127.0.0.1", name, "+tries=1", "+timeout=60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return re.search(r"status: (\w+)", done.stdout)[1]


@as_root
def test_the_log_names_the_setting_that_a_node_lacks(pod: Pod):
    """Kubernetes grants no ambient capabilities. The message is in the table of docs/kubernetes.md."""
    message = "not allowed: ports below 1024 need CAP_NET_BIND_SERVICE"
    with node(lowest_port=1024) as inside:
        command = [*inside, *pod.program, "serve", "-c", pod.config]
        environment = os.environ | pod.environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert message in done.stderr
    assert message in PAGE
