"""A request for a distributed job: what may be asked for, and the complete job that it means.

Pure. What is allowed does not depend on who asks in which way: form, magic and REST end here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .jobs import ROLES, TRAINING, JobError, JobSpec
from .options import OptionError, resolve_options
from .profiles import Profile
from .units import parse_memory, parse_quantity

FIELDS = (
    "name",
    "idempotency_key",
    "command",
    "code",
    "replicas",
    "gpus",
    "ps_gpus",
    "profile",
    "image",
    "team",
    "cpu",
    "memory",
    "env",
    "timeout_seconds",
    "gang_seconds",
    "retries",
)
# It begins the names of Kubernetes objects, which hold 63 characters with role and number.
_NAME = re.compile(r"[a-z](-?[a-z0-9])*", re.ASCII)
_NAME_LENGTH = 30
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# Whose bucket, whose key, which GPUs and which place in the job is not the user's to say.
RESERVED_PREFIXES = (
    "AMD_VISIBLE_",
    "AWS_",
    "GPUCLOUD_",
    "HABANA_VISIBLE_",
    "JOB_COMPLETION_",
    "JUPYTERHUB_",
    "KUBERNETES_",
    "NVIDIA_",
)
RESERVED_NAMES = ("TF_CONFIG", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK")
_MAX_TEXT = 32 * 1024  # of the command, and of all variables
_MAX_ENV = 100
_MIN_MEMORY = 16 * 2**20


@dataclass(frozen=True)
class JobLimits:
    """What a site allows; defaults are used where a job says nothing. Times in seconds."""

    max_replicas: int = 64
    max_open: int = 100  # jobs of one user that are not over; 0: no limit
    default_timeout: int = 24 * 3600
    max_timeout: int = 14 * 24 * 3600
    default_gang: int = 600
    max_gang: int = 24 * 3600
    default_retries: int = 1
    max_retries: int = 20


def fingerprint(body: Mapping[str, Any]) -> str:
    """What a request asks for, to tell a repetition from another one with the same key."""
    wanted = {key: value for key, value in body.items() if key != "idempotency_key"}
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def idempotency_key(body: Mapping[str, Any]) -> str:
    """The key with which a repeated request is recognised. Raises JobError."""
    key = body.get("idempotency_key")
    if not isinstance(key, str) or not 1 <= len(key) <= 100 or not key.isprintable():
        raise _bad(
            "idempotency_key",
            "a string of 1 to 100 printable characters, new for every job: a request that is "
            "repeated with it launches nothing twice",
        )
    return key


def parse_job(
    body: Mapping[str, Any],
    profiles: list[Profile],
    groups: Iterable[str],
    limits: JobLimits | None = None,
) -> tuple[JobSpec, Profile]:
    """The job that a request body means for a member of ``groups``, and its profile.

    Raises JobError with what is allowed.
    """
    limits = limits or JobLimits()
    for key in body:
        if key not in FIELDS:
            raise JobError(
                "unknown_field",
                f"There is no field {key[:80]!r}. Allowed: {', '.join(FIELDS)}.",
                allowed=list(FIELDS),
            )
    command = _command(body.get("command"))
    replicas = _replicas(body.get("replicas", {"worker": 1}), limits)
    wanted = {key: _text(body, key) for key in ("profile", "image", "team") if body.get(key)}
    if "gpus" in body:
        wanted["gpus"] = str(_integer(body, "gpus", 0, 0, 10**6))
    try:
        choice = resolve_options(wanted, profiles, groups)
    except OptionError as error:
        raise JobError("bad_option", str(error)) from error
    profile = choice.profile
    ps_gpus = _integer(body, "ps_gpus", 0, 0, 10**6)
    if ps_gpus and ps_gpus not in profile.gpus:
        allowed = ", ".join(map(str, sorted({0, *profile.gpus})))
        raise _bad("ps_gpus", f"one of {allowed} with profile {profile.slug}")
    spec = JobSpec(
        name=_name(body.get("name"), command),
        command=command,
        code=_code(body.get("code")),
        replicas=replicas,
        profile=profile.slug,
        image=choice.image_key,
        team=choice.team,
        gpus=choice.gpus,
        ps_gpus=ps_gpus,
        cpu=_cpu(body.get("cpu"), profile),
        memory=_memory(body.get("memory"), profile),
        env=_env(body.get("env", {})),
        timeout_seconds=_integer(
            body, "timeout_seconds", limits.default_timeout, 1, limits.max_timeout
        ),
        gang_seconds=_integer(body, "gang_seconds", limits.default_gang, 1, limits.max_gang),
        retries=_integer(body, "retries", limits.default_retries, 0, limits.max_retries),
    )
    return spec, profile


def _bad(name: str, what: str, **details: Any) -> JobError:
    return JobError("bad_value", f"{name} must be {what}.", parameter=name, **details)


def _is_text(value: Any) -> bool:
    """Whether a value can be a word of a command or of an environment."""
    if not isinstance(value, str) or "\0" in value:
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in value)  # halves of a character


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body[key]
    if not isinstance(value, str):
        raise _bad(key, "a string")
    return value


def _integer(body: Mapping[str, Any], key: str, default: int, low: int, high: int) -> int:
    value = body.get(key)
    if value is None:
        return default
    if type(value) is not int or not low <= value <= high:
        raise _bad(key, f"a whole number from {low} to {high}", minimum=low, maximum=high)
    return value


def _command(value: Any) -> tuple[str, ...]:
    words = value if isinstance(value, list) else []
    if not words or not all(_is_text(word) for word in words):
        raise _bad("command", 'a list of strings such as ["python", "train.py", "--epochs", "3"]')
    if not words[0] or len(words) > 1000 or sum(len(w.encode()) for w in words) > _MAX_TEXT:
        raise _bad("command", f"at most 1000 words of {_MAX_TEXT} bytes; the first is the program")
    return tuple(words)


def _name(value: Any, command: Sequence[str]) -> str:
    if value is None:
        script = next((word for word in command if word.endswith(".py")), command[0])
        stem = script.rsplit("/", 1)[-1].removesuffix(".py").lower()
        plain = re.sub(r"[^a-z0-9]+", "-", stem)[:_NAME_LENGTH].strip("-")
        return plain if _NAME.fullmatch(plain) else "job"
    if not isinstance(value, str) or len(value) > _NAME_LENGTH or not _NAME.fullmatch(value):
        raise _bad(
            "name",
            f"1 to {_NAME_LENGTH} of a-z, 0-9 and single hyphens, beginning with a letter",
        )
    return value


def _code(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value, re.ASCII):
        raise _bad("code", "the SHA-256 (64 hex digits) of the uploaded code's manifest")
    return value


def _replicas(value: Any, limits: JobLimits) -> dict[str, int]:
    if not isinstance(value, dict):
        raise _bad("replicas", 'an object such as {"chief": 1, "worker": 2, "ps": 1}')
    for role in value:
        if role not in ROLES:
            raise JobError(
                "bad_replicas",
                f"There is no role {role[:80]!r}. Allowed: {', '.join(ROLES)}.",
                allowed=list(ROLES),
            )
    found = {}
    for role in ROLES:
        most = 1 if role in ("chief", "evaluator") else limits.max_replicas
        try:
            found[role] = _integer(value, role, 0, 0, most)
        except JobError as error:
            raise JobError("bad_replicas", f"replicas.{error.message}", **error.details) from None
    if found["ps"] and value.get("chief") is None:
        found["chief"] = 1  # parameter servers need a coordinator
    if not any(found[role] for role in TRAINING):
        raise JobError("bad_replicas", "replicas: a job needs a chief or at least one worker.")
    if sum(found.values()) > limits.max_replicas:
        raise JobError(
            "bad_replicas",
            f"replicas: a job may have at most {limits.max_replicas} replicas of all roles.",
            maximum=limits.max_replicas,
        )
    return found


def _cpu(value: Any, profile: Profile) -> str:
    if value is None:
        return ""
    try:
        cores = parse_quantity(value) if isinstance(value, str) else None
    except ValueError:
        cores = None
    most = profile.cpu_limit
    limit = f" and at most {most:g} with profile {profile.slug}" if most else ""
    if cores is None or not 0 < cores <= 1024 or (most and cores > parse_quantity(str(most))):
        raise _bad("cpu", f'cores as a string such as "2" or "500m", above 0{limit}')
    return str(value)


def _memory(value: Any, profile: Profile) -> int:
    if value is None:
        return 0
    try:
        size = parse_memory(value) if isinstance(value, str) and len(value) < 20 else 0
    except ValueError:
        size = 0
    limit = f" and at most {profile.mem_limit} with profile {profile.slug}"
    most = parse_memory(profile.mem_limit) if profile.mem_limit else 2**50
    if not _MIN_MEMORY <= size <= most:
        raise _bad("memory", f'a size such as "4G", at least 16M{limit * bool(profile.mem_limit)}')
    return size


def _env(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(_is_text(text) for text in value.values()):
        raise _bad("env", 'an object of strings such as {"SEED": "1"}')
    for name in value:
        if not _ENV_NAME.fullmatch(name):
            raise _bad("env", f"of names of letters, digits and _, not {name[:80]!r}")
        if name in RESERVED_NAMES or name.upper().startswith(RESERVED_PREFIXES):
            reserved = [*(f"{prefix}*" for prefix in RESERVED_PREFIXES), *RESERVED_NAMES]
            raise JobError(
                "reserved_env",
                f"env: {name[:80]} is set by gpucloud. Not allowed are {', '.join(reserved)}.",
                reserved=reserved,
            )
    size = sum(len(name) + len(text.encode()) for name, text in value.items())
    if len(value) > _MAX_ENV or size > _MAX_TEXT:
        raise _bad("env", f"at most {_MAX_ENV} variables of {_MAX_TEXT} bytes")
    return dict(value)
