"""What the site says about jobs: its limits, and how pods of its profiles are made.

Read from the same settings of KubeSpawner as notebooks, so that nothing has to be said twice.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubespawner.utils import recursive_update

from ..jobs.manifests import POD_SETTINGS
from ..model.job_request import JobLimits
from ..model.profiles import Profile

log = logging.getLogger(__name__)

# In which a setting may stand; what stands in a later one is what holds.
_SECTIONS = ("Spawner", "KubeSpawner", "GPUCloudSpawner")
_LISTS = (
    "image_pull_secrets",
    "node_affinity_preferred",
    "node_affinity_required",
    "supplemental_gids",
    "tolerations",
)

Value = Callable[[str, str, Any], Any]  # section, name, default


@dataclass(frozen=True)
class JobSettings:
    """Everything that the service needs to know about jobs, checked."""

    profiles: tuple[Profile, ...] = ()
    pods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by profile
    limits: JobLimits = field(default_factory=JobLimits)
    queue: str = ""
    ttl_seconds: int = 60
    cluster_scales_up: bool = False


def pod_settings(value: Value, profile: Profile) -> dict[str, Any]:
    """The settings of KubeSpawner that pods of ``profile``'s jobs are made with."""
    found: dict[str, Any] = {}
    for name in POD_SETTINGS:
        setting = None
        for section in _SECTIONS:
            setting = value(section, name, setting)
        if _is_function(name, setting):
            setting = None
        override = profile.kubespawner_override
        if name in override and not _is_function(name, override[name]):
            setting = _overridden(setting, override[name])
        if setting is None:
            continue
        if name in _LISTS and isinstance(setting, Mapping):  # sorted by their keys, as there
            setting = [setting[key] for key in sorted(setting)]
        found[name] = setting
    return found


def _is_function(name: str, setting: Any) -> bool:
    if callable(setting):
        log.warning("Jobs cannot use %s: it is a function of a spawner", name)
        return True
    return False


def _overridden(setting: Any, override: Any) -> Any:
    """As KubeSpawner does it: mappings are merged, anything else is replaced."""
    if not (isinstance(setting, dict) and isinstance(override, dict)):
        return override
    merged = copy.deepcopy(setting)
    recursive_update(merged, override)
    return merged


def job_settings(
    value: Value, profiles: list[Profile], limits: JobLimits, *, queue: str, ttl_seconds: int
) -> JobSettings:
    """The settings of jobs out of a configuration."""
    return JobSettings(
        profiles=tuple(profiles),
        pods={profile.slug: pod_settings(value, profile) for profile in profiles},
        limits=limits,
        queue=queue,
        ttl_seconds=ttl_seconds,
        cluster_scales_up=bool(value("GPUCloudSpawner", "cluster_scales_up", False)),
    )
