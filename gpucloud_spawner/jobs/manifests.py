"""A job's Kubernetes objects: one headless Service, and one Indexed Job per role. Pure.

The Service is made first and owns the Jobs, which own their pods: deleting it deletes everything.
All names follow from the job's id, so that making them again makes nothing twice.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubernetes_asyncio.client import (
    V1EnvVar,
    V1EnvVarSource,
    V1Job,
    V1JobSpec,
    V1ObjectFieldSelector,
    V1ObjectMeta,
    V1OwnerReference,
    V1Pod,
    V1PodFailurePolicy,
    V1PodFailurePolicyOnExitCodesRequirement,
    V1PodFailurePolicyOnPodConditionsPattern,
    V1PodFailurePolicyRule,
    V1PodTemplateSpec,
    V1Service,
    V1ServiceSpec,
)
from kubespawner.objects import make_pod
from kubespawner.slugs import is_valid_label, safe_slug

from ..model import labels
from ..model.job_record import JobRecord
from ..model.jobs import cluster, rendezvous
from ..model.profiles import Profile
from ..model.units import parse_memory
from ..storage.keys import attach

log = logging.getLogger(__name__)

RUNNER = ("python", "-m", "gpucloud_labext.runner")
CONTAINER = "replica"
# Exit codes of the runner. After the first three no second try can help.
NO_CODE, NO_PACKAGES, NO_GANG, STOPPED, NO_STORE = 80, 81, 82, 83, 84
GRACE_SECONDS = 30
KUEUE_LABEL = "kueue.x-k8s.io/queue-name"
INDEX = "batch.kubernetes.io/job-completion-index"

# What notebooks and replicas have in common: the settings of KubeSpawner that say where pods run
# and what they may do. Volumes are not among them: a home volume is one server's.
POD_SETTINGS = (
    "allow_privilege_escalation",
    "container_security_context",
    "environment",
    "extra_annotations",
    "extra_labels",
    "extra_pod_config",
    "extra_resource_guarantees",
    "extra_resource_limits",
    "fs_gid",
    "gid",
    "image_pull_policy",
    "image_pull_secrets",
    "node_affinity_preferred",
    "node_affinity_required",
    "node_selector",
    "pod_affinity_preferred",
    "pod_affinity_required",
    "pod_anti_affinity_preferred",
    "pod_anti_affinity_required",
    "pod_security_context",
    "priority_class_name",
    "scheduler_name",
    "supplemental_gids",
    "tolerations",
    "uid",
)

# Of these, in which KubeSpawner puts a server's name in the place of {username} and the like.
_TEMPLATES = ("environment", "extra_annotations", "extra_labels", "extra_pod_config")


@dataclass(frozen=True)
class Site:
    """What the site says about the pods of jobs."""

    identity: str  # of the database: whose objects they are
    pods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # profile -> POD_SETTINGS
    queue: str = ""  # of Kueue; "": none
    command: Sequence[str] = RUNNER


def job_name(job: str, role: str) -> str:
    """Name of the Kubernetes Job of a role."""
    return f"{job}-{role}"


def marks(record: JobRecord, site: Site, price: str) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and annotations of every object, as notebooks have them: the meter reads them."""
    exact = {
        labels.USER: record.user,
        labels.TEAM: record.spec.team,
        labels.APP: "",
        labels.PROFILE: record.spec.profile,
    }
    escaped = {k: safe_slug(v, is_valid=is_valid_label) if v else "" for k, v in exact.items()}
    known = {
        labels.COMPONENT: labels.JOB_REPLICA,
        labels.JOB: record.id,
        labels.HUB: site.identity,
        "app.kubernetes.io/managed-by": "gpucloud",
    }
    return {**escaped, **known}, {**exact, labels.JOB: record.id, labels.PRICE: price}


def service(record: JobRecord, site: Site, profile: Profile) -> V1Service:
    """Gives every replica a stable name, also before it is ready: they wait for each other."""
    marked, notes = marks(record, site, str(profile.price_per_gpu_hour))
    meta = V1ObjectMeta(name=record.id, labels=marked, annotations=notes)
    spec = V1ServiceSpec(
        cluster_ip="None", publish_not_ready_addresses=True, selector={labels.JOB: record.id}
    )
    return V1Service(api_version="v1", kind="Service", metadata=meta, spec=spec)


def kube_job(record: JobRecord, role: str, site: Site, profile: Profile, owner_uid: str) -> V1Job:
    """The Indexed Job of one role, owned by the job's Service."""
    spec, count = record.spec, record.spec.replicas[role]
    pod = _pod(record, role, site, profile)
    marked, notes = dict(pod.metadata.labels), dict(pod.metadata.annotations)
    if site.queue:
        marked[KUEUE_LABEL] = site.queue
    owner = V1OwnerReference(
        api_version="v1",
        kind="Service",
        name=record.id,
        uid=owner_uid,
        controller=False,
        block_owner_deletion=False,
    )
    return V1Job(
        api_version="batch/v1",
        kind="Job",
        metadata=V1ObjectMeta(
            name=job_name(record.id, role),
            labels=marked,
            annotations=notes,
            owner_references=[owner],
        ),
        spec=V1JobSpec(
            completion_mode="Indexed",
            completions=count,
            parallelism=count,
            # each replica has its own tries: one that dies takes its peers with it
            backoff_limit_per_index=spec.retries,
            max_failed_indexes=0,
            active_deadline_seconds=spec.timeout_seconds,
            suspend=bool(site.queue) or None,  # Kueue lets it go
            pod_replacement_policy="Failed",
            pod_failure_policy=V1PodFailurePolicy(rules=_failure_rules()),
            template=V1PodTemplateSpec(metadata=pod.metadata, spec=pod.spec),
        ),
    )


