"""What an admin configures of the spawner, and where its defaults differ from KubeSpawner's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from traitlets import Any as Any_
from traitlets import (
    Bool,
    CaselessStrEnum,
    Integer,
    List,
    TraitError,
    Unicode,
    default,
    validate,
)

from ..model.profiles import parse_profiles
from ..storage.s3 import S3Provider
from .service import url_for_pods
from .steady import SteadyKubeSpawner


class SpawnerSettings(SteadyKubeSpawner):
    """The traits of `GPUCloudSpawner`; behaviour does not belong here."""

    profiles: Any = List(
        help="""
        The GPU profiles on offer: `gpucloud_spawner.Profile` objects, or dicts of their fields.

        Enforced at every start, whichever way the options came. Empty: KubeSpawner's own
        `profile_list` rules alone. Example::

            c.GPUCloudSpawner.profiles = [
                {
                    "slug": "tensorflow",
                    "display_name": "TensorFlow",
                    "images": {"tf": {"image": "gpucloud/notebook:0.1"}},
                    "gpus": [0, 1, 2],
                }
            ]
        """,
    ).tag(config=True)

    queue_timeout = Integer(
        3600,
        help="""
        Seconds that a start may wait for a machine with free GPUs before it is given up.

        0: for ever (then set `start_timeout`, too). The owner can cancel at any time. Example: 600.
        """,
    ).tag(config=True)

    launch_timeout = Integer(
        300,
        help="""
        Seconds from getting a machine to the first answer of JupyterLab.

        Pulling a large image for the first time counts. Example: 900.
        """,
    ).tag(config=True)

    wait_for_port = Bool(
        True,
        help="""
        Whether a start also waits until the server's port accepts connections.

        It tells a server that crashes during its start at once. False where the hub cannot connect
        to pods directly.
        """,
    ).tag(config=True)

    start_patience = Integer(
        30,
        min=1,
        help="""
        Seconds for which a start goes on where its image cannot be pulled or its container not be
        configured; a registry may come back. Then it is given up with Kubernetes' words.

        Example: 120.
        """,
    ).tag(config=True)

    orphan_age = Integer(
        60,
        min=1,
        help="""
        Age in seconds from which on a pod of this hub that no server stands for is deleted.

        A younger one may belong to a start whose server is just being recorded. Example: 300.
        """,
    ).tag(config=True)

    cluster_scales_up = Bool(
        False,
        help="""
        Whether an autoscaler adds GPU machines on demand.

        True: a request that no present machine can hold waits for one, instead of being refused.
        """,
    ).tag(config=True)

    budget_unreachable = CaselessStrEnum(
        ["allow", "deny"],
        default_value="allow",
        help="""
        What to do with a start with GPUs when the service does not tell the budget within 2 s.

        allow: start it; the ledger counts it all the same. deny: refuse it. Each case is counted in
        gpucloud_budget_unanswered_total on the hub's /metrics. Example: "deny".
        """,
    ).tag(config=True)

    service_url = Unicode(
        help="""
        The address at which pods reach the service `gpucloud`: GPUCLOUD_API_URL in every server.

        Empty: no such variable, so `%gpucloud usage` says that there is no service. By default the
        proxy's address: that of its Service on zero-to-jupyterhub, else the hub's `bind_url`. Set
        it where pods reach the proxy by another name only, such as HTTPS with a certificate.
        Example: "https://hub.example.com/services/gpucloud/".
        """,
    ).tag(config=True)

    s3_provider: Any = Any_(
        None,
        help="""
        The S3 store that gives every user a key, a bucket and the buckets of the own teams.

        None: no S3. Otherwise a `CephRGW`, `StaticS3`, or an object with the methods of
        `gpucloud_spawner.storage.s3.S3Provider`. Example::

            c.GPUCloudSpawner.s3_provider = CephRGW(
                "https://s3.example.com", admin_file="/etc/gpucloud/rgw.json"
            )
        """,
    ).tag(config=True)

    s3_required = Bool(
        False,
        help="""
        Whether a start is refused when the S3 store does not give the user a key.

        False: it starts with the key of before, or with none, and its owner is told.
        """,
    ).tag(config=True)

    s3_timeout = Integer(
        15,
        min=1,
        help="""
        Seconds that a start waits for the S3 store. Example: 5.
        """,
    ).tag(config=True)

    create_namespace = Bool(
        False,
        help="""
        Whether to create `namespace` when it does not exist; needs the right to create namespaces.

        False: an administrator has made it.
        """,
    ).tag(config=True)

    @validate("profiles")
    def _profiles_are_sound(self, proposal: Any) -> list[Any]:
        try:
            profiles = parse_profiles(proposal.value)
        except ValueError as error:
            raise TraitError(f"c.GPUCloudSpawner.profiles: {error}") from error
        for profile in profiles:
            unknown = sorted(set(profile.kubespawner_override) - set(self.trait_names()))
            if unknown:
                raise TraitError(
                    f"c.GPUCloudSpawner.profiles: profile {profile.slug}: kubespawner_override has "
                    f"{unknown[0]!r}, which is no setting of KubeSpawner"
                )
        return profiles

    @validate("s3_provider")
    def _provider_is_one(self, proposal: Any) -> Any:
        if proposal.value is None or isinstance(proposal.value, S3Provider):
            return proposal.value
        raise TraitError(
            "c.GPUCloudSpawner.s3_provider must be None, CephRGW(...), StaticS3(...) or another "
            f"S3Provider, not {type(proposal.value).__name__}"
        )

    @default("start_timeout")
    def _start_timeout_covers_both(self) -> int:
        # the hub's own limit must not strike first: it counts as a failure of the hub.
        # Half a minute for the API calls before the pod exists.
        return (self.queue_timeout or 7 * 86400) + self.launch_timeout + 30

    @default("service_url")
    def _service_behind_the_proxy(self) -> str:
        return url_for_pods(self)

    @default("ip")
    def _bind_to_the_pods_own_address(self) -> str:
        # 0.0.0.0 on a machine whose pods share one network would answer for other users' pods
        return "$(POD_IP)"

    @default("automount_service_account_token")
    def _no_service_account_token(self) -> bool:
        return False

    @default("delete_grace_period")
    def _time_to_save(self) -> int:
        return 30

    @default("extra_pod_config")
    def _pod_grace_period(self) -> dict[str, Any]:
        return {"terminationGracePeriodSeconds": self.delete_grace_period}

    @default("additional_profile_form_template_paths")
    def _our_form(self) -> list[str]:
        return [str(Path(__file__).parent / "templates" / "form")]

    @default("apply_user_options")
    def _applied_in_load_user_options(self) -> Any:
        # set, because the hub warns of "unhandled" options otherwise
        return lambda spawner, options: None
