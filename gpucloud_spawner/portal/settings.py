"""What the service is told: by the hub's configuration file, and by the environment.

It reads the same file as the hub (profiles, prices, namespace, db_url), so that nothing is said
twice and no secret is passed on. `GPUCloudPortal` has what only the service needs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from traitlets import Dict, Float, Integer, TraitError, Unicode
from traitlets.config import Config, Configurable, LazyConfigValue, PyFileConfigLoader

from ..metering.budgets import Budgets
from ..metering.errors import LedgerError
from ..metering.observe import GPUResources
from ..model.job_request import JobLimits
from ..model.pricing import parse_price
from ..model.profiles import parse_profiles
from ..storage.s3 import S3Provider
from .job_settings import JobSettings, job_settings

SERVICE = "gpucloud"
DEFAULT_URL = "http://127.0.0.1:8003"
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class SettingsError(Exception):
    """A mistake in the configuration; the text names it for the administrator."""


class GPUCloudPortal(Configurable):
    """Settings of the service in the site file: ``c.GPUCloudPortal.<name> = ...``."""

    user_budgets = Dict(
        help="""
        GPU-hours per calendar month (UTC) by user name; "*" is everybody without an own entry.

        Empty: no limit. 0: no GPUs at all. Example: {"*": 50, "ada": 200}.
        """
    ).tag(config=True)

    team_budgets = Dict(
        help="""
        GPU-hours per calendar month (UTC) by team (hub group); "*" is every team without an entry.

        Empty: no limit. Example: {"vision": 1000}.
        """
    ).tag(config=True)

    currency = Unicode(
        "EUR", help="ISO 4217 code of the currency that all prices are in. Example: USD."
    ).tag(config=True)

    currency_digits = Integer(
        2, min=0, max=6, help="Decimals of the currency in statements. Example: 0 for JPY."
    ).tag(config=True)

    storage_price_per_gib_hour = Unicode(
        "",
        help="""
        Price of one GiB of home volume for one hour. Empty: volumes are metered, but cost nothing.

        Example: "0.00012".
        """,
    ).tag(config=True)

    namespace = Unicode(
        "",
        help="""
        Namespace whose pods are metered. Empty: that of the spawner. "*": all namespaces, which
        needs the right to list and watch pods and volume claims in the whole cluster.
        """,
    ).tag(config=True)

    audit_seconds = Float(
        60.0,
        min=1.0,
        help="Seconds between two comparisons of the ledger with a complete list of pods.",
    ).tag(config=True)

    job_max_replicas = Integer(
        64, min=1, max=1000, help="Replicas of all roles that one job may have. Example: 16."
    ).tag(config=True)

    job_max_open = Integer(
        100,
        min=0,
        help="""
        Jobs that one user may have that are not over: waiting or running. 0: no limit. Example: 20.
        """,
    ).tag(config=True)

    job_max_seconds = Integer(
        14 * 24 * 3600,
        min=60,
        help="""
        Longest time in seconds that a job may ask for, its waiting included. A job that names none
        has a day, or this where it is shorter. Example: 172800 (two days).
        """,
    ).tag(config=True)

    job_ttl_seconds = Integer(
        60,
        min=0,
        help="""
        Seconds after which the Kubernetes objects of a job that is over are deleted.

        Its GPUs are free at once; its record, logs and cost stay. Example: 3600.
        """,
    ).tag(config=True)

    job_queue = Unicode(
        "",
        help="""
        Kueue's LocalQueue for jobs, where the cluster has Kueue: they are made suspended, with its
        label, and Kueue lets them go. Empty: no Kueue. Example: "training".
        """,
    ).tag(config=True)


@dataclass(frozen=True)
class HubAccess:
    """Where the hub is and who we are to it, as JupyterHub tells its services."""

    api_url: str
    api_token: str = field(repr=False)
    prefix: str = f"/services/{SERVICE}/"
    base_url: str = "/"
    public_host: str = ""
    client_id: str = f"service-{SERVICE}"

    @property
    def hub_prefix(self) -> str:
        return f"{self.base_url}hub/"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> HubAccess:
        """Raises SettingsError where the token is missing."""
        token = environment.get("JUPYTERHUB_API_TOKEN")
        if not token:
            raise SettingsError(
                "JUPYTERHUB_API_TOKEN is not set: the hub sets it for a service that it starts; "
                "for one of its own, give the api_token of the service to both."
            )
        base_url = environment.get("JUPYTERHUB_BASE_URL") or "/"
        return cls(
            api_url=environment.get("JUPYTERHUB_API_URL") or "http://127.0.0.1:8081/hub/api",
            api_token=token,
            prefix=environment.get("JUPYTERHUB_SERVICE_PREFIX") or f"{base_url}services/{SERVICE}/",
            base_url=base_url,
            public_host=environment.get("JUPYTERHUB_HOST") or "",
            client_id=environment.get("JUPYTERHUB_CLIENT_ID") or f"service-{SERVICE}",
        )


@dataclass(frozen=True)
class Settings:
    """Everything that the service needs to know, checked."""

    db_url: str = field(repr=False)  # may hold a password
    listen: tuple[str, int]
    namespace: str | None  # None: all
    pod_namespace: str | None  # where servers and keys are; None: one per user
    gpus: GPUResources
    gpu_prices: Mapping[str, Decimal]
    storage_price: str | None
    budgets: Budgets
    currency: str
    digits: int
    audit_seconds: float
    s3_provider: S3Provider | None = None
    jobs: JobSettings = field(default_factory=JobSettings)
    departures_seconds: float = 60.0  # between two looks for users who were deleted


def read_config(file: Path) -> Config:
    """The hub's configuration as its file says it. Raises SettingsError where there is no file."""
    if not file.is_file():
        raise SettingsError(f"there is no configuration file {file}; name it with --config")
    loader = PyFileConfigLoader(file.name, path=str(file.parent))
    return loader.load_config()


