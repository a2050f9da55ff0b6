"""Profiles as KubeSpawner's `profile_list`, and the spawn form's fields back as user_options.

Only rendering: what is allowed is decided by `model.options`, at every start. Texts are plain here;
our form.html escapes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..model.options import OptionError
from ..model.profiles import Profile, allowed_profiles

FORM_PREFIX = "profile-option-"  # KubeSpawner's field names: profile-option-<slug>--<option>


def render_profile_list(
    profiles: list[Profile], groups: Iterable[str], now: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """KubeSpawner's `profile_list` of what a member of ``groups`` may use; the first is default.

    ``now`` has words on free GPUs and on nearly used budgets, by profile slug. Every profile also
    unsets the GPU resources and node selectors of all others, so that nothing of one spawn can leak
    into the next (jupyterhub/kubespawner#691).
    """
    teams = sorted(groups)
    unset_resources = {p.gpu_resource: None for p in profiles}
    unset_selector = {key: None for p in profiles for key in p.node_selector}
    rendered: list[dict[str, Any]] = []
    for profile in allowed_profiles(profiles, set(teams)):
        options = {
            "gpus": _gpu_option(profile, unset_resources),
            "image": _image_option(profile),
            "storage": _storage_option(profile),
            "team": _team_option(teams),
        }
        own = {
            "cpu_guarantee": profile.cpu_guarantee,
            "cpu_limit": profile.cpu_limit,
            "mem_guarantee": profile.mem_guarantee,
            "mem_limit": profile.mem_limit,
            "node_selector": {**unset_selector, **profile.node_selector},
        }
        # what leaves no choice is set, not asked; what the profile says wins over its override
        override = merged(profile.kubespawner_override, own, *_settled(options))
        rendered.append(
            {
                "slug": profile.slug,
                "display_name": profile.display_name,
                "description": _description(profile, (now or {}).get(profile.slug, "")),
                "default": not rendered,
                "kubespawner_override": override,
                "profile_options": {k: o for k, o in options.items() if len(o["choices"]) > 1},
            }
        )
    return rendered


def _settled(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The overrides of the options that have one choice only."""
    only = [next(iter(o["choices"].values())) for o in options.values() if len(o["choices"]) == 1]
    return [choice["kubespawner_override"] for choice in only]


def merged(*dicts: Mapping[str, Any]) -> dict[str, Any]:
    """One dict of all, later values first, dicts within merged likewise."""
    result: dict[str, Any] = {}
    for one in dicts:
        for key, value in one.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def _description(profile: Profile, now: str) -> str:
    price = ""
    if profile.price_per_gpu_hour and max(profile.gpus):
        price = f"{profile.price_per_gpu_hour:.2f} per GPU-hour."
    return " ".join(part for part in (profile.description, price, now) if part)


def _gpu_option(profile: Profile, unset: Mapping[str, None]) -> dict[str, Any]:
    def limits(count: int) -> dict[str, Any]:
        # Kubernetes sets the request of an extended resource to its limit
        return {**unset, **({profile.gpu_resource: str(count)} if count else {})}

    return {
        "display_name": "GPUs",
        "choices": {
            str(count): {
                "display_name": "none" if count == 0 else str(count),
                "default": count == profile.gpus_by_default,
                "kubespawner_override": {"extra_resource_limits": limits(count)},
            }
            for count in profile.gpus
        },
    }


def _image_option(profile: Profile) -> dict[str, Any]:
    return {
        "display_name": "Image",
        "choices": {
            key: {
                "display_name": image.display_name or image.image,
                "default": key == profile.image_by_default,
                "kubespawner_override": {"image": image.image},
            }
            for key, image in profile.images.items()
        },
    }


def _storage_option(profile: Profile) -> dict[str, Any]:
    size = profile.storage_by_default
    # preselected, so that a volume that has another size is not refused to be made that small
    keep = {
        "display_name": f"as it is ({size} for a new one)",
        "default": True,
        "kubespawner_override": {"storage_capacity": size},
    }
    sizes = {
        size: {"display_name": size, "kubespawner_override": {"storage_capacity": size}}
        for size in profile.storage
    }
    choices = {"": keep, **sizes} if len(sizes) > 1 else sizes
    return {"display_name": "Volume", "choices": choices}


def _team_option(teams: list[str]) -> dict[str, Any]:
    return {
        "display_name": "Team",
        "choices": {
            team: {"display_name": team, "default": index == 0, "kubespawner_override": {}}
            for index, team in enumerate(teams)
        },
    }


def options_from_fields(fields: Mapping[str, list[str]]) -> dict[str, str]:
    """user_options from form fields or `opt-` parameters; unknown ones are kept, to be refused.

    Fields of profiles that were not chosen are dropped: a form always sends them all. Raises
    OptionError where a field was given twice with different values.
    """
    options: dict[str, str] = {}
    profile = _single("profile", fields["profile"]) if fields.get("profile") else ""
    for name, values in fields.items():
        if name == "_xsrf":
            continue
        if name.startswith(FORM_PREFIX):
            slug, _, option = name.removeprefix(FORM_PREFIX).partition("--")
            if slug == profile:
                options[option] = _single(option, values)
        else:
            options[name] = _single(name, values)
    return options


def _single(name: str, values: list[str]) -> str:
    if len(set(values)) != 1:
        raise OptionError(f"Option {name!r:.80} must be given once.")
    return values[0]
