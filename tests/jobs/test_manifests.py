"""A job's Kubernetes objects: what is in them, and what no request can put there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from kubernetes_asyncio.client import ApiClient
from traitlets.config import Config

from gpucloud_spawner.jobs.manifests import Site, kube_job, service
from gpucloud_spawner.model.job_record import JobRecord
from gpucloud_spawner.model.jobs import JobSpec
from gpucloud_spawner.model.profiles import Profile, parse_profiles
from gpucloud_spawner.portal.settings import SettingsError, load_settings

PROFILE = parse_profiles(
    [
        {
            "slug": "gpu",
            "display_name": "GPU",
            "images": {"tf": {"image": "tf:1"}},
            "gpus": [0, 1, 2],
            "gpu_resource": "nvidia.com/mig-1g.5gb",
            "node_selector": {"nvidia.com/gpu.product": "A100"},
            "cpu_guarantee": 0.5,
            "cpu_limit": 4,
            "mem_guarantee": "1G",
            "mem_limit": "8G",
            "price_per_gpu_hour": "2.50",
            "kubespawner_override": {
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "environment": {"NCCL_DEBUG": "WARN"},
                "priority_class_name": None,
                "scheduler_name": lambda spawner: "theirs",
            },
        }
    ]
)[0]
AFFINITY = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
SPEC = JobSpec(
    name="train",
    command=("python", "train.py"),
    code="a" * 64,
    replicas={"chief": 1, "worker": 2, "ps": 1, "evaluator": 1},
    profile="gpu",
    image="tf",
    team="vision",
    gpus=2,
    ps_gpus=0,
    cpu="",
    memory=0,
    env={"SEED": "$(HOME) $$"},
    retries=3,
)
RECORD = JobRecord(
    "train-abcdefgh", SPEC, "Ada L.", "ns", "user-ada", "gpucloud-s3-ada", 12000, created_at=0
)


def site(profile: Profile = PROFILE, **changes: Any) -> Site:
    """As the service makes it from a configuration file."""
    config = Config()
    config.GPUCloudSpawner.profiles = [profile]
    config.GPUCloudSpawner.uid = 1000
    config.GPUCloudSpawner.fs_gid = 100
    config.KubeSpawner.uid = 0  # goes behind
    config.KubeSpawner.image_pull_secrets = ["registry"]
    config.KubeSpawner.priority_class_name = "jobs"
    config.KubeSpawner.privileged = True  # notebooks may be; jobs never
    config.KubeSpawner.volumes = [{"name": "home", "persistentVolumeClaim": {"claimName": "x"}}]
    config.KubeSpawner.service_account = "hub"
    config.KubeSpawner.extra_labels = {"network": "jobs", "who": "{username}"}
    config.KubeSpawner.extra_pod_config = {
        "hostname": "{username}",
        "dnsConfig": {"options": [{"name": "{username}"}]},
        "runtimeClassName": "nvidia",
    }
    config.KubeSpawner.scheduler_name = "bin-packing"
    # as a z2jh site adds to what is there
    config.KubeSpawner.node_affinity_required.append(AFFINITY)
    config.KubeSpawner.extra_annotations.update({"cost-centre": "7"})
    config.GPUCloudSpawner.extra_annotations.update({"floor": "2"})
    config.KubeSpawner.gid = lambda spawner: 5
    config.KubeSpawner.environment = {
        "https_proxy": "http://proxy:3128",
        "SEED": "0",
        "WHO": "{username}",
        "ROLE": lambda spawner: "mine",
        "TOKEN": {"valueFrom": {"secretKeyRef": {"name": "of-{username}", "key": "t"}}},
        "PIP_INDEX_URL": {"valueFrom": {"secretKeyRef": {"name": "index", "key": "url"}}},
    }
    for name, value in changes.items():
        config.GPUCloudPortal[name] = value
    settings = load_settings(config, {})
    return Site("abcd", settings.jobs.pods, settings.jobs.queue)


@pytest.fixture
async def plain() -> AsyncIterator[Any]:
    """Objects as they are sent."""
    async with ApiClient() as client:
        yield client.sanitize_for_serialization


async def test_a_role_is_an_indexed_job_of_the_service(plain: Any) -> None:
    made = plain(kube_job(RECORD, "worker", site(), PROFILE, "uid-1"))
    spec = made["spec"]
    assert made["metadata"]["name"] == "train-abcdefgh-worker"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (3, 0)
    assert spec["activeDeadlineSeconds"] == 86400
    assert "suspend" not in spec
    rules = spec["podFailurePolicy"]["rules"]
    # in this order: an eviction goes before whatever the replica exits with
    assert [rule["action"] for rule in rules] == ["Ignore", "FailJob"]
    assert rules[1]["onExitCodes"]["values"] == [80, 81, 82]


async def test_the_service_is_headless_and_names_what_is_not_ready(plain: Any) -> None:
    made = plain(service(RECORD, site(), PROFILE))
    assert made["spec"] == {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"gpucloud.io/job": "train-abcdefgh"},
    }


async def test_pods_run_where_and_as_notebooks_do_and_may_do_nothing_else(plain: Any) -> None:
    pod = plain(kube_job(RECORD, "worker", site(), PROFILE, "u"))["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["image"] == "tf:1"
    assert container["args"] == ["python", "-m", "gpucloud_labext.runner"]
    assert container["securityContext"] == {"runAsUser": 1000, "allowPrivilegeEscalation": False}
    assert pod["securityContext"] == {"fsGroup": 100}
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert pod["restartPolicy"] == "Never"
    assert pod["subdomain"] == "train-abcdefgh"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "A100"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert "priorityClassName" not in pod  # the profile has none
    assert pod["schedulerName"] == "bin-packing"  # a function of a spawner changes nothing
    assert pod["runtimeClassName"] == "nvidia"
    assert "hostname" not in pod and "dnsConfig" not in pod
    needed = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert needed["nodeSelectorTerms"] == [AFFINITY]
    assert [volume["name"] for volume in pod["volumes"]] == ["gpucloud-s3"]
    assert pod["volumes"][0]["secret"]["secretName"] == "gpucloud-s3-ada"
    assert len(pod["containers"]) == 1


async def test_no_secret_is_in_a_pod_only_its_name(plain: Any) -> None:
    pod = plain(kube_job(RECORD, "worker", site(), PROFILE, "u"))["spec"]["template"]["spec"]
    env = {variable["name"]: variable for variable in pod["containers"][0]["env"]}
    assert "value" not in env["AWS_SECRET_ACCESS_KEY"]
    assert env["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "gpucloud-s3-ada"
    assert env["GPUCLOUD_S3_BUCKET"]["valueFrom"]["secretKeyRef"]["name"] == "gpucloud-s3-ada"
    assert env["SEED"]["value"] == "$$(HOME) $$$$"  # Kubernetes makes $(HOME) $$ of it


async def test_the_sites_variables_are_in_replicas_too(plain: Any) -> None:
    pod = plain(kube_job(RECORD, "worker", site(), PROFILE, "u"))["spec"]["template"]["spec"]
    env = {variable["name"]: variable for variable in pod["containers"][0]["env"]}
    assert env["https_proxy"]["value"] == "http://proxy:3128"
    assert env["NCCL_DEBUG"]["value"] == "WARN"  # of the profile, beside those of the site
    assert env["PIP_INDEX_URL"]["valueFrom"]["secretKeyRef"] == {"name": "index", "key": "url"}
    assert env["SEED"]["value"] != "0"  # the job's own says otherwise
    # about one server: a template, a function
    assert not {"WHO", "ROLE", "TOKEN"} & env.keys()
    assert "NCCL_DEBUG" not in site(replace_override(PROFILE)).pods["gpu"]["environment"]


def replace_override(profile: Profile) -> Profile:
    """Without an override, to see that none has changed the site's own."""
    return profile.model_copy(update={"kubespawner_override": {}})


