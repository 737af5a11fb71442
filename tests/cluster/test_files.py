"""The cluster files hold against what will read them: Ray's schema, KubeRay's fields, bash."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from posesweep.trainables.cluster import Node, node_types_of

ROOT = Path(__file__).resolve().parents[2]
RAY_FILES = [ROOT / "cluster.yaml", ROOT / "clusters" / "aws.yaml", ROOT / "clusters" / "gcp.yaml"]

# The fields of KubeRay 1.6 that kuberay.yaml uses, and of Kubernetes' pods: name -> its fields, or the kind of value.
# From docs.ray.io, "KubeRay CRD API reference", and kubernetes.io, "Pod v1 core".
VOLUME = {"name": str, "persistentVolumeClaim": {"claimName": str, "readOnly": bool}, "emptyDir": {"medium": str}}
CONTAINER = {
    "name": str,
    "image": str,
    "env": [{"name": str, "value": str}],
    "resources": {"limits": {}, "requests": {}},
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
}
POD = {
    "containers": [CONTAINER],
    "volumes": [VOLUME],
    "nodeSelector": {},
    "tolerations": [{"key": str, "operator": str, "value": str, "effect": str}],
    "terminationGracePeriodSeconds": int,
}
RAY_CLUSTER = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "rayVersion": str,
        "authOptions": {"mode": ("disabled", "token"), "secretName": str},
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": {
            "version": ("v1", "v2"),
            "idleTimeoutSeconds": int,
            "upscalingMode": ("Default", "Aggressive", "Conservative"),
        },
        "headGroupSpec": {"serviceType": str, "rayStartParams": {}, "template": {"spec": POD}},
        "workerGroupSpecs": [
            {
                "groupName": str,
                "replicas": int,
                "minReplicas": int,
                "maxReplicas": int,
                "rayStartParams": {},
                "template": {"spec": POD},
            }
        ],
    },
}


def offences(value: Any, known: Any, where: str = "") -> list[str]:
    """Where `value` is not of the shape `known`. An empty mapping stands for free names with texts."""
    if isinstance(known, dict):
        if not isinstance(value, dict):
            return [f"{where}: not a mapping"]
        if not known:
            return [f"{where}.{name}: not text" for name, text in value.items() if not isinstance(text, str)]
        unknown = [f"{where}.{name}: unknown" for name in value if name not in known]
        return unknown + [o for n, v in value.items() if n in known for o in offences(v, known[n], f"{where}.{n}")]
    if isinstance(known, list):
        if not isinstance(value, list):
            return [f"{where}: not a list"]
        return [o for i, item in enumerate(value) for o in offences(item, known[0], f"{where}[{i}]")]
    if isinstance(known, tuple):
        return [] if value in known else [f"{where}: {value}"]
    return [] if type(value) is known else [f"{where}: {value!r} is no {known.__name__}"]


@pytest.mark.parametrize("file", RAY_FILES, ids=lambda file: file.name)
def test_ray_takes_the_file(file):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(file.read_text())
    validate_config(prepare_config(config))
    config["head_start_commands"] = []  # a misspelt key
    with pytest.raises(Exception, match="Additional properties are not allowed"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("file", RAY_FILES, ids=lambda file: file.name)
def test_every_machine_asks_for_the_token_and_the_dashboard_is_on_loopback(file):
    config = yaml.safe_load(file.read_text())
    (head,) = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    (worker,) = [line for line in config["worker_start_ray_commands"] if "ray start" in line]
    assert all("RAY_AUTH_MODE=token" in line for line in (head, worker))
    assert "--dashboard-host=127.0.0.1" in head
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert {".venv", "runs", ".ray_address"} <= set(config["rsync_exclude"])


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_spot_workers_come_and_go_and_the_head_stays(name):
    config = yaml.safe_load((ROOT / "clusters" / f"{name}.yaml").read_text())
    head, gpu = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    assert head["resources"] == {"CPU": 0}
    assert "spot" not in yaml.safe_dump(head).lower()
    assert "spot" in yaml.safe_dump(gpu["node_config"]).lower()
    assert (gpu["min_workers"], gpu["resources"]["GPU"]) == (0, 1)
    assert gpu["max_workers"] == config["max_workers"]


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_a_sweep_knows_what_may_come(name):
    config = yaml.safe_load((ROOT / "clusters" / f"{name}.yaml").read_text())
    assert node_types_of(config) == {Node(8, 1): 8}


def test_kuberay_uses_published_fields_only():
    cluster = yaml.safe_load((ROOT / "clusters" / "kuberay.yaml").read_text())
    assert offences(cluster, RAY_CLUSTER) == []
    (gpu,) = cluster["spec"]["workerGroupSpecs"]
    assert gpu["minReplicas"] == gpu["replicas"] == 0
    assert "spot" in str(gpu["template"]["spec"]["nodeSelector"])
    assert "nodeSelector" not in cluster["spec"]["headGroupSpec"]["template"]["spec"]
    (expects,) = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert json.loads(expects["value"]) == [
        {"count": gpu["maxReplicas"], "cpus": int(limits["cpu"]), "gpus": int(limits["nvidia.com/gpu"])}
    ]
    cluster["spec"]["autoScalerOptions"] = cluster["spec"].pop("autoscalerOptions")
    gpu["minReplicas"] = "0"
    assert offences(cluster, RAY_CLUSTER) == [
        ".spec.autoScalerOptions: unknown",
        ".spec.workerGroupSpecs[0].minReplicas: '0' is no int",
    ]


def test_the_versions_in_kuberay_are_those_that_are_tested():
    text = (ROOT / "clusters" / "kuberay.yaml").read_text()
    (tested,) = re.findall(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert f'rayVersion: "{tested}"' in text
    assert f"rayproject/ray:{tested}-" in text


def test_bash_takes_the_slurm_script():
    script = ROOT / "clusters" / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True)
    assert re.search(r"export RAY_AUTH_TOKEN RAY_AUTH_MODE=token", script.read_text())
