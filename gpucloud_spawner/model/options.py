"""What a user asks for (`user_options`) against what is offered: one pure check for every way in.

The form, `opt-` parameters, REST and saved options all end here, at every start.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .profiles import Profile, allowed_profiles

OPTION_KEYS = ("profile", "team", "image", "gpus", "storage")


class OptionError(ValueError):
    """A refused option; the text is for the user and names what is allowed."""


@dataclass(frozen=True)
class Choice:
    """A complete, allowed choice: every default filled in."""

    profile: Profile
    image_key: str
    gpus: int
    storage: str
    storage_chosen: bool  # False: the default, which must not refuse a volume that is larger
    team: str  # "" where the user belongs to no team

    @property
    def image(self) -> str:
        return self.profile.images[self.image_key].image

    @property
    def gpu_resource(self) -> str:
        return self.profile.gpu_resource


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(v) for v in values) or "none"


def _one_of(name: str, value: str, allowed: Iterable[str], where: str) -> str:
    allowed = list(allowed)
    if value not in allowed:
        raise OptionError(
            f"{name} {reprlib.repr(value)} is not offered {where}. Allowed: {_listed(allowed)}."
        )
    return value


def _check_shape(options: Mapping[str, Any]) -> None:
    unknown = sorted(set(options) - set(OPTION_KEYS))
    if unknown:
        # shortened: the text goes into a log line and a page
        raise OptionError(
            f"Unknown option {reprlib.repr(unknown[0])}. Allowed options: {_listed(OPTION_KEYS)}."
        )
    for key, value in options.items():
        if not isinstance(value, str):
            raise OptionError(
                f"Option {key} must be a string, not {type(value).__name__}"
                f' (for example "{key}": "{_EXAMPLES[key]}").'
            )


_EXAMPLES = {
    "profile": "tensorflow",
    "team": "vision",
    "image": "default",
    "gpus": "1",
    "storage": "20Gi",
}


def resolve_options(
    options: Mapping[str, Any] | None, profiles: list[Profile], groups: Iterable[str]
) -> Choice:
    """The full choice that ``options`` mean for a member of ``groups``.

    An option that is absent or empty takes its default: the first profile that the user may use,
    and that profile's own defaults. Raises OptionError with the allowed values otherwise.
    """
    options = options or {}
    _check_shape(options)
    teams = sorted(groups)
    mine = allowed_profiles(profiles, set(teams))
    if not mine:
        raise OptionError("No profile is offered to you. Ask an administrator for one.")
    slugs = [p.slug for p in mine]
    slug = _one_of("Profile", options.get("profile") or slugs[0], slugs, "to you")
    profile = mine[slugs.index(slug)]
    where = f"by profile {slug}"
    gpus = _one_of(
        "gpus", options.get("gpus") or str(profile.gpus_by_default), map(str, profile.gpus), where
    )
    return Choice(
        profile=profile,
        image_key=_one_of(
            "Image", options.get("image") or profile.image_by_default, profile.images, where
        ),
        gpus=int(gpus),
        storage=_one_of(
            "Storage", options.get("storage") or profile.storage_by_default, profile.storage, where
        ),
        storage_chosen=bool(options.get("storage")),
        team=_one_of(
            "Team",
            options.get("team") or (teams[0] if teams else ""),
            teams or [""],
            "to you: you are billed for a team that you belong to",
        ),
    )
