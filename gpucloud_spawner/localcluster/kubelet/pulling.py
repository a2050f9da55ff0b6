"""Getting a container's image: it is known, or it is asked for again, later and later, in a
kubelet's words. Which images there are is in `images`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .host import Host
from .images import Image, InvalidImage, UnknownImage
from .status import ContainerState

Obj = dict[str, Any]
Tell = Callable[[str, str, str], None]  # an event's type, reason, message


class Pull:
    """The image of one container."""

    def __init__(self, host: Host, spec: Obj, state: ContainerState) -> None:
        self._host = host
        self._name: str = spec.get("image", "")
        self._policy: str = spec.get("imagePullPolicy", "")
        self._state = state
        self._backoff = 0.0

    def try_again(self, tell: Tell, *, first: bool) -> tuple[Image | None, float]:
        """The image, or None and the seconds until the next attempt."""
        try:
            image = self._host.images.get(self._name)
        except InvalidImage as error:
            self._state.waiting, self._state.message = "InvalidImageName", str(error)
            tell("Warning", "InspectFailed", str(error))
            tell("Warning", "Failed", "Error: InvalidImageName")
            return None, self._host.timing.restart_backoff_max
        except UnknownImage as error:
            return None, self._failed(tell, str(error))
        if first:
            text = f'Container image "{self._name}" already present on machine'
            tell("Normal", "Pulled", text)
        self._backoff = 0.0
        self._state.image_id = image.identity
        return image, 0.0

    def _failed(self, tell: Tell, error: str) -> float:
        name, state, timing = self._name, self._state, self._host.timing
        if self._policy == "Never":
            text = f'Container image "{name}" is not present with pull policy of Never'
            state.waiting, state.message = "ErrImageNeverPull", f"{text}: {error}"
            tell("Warning", "ErrImageNeverPull", text)
            return timing.retry_max
        if state.waiting == "ErrImagePull":
            # The next attempt is some time away: meanwhile it is a back-off.
            state.waiting = "ImagePullBackOff"
            state.message = f'Back-off pulling image "{name}": ErrImagePull: {error}'
            tell("Normal", "BackOff", f'Back-off pulling image "{name}"')
            tell("Warning", "Failed", "Error: ImagePullBackOff")
            return self._backoff
        self._backoff = min(
            max(timing.restart_backoff, self._backoff * 2), timing.restart_backoff_max
        )
        tell("Normal", "Pulling", f'Pulling image "{name}"')
        tell("Warning", "Failed", f'Failed to pull image "{name}": {error}')
        tell("Warning", "Failed", "Error: ErrImagePull")
        state.waiting, state.message = "ErrImagePull", error
        return min(timing.retry, self._backoff)
