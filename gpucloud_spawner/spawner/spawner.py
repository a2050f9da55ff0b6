"""The spawner class: how a user's choice becomes KubeSpawner settings, and the life of a server.

What an admin configures is in `settings`, the course of a start in `launch`, its words in `words`,
the form in `form`; KubeSpawner makes the objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from jupyterhub.utils import exponential_backoff
from kubernetes_asyncio.client import V1DeleteOptions
from kubespawner.slugs import is_valid_label, safe_slug
from traitlets import default

from ..kube.inventory import InventoryReader
from ..model import labels
from ..model.gpus import Fit, Inventory, Request, judge, words_for_free
from ..model.options import Choice, OptionError, resolve_options
from ..model.profiles import allowed_profiles
from ..storage.keys import attach
from ..storage.volumes import VolumeError, fit_volume
from . import words
from .budget import budget_words, check_budget
from .errors import StartRefused, in_words
from .form import options_from_fields, render_profile_list
from .launch import Launch
from .orphans import hub_identity
from .s3 import end_keys, prepare_keys
from .settings import SpawnerSettings
from .stops import StopRecorder, note_stop

ABANDON_GRACE_SECONDS = 5
_background: set[asyncio.Task[None]] = set()  # the loop keeps no reference to its tasks


class GPUCloudSpawner(SpawnerSettings):
    """KubeSpawner with GPU profiles that hold, words while one waits, and starts that end honestly.

    One application = one named server = one pod + one volume. Without `profiles`, KubeSpawner's own
    options and `profile_list` are in force; the course of a start and of a stop is ours all the
    same.
    """

    _inventory: InventoryReader | None = None
    _stop_recorder: StopRecorder | None = None

    choice: Choice | None = None
    _accepted_options: dict[str, Any] | None = None
    _budget_notice = ""
    _form_token: tuple[str, float] = ("", 0.0)
    _s3_notice = ""

    @default("profile_list")
    def _profiles_of_the_user(self) -> Any:
        if not self.profiles:
            return []
        # called with the spawner at hand: this default may be another one's
        return GPUCloudSpawner._render_profiles

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.profiles and self.profile_list is not GPUCloudSpawner._render_profiles:
            # what a pod is given must be what was checked, labelled and priced
            raise ValueError("Set c.GPUCloudSpawner.profiles or profile_list, not both")

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
            self._budget_notice = ""
            await super().load_user_options()
            await self._refuse_impossible()
            self._budget_notice = await check_budget(self, self.choice.gpus, self.choice.team)
            await self._fit_volume()  # last: it may change something
        except StartRefused:
            self._forget_refused_options()
            raise
        self._accepted_options = dict(self.user_options)

    def _forget_refused_options(self) -> None:
        # the hub saved them before it asked us; the next start must not stumble over them again
        if self._accepted_options is not None:
            self.user_options = self.orm_spawner.user_options = self._accepted_options

    async def _render_profiles(self) -> list[dict[str, Any]]:
        allowed = allowed_profiles(self.profiles, self.user_groups)
        with_gpus = [profile for profile in allowed if profile.gpus[-1]]
        budgets = await budget_words(self) if with_gpus else ""
        now = {}
        for profile in with_gpus:
            inventory = await self._inventory_of(profile.gpu_resource)
            free = words_for_free(inventory, profile.node_selector) if inventory else ""
            now[profile.slug] = " ".join(words for words in (free, budgets) if words)
        return render_profile_list(self.profiles, self.user_groups, now)

    async def _inventory_of(self, resource: str) -> Inventory | None:
        if self._inventory is None:
            # one for all spawners of the hub, as KubeSpawner's reflectors
            type(self)._inventory = InventoryReader(self.api)
        assert self._inventory is not None
        return await self._inventory.read(resource)

    async def _refuse_impossible(self) -> None:
        fit = await self._judge_fit()
        if fit and fit.kind == "impossible":
            raise StartRefused(fit.message, reason="impossible")

    async def _judge_fit(self, uid: str | None = None) -> Fit | None:
        """How our GPU request stands; None where it is for no GPU or nobody can tell."""
        if not self.choice or not self.choice.gpus:
            return None
        inventory = await self._inventory_of(self.choice.gpu_resource)
        if inventory is None:
            return None
        request = Request(self.choice.gpu_resource, self.choice.gpus, dict(self.node_selector))
        fit = judge(inventory, request, uid)
        if fit.kind == "impossible" and self.cluster_scales_up:
            return Fit("full", "Waiting for a machine with such a GPU to be added")
        return fit

    async def _fit_volume(self) -> None:
        assert self.choice is not None
        if not self.storage_pvc_ensure:
            return
        try:
            size = await fit_volume(
                self.api,
                name=self.pvc_name,
                namespace=self.namespace,
                size=self.choice.storage,
                chosen=self.choice.storage_chosen,
                timeout=self.k8s_api_request_timeout,
            )
        except VolumeError as error:
            raise StartRefused(str(error), reason="volume") from error
        # KubeSpawner remembers that there was one; somebody may have deleted it
        self._pvc_exists = size is not None
        self.storage_capacity = size or self.choice.storage

    # --- whose it is -------------------------------------------------------------------------

    @property
    def _identity(self) -> str:
        return hub_identity(getattr(self.user, "settings", {}))

    def _ownership(self) -> dict[str, str]:
        values = {labels.USER: self.user.name, labels.APP: self.name, labels.HUB: self._identity}
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
            env["GPUCLOUD_GPUS"] = str(self.choice.gpus)
        if self.service_url:
            env["GPUCLOUD_API_URL"] = self.service_url
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

    async def _start(self) -> str:
        self._pod_requested = False
        self._s3_notice = ""
        try:
            with in_words():
                if self.create_namespace:
                    await self._ensure_namespace()
                return await Launch(self, super()._start).run()
        except asyncio.CancelledError:
            # at once: the hub waits a second for a cancelled start, then takes it for stuck
            if self._pod_requested:
                _in_background(self._abandon())
            raise
        except Exception:
            if self._pod_requested:
                await self._abandon()
            raise

    async def get_pod_manifest(self) -> Any:
        """KubeSpawner's, with the S3 keys: here, because all refusals of a start are behind us."""
        pod = await super().get_pod_manifest()
        secret, self._s3_notice = await prepare_keys(self)
        if secret:
            attach(pod, secret)
        return pod

    async def delete_forever(self) -> None:
        """The application is deleted, volume included; with the user, the S3 keys, too."""
        try:
            await super().delete_forever()
        finally:
            if not self.name:  # the default server is deleted only with its user
                await end_keys(self)

    async def _abandon(self) -> None:
        """Delete the pod of a start that failed or was cancelled."""
        try:
            # not by force: its node must have let go of GPU and volume before others get them
            await self._delete_and_wait(grace=ABANDON_GRACE_SECONDS)
        except Exception as error:  # noqa: BLE001 - the orphan sweeper deletes it later
            self.log.error("Could not delete the pod of %s: %s", self._log_name, error)

    async def stop(self, now: bool = False) -> None:
        """Delete the pod and return when it is gone; the volume stays.

        As KubeSpawner's, but woken by the watch instead of looking every few seconds. Raises
        TimeoutError where the API server does not answer for `k8s_api_request_retry_timeout`, or
        the pod does not end.
        """
        await self._delete_and_wait(0 if now else self.delete_grace_period)

    async def _delete_and_wait(self, grace: int) -> None:
        await self._start_watching_pods()
        key = f"{self.namespace}/{self.pod_name}"
        reflector = self.pod_reflector
        last = self.current_pod

        def is_gone() -> bool:
            nonlocal last
            pod = reflector.pods.get(key)
            last = pod or last
            return pod is None

        await self._delete_pod(grace)
        gone = await reflector.wait_until(is_gone, timeout=grace + self.launch_timeout)
        if last is not None:
            note_stop(self, last, gone=gone)
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
        """Where the server is: after a hub restart, the pod knows better than the database.

        A pod that was starting when the hub ended is given `http_timeout` seconds to run.
        """

        def runs() -> bool:
            return bool(self.is_pod_running(self.current_pod))

        if self.pod_reflector:
            await self.pod_reflector.wait_until(runs, timeout=self.http_timeout)
        if runs() and self.server:
            return str(self._get_pod_url(self.current_pod)) + str(self.server.base_url)
        url: str = await super().get_url()
        return url

    async def poll(self) -> int | None:
        """As KubeSpawner's, but a start that waited when the hub was killed is over.

        Nobody follows it any more, and the hub could neither stop nor start it for as long as it
        waited (jupyterhub/jupyterhub#3263).
        """
        status: int | None = await super().poll()
        pod = self.current_pod
        if status is not None or pod is None or words.is_scheduled(pod):
            return status
        if self._start_future is not None and not self._start_future.done():
            return None
        self.log.warning("%s waited for a machine when the hub ended: giving up", self._log_name)
        await self.stop(now=True)
        return 1

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
        if self.events_enabled:
            await self._start_watching_events()
        told: set[str] = set()
        last: words.Step | None = None
        while True:
            over = self._start_future is not None and self._start_future.done()
            # known only some time after the start has begun
            for notice in self._notices:
                if notice not in told:
                    told.add(notice)
                    yield words.Step(last.percent if last else 1, notice).as_event()
            if over:
                return
            step = await self._present_step()
            if step != last:
                last = step
                yield step.as_event()
            await self.pod_reflector.wait_for_change(timeout=1.0)

    async def _present_step(self) -> words.Step:
        pod = self.current_pod
        waiting = ""
        if pod is not None and not words.is_scheduled(pod):
            fit = await self._judge_fit(pod["metadata"]["uid"])
            waiting = fit.message if fit and fit.kind != "fits" else ""
        return words.describe(pod, self.events, waiting)

    @property
    def _notices(self) -> list[str]:
        """What the owner should know of this start, beside how it goes."""
        return [notice for notice in (self._budget_notice, self._s3_notice) if notice]

    @default("progress_ready_hook")
    def _ready_with_notices(self) -> Any:
        # a quick start may be over before anybody has asked how it goes
        return lambda spawner, event: words.with_notices(event, spawner._notices)


def _in_background(work: Coroutine[Any, Any, None]) -> None:
    """Let ``work`` go on after its caller ended; the hub ends all tasks of its loop at its end."""
    task = asyncio.create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