def load_settings(config: Config, environment: Mapping[str, str] = os.environ) -> Settings:
    """Check a configuration. Raises SettingsError with what is wrong."""
    _refuse_unknown(config)
    try:
        portal = GPUCloudPortal(config=config)
        profiles = parse_profiles(_value(config, "GPUCloudSpawner", "profiles", []))
        storage_price = portal.storage_price_per_gib_hour or None
        if storage_price is not None:
            parse_price(storage_price)
        budgets = Budgets(
            _hours("user_budgets", portal.user_budgets), _hours("team_budgets", portal.team_budgets)
        )
    except (TraitError, LedgerError, ValueError) as error:
        raise SettingsError(str(error)) from error
    names = {profile.gpu_resource for profile in profiles} | {"nvidia.com/gpu"}
    return Settings(
        db_url=_db_url(config, environment),
        listen=_listen(environment.get("JUPYTERHUB_SERVICE_URL") or DEFAULT_URL),
        namespace=_namespace(config, portal.namespace),
        pod_namespace=_namespace(config, ""),
        gpus=GPUResources(names=frozenset(names)),
        gpu_prices={profile.slug: profile.price_per_gpu_hour for profile in profiles},
        storage_price=storage_price,
        budgets=budgets,
        currency=portal.currency,
        digits=portal.currency_digits,
        audit_seconds=portal.audit_seconds,
        s3_provider=_s3_provider(config),
        jobs=job_settings(
            partial(_value, config),
            profiles,
            JobLimits(
                max_replicas=portal.job_max_replicas,
                max_open=portal.job_max_open,
                max_timeout=portal.job_max_seconds,
                default_timeout=min(portal.job_max_seconds, JobLimits.default_timeout),
            ),
            queue=portal.job_queue,
            ttl_seconds=portal.job_ttl_seconds,
        ),
    )


def _refuse_unknown(config: Config) -> None:
    # traitlets only warns; a misspelt budget must not silently be none
    known = set(GPUCloudPortal.class_trait_names(config=True))
    section = config.get("GPUCloudPortal", {})
    unknown = sorted(set(section) - known)
    if unknown:
        raise SettingsError(
            f"c.GPUCloudPortal.{unknown[0]} is no setting. There are: {', '.join(sorted(known))}."
        )


def _value(config: Config, section: str, name: str, default: Any) -> Any:
    if section not in config or name not in config[section]:
        return default
    value = config[section][name]
    if not isinstance(value, LazyConfigValue):
        return value
    if default is None:  # what `.append` and `.update` begin with: no trait is at hand to ask
        default = {} if isinstance(value.to_dict().get("update"), dict) else []
    return value.get_value(default)


def _hours(name: str, budgets: Mapping[Any, Any]) -> dict[str, Decimal]:
    checked = {}
    for who, hours in budgets.items():
        try:
            checked[str(who)] = Decimal(str(hours))
        except InvalidOperation:
            raise SettingsError(
                f"c.GPUCloudPortal.{name}: {hours!r} of {who!r} is not a number of GPU-hours"
            ) from None
    return checked


def _db_url(config: Config, environment: Mapping[str, str]) -> str:
    url = environment.get("GPUCLOUD_DB_URL") or _value(
        config, "JupyterHub", "db_url", "sqlite:///jupyterhub.sqlite"
    )
    # as JupyterHub reads it
    return str(url) if "://" in str(url) else f"sqlite:///{url}"


def _s3_provider(config: Config) -> S3Provider | None:
    provider = _value(config, "GPUCloudSpawner", "s3_provider", None)
    if provider is None or isinstance(provider, S3Provider):
        return provider
    raise SettingsError(
        f"c.GPUCloudSpawner.s3_provider is no S3Provider but a {type(provider).__name__}"
    )


def _namespace(config: Config, wanted: str) -> str | None:
    if wanted:
        return None if wanted == "*" else wanted
    for section in ("GPUCloudSpawner", "KubeSpawner"):
        if _value(config, section, "enable_user_namespaces", False):
            return None
        namespace = _value(config, section, "namespace", "")
        if namespace:
            return str(namespace)
    # as KubeSpawner's default
    return _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.exists() else "default"


def _listen(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "http" or not parts.hostname or not port:
        raise SettingsError(f"JUPYTERHUB_SERVICE_URL must be like {DEFAULT_URL}, not {url!r:.200}")
    return parts.hostname, port
