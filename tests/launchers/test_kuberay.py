"""`kuberay.yaml`: a manifest as KubeRay takes it, and a sweep that fits on its pods."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml
from launcher_stand_ins import LAUNCHERS, environment, lines, program

from safemix.tuning.settings import parse_sweep

# Fields of ray.io/v1 that the manifest may use, and what they are: KubeRay 1.5.1,
# ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go.
FIELDS: dict[str, dict[str, type]] = {
    "job": {
        "entrypoint": str,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "runtimeEnvYAML": str,
        "rayClusterSpec": dict,
    },
    "cluster": {
        "rayVersion": str,
        "authOptions": dict,
        "headGroupSpec": dict,
        "workerGroupSpecs": list,
    },
    "head": {"rayStartParams": dict, "template": dict},
    "worker": {
        "groupName": str,
        "replicas": int,
        "minReplicas": int,
        "maxReplicas": int,
        "rayStartParams": dict,
        "template": dict,
    },
}


@pytest.fixture(scope="module")
def manifest() -> tuple[dict[str, Any], dict[str, Any]]:
    config, job = yaml.safe_load_all((LAUNCHERS / "kuberay.yaml").read_text())
    return config, job


def test_the_manifest_has_the_fields_of_a_ray_job(manifest):
    config, job = manifest
    assert (config["apiVersion"], config["kind"]) == ("v1", "ConfigMap")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    parts = [("job", spec), ("cluster", cluster), ("head", cluster["headGroupSpec"])]
    parts += [("worker", group) for group in cluster["workerGroupSpecs"]]
    for kind, part in parts:
        assert {k: type(v) for k, v in part.items()}.items() <= FIELDS[kind].items(), kind
        params = part.get("rayStartParams", {})
        assert all(isinstance(value, str) for value in params.values()), "the CRD takes texts only"
    assert cluster["authOptions"] == {"mode": "token"}
    assert spec["entrypoint"] == "bash /etc/safemix/start.sh"
    assert f"ray=={cluster['rayVersion']}" in lines(LAUNCHERS / "constraints.txt")
    text = (LAUNCHERS / "kuberay.yaml").read_text()
    assert f"rayproject/ray:{cluster['rayVersion']}-" in text
    assert "# Checked: syntax and fields; not run on a cluster.\n" in text


def test_its_pods_share_image_files_and_environment(manifest):
    config, job = manifest
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    for pod in pods:
        (container,) = pod["containers"]
        (first,) = pods[0]["containers"]
        for key in ("image", "env", "envFrom", "volumeMounts"):
            assert container[key] == first[key], key
        assert pod["volumes"] == pods[0]["volumes"]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted == {"shared": "/shared", "sweep": "/etc/safemix"}
        named = {volume["name"]: volume for volume in pod["volumes"]}
        assert named["sweep"]["configMap"]["name"] == config["metadata"]["name"]
        assert "persistentVolumeClaim" in named["shared"]
        limits = container["resources"]["limits"]
        assert limits == container["resources"]["requests"]  # Ray goes by the limits
        assert all(isinstance(amount, str) for amount in limits.values())
    secrets = pods[0]["containers"][0]["envFrom"]
    assert secrets == [{"secretRef": {"name": "safemix-keys", "optional": True}}]
    assert not re.search(r"(TOKEN|KEY)\W+value:", yaml.safe_dump(job))


def test_its_sweep_fits_on_its_pods(manifest):
    config, job = manifest
    sweep = parse_sweep(yaml.safe_load(config["data"]["sweep.yaml"]))
    assert (sweep.address, sweep.output_dir) == ("auto", "/shared/sweep")
    assert sweep.wait_for_resources > 0
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = cluster["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    (container,) = group["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    one = sweep.workers * sweep.resources.gpus_per_worker
    assert group["replicas"] * int(limits["nvidia.com/gpu"]) // one == 4  # as its comment says
    per_gpu = sweep.resources.cpus_per_worker * int(limits["nvidia.com/gpu"])
    assert per_gpu <= int(limits["cpu"])


@pytest.mark.parametrize(("ends", "code"), [(0, 0), (1, 1), (2, 2), (3, 0), (130, 130)])
def test_its_job_starts_a_sweep_or_goes_on_with_it(manifest, tmp_path, ends, code):
    text = manifest[0]["data"]["start.sh"].replace("/shared", str(tmp_path))
    program(tmp_path / "bin/safemix", f'echo "$*" >>{tmp_path}/calls; exit {ends}')
    for _ in range(2):
        done = subprocess.run(
            ["bash", "-c", text], env=environment(tmp_path), capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (code, b"")
        (tmp_path / "sweep").mkdir(exist_ok=True)
        (tmp_path / "sweep" / "sweep.json").touch()
    first, second = lines(tmp_path / "calls")
    assert first == "tune --config /etc/safemix/sweep.yaml"
    assert second == f"{first} --resume {tmp_path}/sweep"
