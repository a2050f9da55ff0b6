"""The spawner class: what an admin configures and how a user's choice becomes KubeSpawner settings.

The course of a start is in `launch`, its words in `words`, the form in `form`; KubeSpawner makes
the objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import aiohttp
from jupyterhub.utils import exponential_backoff
from kubernetes_asyncio.client import V1DeleteOptions
from kubespawner import KubeSpawner
from kubespawner.slugs import is_valid_label, safe_slug
from traitlets import Bool, Integer, List, TraitError, Unicode, default, validate

from ..kube.inventory import InventoryReader
from ..model import labels
from ..model.gpus import Fit, Request, judge
from ..model.options import Choice, OptionError, resolve_options
from ..model.profiles import parse_profiles
from ..storage.volumes import VolumeError, fit_volume
from . import words
from .errors import StartRefused
from .form import options_from_fields, render_profile_list
from .launch import Launch
from .orphans import OrphanSweeper
from .reflectors import STEADY


class GPUCloudSpawner(KubeSpawner):
    """KubeSpawner with GPU profiles that hold, words while one waits, and starts that end honestly.

    One application = one named server = one pod + one volume. Without `profiles` it behaves as
    KubeSpawner does.
    """

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

    cluster_scales_up = Bool(
        False,
        help="""
        Whether an autoscaler adds GPU machines on demand.

        True: a request that no present machine can hold waits for one, instead of being refused.
        """,
    ).tag(config=True)

    hub_name = Unicode(
        "hub",
        help="""
        Name of this hub in the label gpucloud.io/hub of its pods, where hubs share a namespace.

        Pods with this name that no server of this hub stands for are deleted as orphans.
        """,
    ).tag(config=True)

    create_namespace = Bool(
        False,
        help="""
        Whether to create `namespace` when it does not exist; needs the right to create namespaces.

        False: an administrator has made it.
        """,
    ).tag(config=True)

    _inventory: InventoryReader | None = None
    _sweeper: OrphanSweeper | None = None

    choice: Choice | None = None
    previous_pod_uid: str | None = None
    _pod_requested = False
    _accepted_options: dict[str, Any] | None = None

    @validate("profiles")
    def _profiles_are_sound(self, proposal: Any) -> list[Any]:
        try:
            return parse_profiles(proposal.value)
        except ValueError as error:
            raise TraitError(f"c.GPUCloudSpawner.profiles: {error}") from error

    @default("start_timeout")
    def _start_timeout_covers_both(self) -> int:
        # the hub's own limit must not strike first: it counts as a failure of the hub.
        # Half a minute for the API calls before the pod exists.
        return (self.queue_timeout or 7 * 86400) + self.launch_timeout + 30

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

    @default("profile_list")
    def _profiles_of_the_user(self) -> Any:
        if not self.profiles:
            return []
        return lambda spawner: render_profile_list(spawner.profiles, spawner.user_groups)

    @default("apply_user_options")
    def _applied_in_load_user_options(self) -> Any:
        # set, because the hub warns of "unhandled" options otherwise
        return lambda spawner, options: None

    @property
    def user_groups(self) -> set[str]:
        return {group.name for group in self.user.groups}

    # --- what was asked for ------------------------------------------------------------------

    def _resolve(self, options: dict[str, Any]) -> Choice:
        try:
            return resolve_options(options, self.profiles, self.user_groups)
        except OptionError as error:
            raise StartRefused(str(error), reason="options") from error

    def _options_from_form(self, formdata: dict[str, list[str]]) -> dict[str, str]:
        """user_options of the form or of `opt-` parameters, checked before anything is saved."""
        if not self.profiles:
            options: dict[str, str] = super()._options_from_form(formdata)
            return options
        try:
            options = options_from_fields(formdata)
        except OptionError as error:
            raise StartRefused(str(error), reason="options") from error
        self._resolve(options)
        return options

    async def load_user_options(self) -> None:
        """Check the options, apply the profile, and refuse what the cluster cannot give.

        KubeSpawner calls this first in every start, before it makes anything.
        Raises StartRefused.
        """
        if not self.profiles:
            await super().load_user_options()
            return
        try:
            self.choice = self._resolve(self.user_options)
        except StartRefused:
            self._forget_refused_options()
            raise
        await super().load_user_options()
        await asyncio.gather(self._refuse_impossible(), self._fit_volume())
        self._accepted_options = dict(self.user_options)

    def _forget_refused_options(self) -> None:
        # the hub saved them before it asked us; the next start must not stumble over them again
        if self._accepted_options is not None:
            self.orm_spawner.user_options = self._accepted_options

    async def _refuse_impossible(self) -> None:
        fit = await self._judge_fit()
        if fit and fit.kind == "impossible" and not self.cluster_scales_up:
            raise StartRefused(fit.message, reason="impossible")

    async def _judge_fit(self, uid: str | None = None) -> Fit | None:
        """How our GPU request stands; None where it is for no GPU or nobody can tell."""
        if not self.choice or not self.choice.gpus:
            return None
        if self._inventory is None:
            # one for all spawners of the hub, as KubeSpawner's reflectors
            type(self)._inventory = InventoryReader(self.api)
        assert self._inventory is not None
        inventory = await self._inventory.read(self.choice.gpu_resource)
        if inventory is None:
            return None
        request = Request(self.choice.gpu_resource, self.choice.gpus, dict(self.node_selector))
        return judge(inventory, request, uid)

    async def _fit_volume(self) -> None:
        assert self.choice is not None
        if not self.storage_pvc_ensure:
            return
        try:
            self.storage_capacity = await fit_volume(
                self.api,
                name=self.pvc_name,
                namespace=self.namespace,
                size=self.choice.storage,
                chosen=self.choice.storage_chosen,
                timeout=self.k8s_api_request_timeout,
            )
        except VolumeError as error:
            raise StartRefused(str(error), reason="volume") from error

    # --- whose it is -------------------------------------------------------------------------

    def _ownership(self) -> dict[str, str]:
        values = {labels.USER: self.user.name, labels.APP: self.name, labels.HUB: self.hub_name}
        if self.choice:
            values[labels.TEAM] = self.choice.team
            values[labels.PROFILE] = self.choice.profile.slug
        return values

    def _build_common_labels(self, extra_labels: dict[str, str]) -> dict[str, str]:
        built: dict[str, str] = super()._build_common_labels(extra_labels)
        for key, value in self._ownership().items():
            built[key] = safe_slug(value, is_valid=is_valid_label) if value else ""
        return built

    def _build_pod_labels(self, extra_labels: dict[str, str]) -> dict[str, str]:
        return {**super()._build_pod_labels(extra_labels), labels.COMPONENT: labels.NOTEBOOK}

    def _build_common_annotations(self, extra_annotations: dict[str, str]) -> dict[str, str]:
        exact = self._ownership()
        if self.choice:
            exact[labels.PRICE] = str(self.choice.profile.price_per_gpu_hour)
        return {**super()._build_common_annotations(extra_annotations), **exact}

    def get_env(self) -> dict[str, Any]:
        env: dict[str, Any] = super().get_env()
        env["POD_IP"] = {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        if self.choice:
            env["GPUCLOUD_PROFILE"] = self.choice.profile.slug
            env["GPUCLOUD_TEAM"] = self.choice.team
        return env

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self._accepted_options is not None:
            state["accepted_options"] = self._accepted_options
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self._accepted_options = state.get("accepted_options")

    # --- start, stop, look -------------------------------------------------------------------

    @property
    def current_pod(self) -> dict[str, Any] | None:
        """Our pod as last seen, or None."""
        reflector = self.pod_reflector
        return reflector.pods.get(f"{self.namespace}/{self.pod_name}") if reflector else None

    async def _start(self) -> str:
        self._pod_requested = False
        # a pod of the same name from before is deleted by KubeSpawner; its state is not ours
        self.previous_pod_uid = (self.current_pod or {}).get("metadata", {}).get("uid")
        try:
            if self.create_namespace:
                await self._ensure_namespace()
            return await Launch(self, super()._start).run()
        except (Exception, asyncio.CancelledError):
            if self._pod_requested:
                # shielded: a second cancel must not leave the pod behind
                await asyncio.shield(asyncio.ensure_future(self._abandon()))
            raise

    async def _abandon(self) -> None:
        """Delete the pod of a start that failed or was cancelled."""
        try:
            await self.stop(now=True)
        except Exception as error:  # noqa: BLE001 - the orphan sweeper deletes it later
            self.log.error("Could not delete the pod of %s: %s", self._log_name, error)

    async def stop(self, now: bool = False) -> None:
        """Delete the pod and return when it is gone; the volume stays.

        As KubeSpawner's, but woken by the watch instead of looking every few seconds. Raises
        TimeoutError where the API server does not answer for `k8s_api_request_retry_timeout`, or
        the pod does not end.
        """
        await self._start_watching_pods()
        key = f"{self.namespace}/{self.pod_name}"
        reflector = self.pod_reflector
        grace = 0 if now else self.delete_grace_period
        await self._delete_pod(grace)
        gone = await reflector.wait_until(
            lambda: key not in reflector.pods, timeout=grace + self.launch_timeout
        )
        if not gone:
            raise TimeoutError(f"Pod {key} was deleted but does not end")

    async def _delete_pod(self, grace: int) -> None:
        options = V1DeleteOptions(grace_period_seconds=grace)
        await exponential_backoff(
            lambda: self._make_delete_pod_request(
                self.pod_name, options, grace, self.k8s_api_request_timeout
            ),
            f"Could not delete pod {self.pod_name}: the Kubernetes API does not answer",
            timeout=self.k8s_api_request_retry_timeout,
        )

    async def get_url(self) -> str:
        """Where the server is: after a hub restart, the pod knows better than the database."""
        pod = self.current_pod
        if pod is not None and self.is_pod_running(pod) and self.server:
            return str(self._get_pod_url(pod)) + str(self.server.base_url)
        url: str = await super().get_url()
        return url

    async def rename(self, old_name: str, new_name: str) -> None:
        """Refused: the volume carries the name, and the next application of the old name would get
        it."""
        raise StartRefused(
            "An application keeps its name, because its volume is found by it. "
            'Change its display name instead: PATCH {"display_name": "..."}.',
            reason="rename",
        )

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Words on what the start waits for, whenever they change, until the server answers."""
        await self._start_watching_pods()
        await self._start_watching_events()
        last: words.Step | None = None
        while True:
            pod = self.current_pod
            waiting = ""
            if pod is not None and not words.is_scheduled(pod):
                fit = await self._judge_fit(pod["metadata"]["uid"])
                waiting = fit.message if fit and fit.kind != "fits" else ""
            step = words.describe(pod, self.events, waiting)
            if step != last:
                last = step
                yield step.as_event()
            await self.pod_reflector.wait_for_change(timeout=1.0)

    # --- what KubeSpawner lacks --------------------------------------------------------------

    async def _start_reflector(
        self, kind: str, reflector_class: Any, replace: bool = False, **kwargs: Any
    ) -> Any:
        key = self._get_reflector_key(kind)
        try:
            reflector = await super()._start_reflector(
                kind, STEADY.get(reflector_class, reflector_class), replace, **kwargs
            )
        except Exception:
            # a reflector that never started must not be taken for an empty cluster
            self.__class__.reflectors.pop(key, None)
            raise
        if kind == "pods" and self._sweeper is None:
            type(self)._sweeper = OrphanSweeper(self)
        return reflector

    async def _make_create_pod_request(self, pod: Any, request_timeout: float) -> bool:
        self._pod_requested = True
        return await _unless_unreachable(super()._make_create_pod_request(pod, request_timeout))

    async def _make_create_pvc_request(self, pvc: Any, request_timeout: float) -> bool:
        return await _unless_unreachable(super()._make_create_pvc_request(pvc, request_timeout))

    async def _make_delete_pod_request(self, *args: Any) -> bool:
        return await _unless_unreachable(super()._make_delete_pod_request(*args))


async def _unless_unreachable(request: Awaitable[bool]) -> bool:
    """KubeSpawner retries time-outs only; a refused connection deserves the same."""
    try:
        return await request
    except aiohttp.ClientConnectionError:
        return False
