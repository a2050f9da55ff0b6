"""What an admin offers: GPU profiles, their images, GPU counts, sizes and prices.

The classes are pydantic models so that a mistake in the site file is named at start-up, with the
field that is wrong. How a profile becomes KubeSpawner's form is not here (`spawner.form`).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .units import parse_quantity

# A DNS label: it becomes part of form field names and a pod label value.
# No double hyphen: those field names are cut at one.
_SLUG = r"^[a-z0-9](-?[a-z0-9]){0,39}$"
# JupyterHub's ByteSpecification: its memory limits take no "Gi"
_MEMORY = r"^\d+(\.\d+)?[KMGT]?$"
# `prefix/name`: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#extended-resources
_EXTENDED_RESOURCE = re.compile(r"[a-z0-9.-]+/[A-Za-z0-9._-]+")

Slug = Annotated[str, Field(pattern=_SLUG)]


class _Frozen(BaseModel):
    # extra="forbid": a misspelt key must not silently become "no limit"
    model_config = ConfigDict(frozen=True, extra="forbid")


class Image(_Frozen):
    """One container image that users of a profile may choose."""

    image: str = Field(min_length=1, description="image reference, e.g. gpucloud/notebook:0.1")
    display_name: str = Field("", description="shown in the form; empty: the image reference")


class Profile(_Frozen):
    """One kind of server that users may start.

    Example::

        Profile(
            slug="tensorflow",
            display_name="TensorFlow",
            images={"tf": Image(image="gpucloud/notebook:0.1")},
            gpus=[0, 1, 2],
            default_gpus=1,
        )
    """

    slug: Slug = Field(description="stable name in URLs, user_options, labels and the ledger")
    display_name: str = Field(min_length=1)
    description: str = Field("", description="plain text, shown under the name")
    images: dict[Slug, Image] = Field(min_length=1, description="key -> image; first is default")
    gpu_resource: str = Field("nvidia.com/gpu", description="extended resource that is a GPU")
    gpus: list[int] = Field([0], min_length=1, description="allowed numbers of GPUs per server")
    default_gpus: int | None = Field(None, description="None: the smallest allowed number")
    node_selector: dict[str, str] = Field(
        {}, description='node labels, e.g. {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}'
    )
    cpu_guarantee: float | None = Field(None, ge=0, description="cores; None: no request")
    cpu_limit: float | None = Field(None, gt=0, description="cores; None: no limit")
    mem_guarantee: str | None = Field(
        None, pattern=_MEMORY, description='e.g. "2G" (K, M, G or T: powers of 1024); None: none'
    )
    mem_limit: str | None = Field(None, pattern=_MEMORY, description='e.g. "8G"; None: no limit')
    storage: list[str] = Field(["10Gi"], min_length=1, description="sizes of the home volume")
    default_storage: str | None = Field(None, description="None: the first of `storage`")
    groups: list[str] = Field([], description="hub groups that may use it; empty: everyone")
    price_per_gpu_hour: Decimal = Field(
        Decimal(0), ge=0, description="price of one GPU for one hour, in the site's currency"
    )
    kubespawner_override: dict[str, Any] = Field(
        {}, description="any further KubeSpawner setting of this profile, e.g. tolerations"
    )

    @field_validator("kubespawner_override")
    @classmethod
    def _says_nothing_twice(cls, value: dict[str, Any]) -> dict[str, Any]:
        owned = {
            "image": "images",
            "storage_capacity": "storage",
            **{k: k for k in ("cpu_guarantee", "cpu_limit", "mem_guarantee", "mem_limit")},
        }
        for key in value:
            if key in owned:
                raise ValueError(f"set {key} by the profile's field {owned[key]}")
        return value

    @field_validator("gpu_resource")
    @classmethod
    def _is_extended_resource(cls, value: str) -> str:
        if not _EXTENDED_RESOURCE.fullmatch(value):
            raise ValueError(f"{value!r} is not an extended resource such as nvidia.com/gpu")
        return value

    @field_validator("gpus")
    @classmethod
    def _counts_are_whole_and_sorted(cls, value: list[int]) -> list[int]:
        if min(value) < 0:
            raise ValueError("a number of GPUs cannot be negative")
        return sorted(set(value))

    @field_validator("storage")
    @classmethod
    def _sizes_are_quantities(cls, value: list[str]) -> list[str]:
        for size in value:
            if parse_quantity(size) <= 0:
                raise ValueError(f"the size {size!r} is not positive")
        return value

    @model_validator(mode="after")
    def _defaults_are_allowed(self) -> Profile:
        if self.default_gpus is not None and self.default_gpus not in self.gpus:
            raise ValueError(f"default_gpus {self.default_gpus} is not one of gpus {self.gpus}")
        if self.default_storage is not None and self.default_storage not in self.storage:
            raise ValueError(f"default_storage is not one of storage {self.storage}")
        return self

    @property
    def gpus_by_default(self) -> int:
        return self.gpus[0] if self.default_gpus is None else self.default_gpus

    @property
    def storage_by_default(self) -> str:
        return self.default_storage or self.storage[0]

    @property
    def image_by_default(self) -> str:
        return next(iter(self.images))


def allowed_profiles(profiles: list[Profile], groups: set[str]) -> list[Profile]:
    """The profiles that a member of ``groups`` may use, in the admin's order."""
    return [p for p in profiles if not p.groups or groups.intersection(p.groups)]


def parse_profiles(value: list[Any]) -> list[Profile]:
    """Profiles from `Profile` objects or plain dicts (e.g. out of YAML).

    Raises ValueError (pydantic's, with the path of the wrong field) on a bad profile, and where two
    share a slug.
    """
    profiles = [p if isinstance(p, Profile) else Profile.model_validate(p) for p in value]
    slugs = [p.slug for p in profiles]
    twice = {s for s in slugs if slugs.count(s) > 1}
    if twice:
        raise ValueError(f"profile slugs must be unique; used twice: {', '.join(sorted(twice))}")
    return profiles