@pytest.mark.parametrize(
    ("role", "gpus"), [("chief", "2"), ("worker", "2"), ("ps", None), ("evaluator", None)]
)
async def test_gpus_are_for_who_trains(plain: Any, role: str, gpus: str | None) -> None:
    pod = plain(kube_job(RECORD, role, site(), PROFILE, "u"))["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["resources"]["limits"].get("nvidia.com/mig-1g.5gb") == gpus
    void = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
    assert (void in container["env"]) == (gpus is None)


async def test_sizes_are_the_profiles_or_those_that_were_asked_for(plain: Any) -> None:
    def resources(record: JobRecord) -> Any:
        made = plain(kube_job(record, "ps", site(), PROFILE, "u"))
        return made["spec"]["template"]["spec"]["containers"][0]["resources"]

    assert resources(RECORD) == {
        "requests": {"cpu": 0.5, "memory": 2**30},
        "limits": {"cpu": 4, "memory": 8 * 2**30},
    }
    asked = replace(RECORD, spec=replace(SPEC, cpu="2", memory=2**31))
    assert resources(asked) == {
        "requests": {"cpu": "2", "memory": 2**31},
        "limits": {"cpu": "2", "memory": 2**31},
    }


async def test_labels_hold_any_name_and_annotations_the_exact_one(plain: Any) -> None:
    meta = plain(kube_job(RECORD, "chief", site(), PROFILE, "u"))["spec"]["template"]["metadata"]
    assert meta["annotations"]["gpucloud.io/user"] == "Ada L."
    assert meta["annotations"]["gpucloud.io/price-per-gpu-hour"] == "2.50"
    assert meta["labels"]["gpucloud.io/user"] != "Ada L."  # a space is no label
    assert meta["labels"]["gpucloud.io/component"] == "job"
    assert meta["labels"]["gpucloud.io/role"] == "chief"
    assert meta["labels"]["gpucloud.io/hub"] == "abcd"
    assert meta["labels"]["network"] == "jobs"
    assert "who" not in meta["labels"]
    assert (meta["annotations"]["cost-centre"], meta["annotations"]["floor"]) == ("7", "2")


async def test_with_kueue_the_queue_is_named(plain: Any) -> None:
    made = plain(kube_job(RECORD, "chief", site(job_queue="training"), PROFILE, "u"))
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert made["spec"]["suspend"] is True


def test_a_setting_of_jobs_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="job_ttl_seconds"):
        site(job_ttl=5)