def _failure_rules() -> list[V1PodFailurePolicyRule]:
    lost = V1PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget", status="True")
    hopeless = V1PodFailurePolicyOnExitCodesRequirement(
        container_name=CONTAINER, operator="In", values=[NO_CODE, NO_PACKAGES, NO_GANG]
    )
    return [
        # an eviction is no failure of the script, whatever it then exits with
        V1PodFailurePolicyRule(action="Ignore", on_pod_conditions=[lost]),
        V1PodFailurePolicyRule(action="FailJob", on_exit_codes=hopeless),
    ]


def _pod(record: JobRecord, role: str, site: Site, profile: Profile) -> V1Pod:
    spec = record.spec
    settings = dict(site.pods.get(spec.profile, {}))
    marked, notes = marks(record, site, str(profile.price_per_gpu_hour))
    selector = {**(settings.pop("node_selector", None) or {}), **profile.node_selector}
    for name in _TEMPLATES:
        settings[name] = _plain(settings.get(name))
    more_labels, more_notes = settings.pop("extra_labels"), settings.pop("extra_annotations")
    gpus = spec.gpus_of(role)
    limits = dict(settings.pop("extra_resource_limits", None) or {})
    guarantees = dict(settings.pop("extra_resource_guarantees", None) or {})
    for asked in (limits, guarantees):
        asked.pop(profile.gpu_resource, None)  # only what the job asks for, and is billed for
    if gpus:
        limits[profile.gpu_resource] = str(gpus)
    pod = make_pod(
        name=record.id,
        cmd=list(site.command),
        port=record.port,
        image=profile.images[spec.image].image,
        env={**settings.pop("environment"), **_environment(record, role)},
        labels={**more_labels, **marked, labels.ROLE: role},
        annotations={**more_notes, **notes},
        node_selector=selector,
        **_sizes(record, profile),
        extra_resource_limits=limits,
        extra_resource_guarantees=guarantees,
        automount_service_account_token=False,
        logger=log,
        **settings,
    )
    pod.metadata.name = None
    container = pod.spec.containers[0]
    container.name = CONTAINER
    container.ports = None  # every replica has another one
    source = V1EnvVarSource(field_ref=V1ObjectFieldSelector(field_path="status.podIP"))
    container.env.append(V1EnvVar(name="POD_IP", value_from=source))
    pod.spec.restart_policy = "Never"
    pod.spec.subdomain = record.id
    pod.spec.termination_grace_period_seconds = GRACE_SECONDS
    pod.spec.enable_service_links = False
    if record.secret:
        attach(pod, record.secret)
    return pod


def _plain(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy without what KubeSpawner makes for one server, by a template or a function."""
    found = (values or {}).items()
    return {k: copy.deepcopy(v) for k, v in found if not _is_for_one_server(k, v)}


def _is_for_one_server(*values: Any) -> bool:
    for value in values:
        if isinstance(value, str):
            found = "{" in value
        elif isinstance(value, Mapping):
            found = _is_for_one_server(*value.keys(), *value.values())
        elif isinstance(value, list | tuple):
            found = _is_for_one_server(*value)
        else:
            found = callable(value)
        if found:
            return True
    return False


def _sizes(record: JobRecord, profile: Profile) -> dict[str, Any]:
    spec = record.spec
    sizes: dict[str, Any] = {
        "cpu_guarantee": profile.cpu_guarantee,
        "cpu_limit": profile.cpu_limit,
        "mem_guarantee": profile.mem_guarantee and parse_memory(profile.mem_guarantee),
        "mem_limit": profile.mem_limit and parse_memory(profile.mem_limit),
    }
    if spec.cpu:
        sizes["cpu_guarantee"] = sizes["cpu_limit"] = spec.cpu
    if spec.memory:
        sizes["mem_guarantee"] = sizes["mem_limit"] = spec.memory
    return sizes


def _environment(record: JobRecord, role: str) -> dict[str, str]:
    spec, where = record.spec, (record.spec, record.id, record.namespace, record.port)
    env = {
        **spec.env,
        "GPUCLOUD_JOB_ID": record.id,
        "GPUCLOUD_JOB_NAME": spec.name,
        "GPUCLOUD_ROLE": role,
        "GPUCLOUD_CLUSTER": json.dumps(cluster(*where)),
        "GPUCLOUD_RENDEZVOUS": rendezvous(*where),
        "GPUCLOUD_GANG_SECONDS": str(spec.gang_seconds),
        "GPUCLOUD_CODE": spec.code,
        "GPUCLOUD_COMMAND": json.dumps(list(spec.command)),
        "GPUCLOUD_JOB_PREFIX": record.prefix,
        "GPUCLOUD_PROFILE": spec.profile,
        "GPUCLOUD_TEAM": spec.team,
    }
    if not spec.gpus_of(role):
        # images for GPUs ask for all of them, which some runtimes grant to who was given none
        env["NVIDIA_VISIBLE_DEVICES"] = "void"
    # as written: Kubernetes would put other variables in the place of $(NAME)
    return {name: text.replace("$", "$$") for name, text in env.items()}
