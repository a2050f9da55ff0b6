"""Jobs: what Kubernetes fills in, refuses and lets change. Which pods a Job has and when it is done
is the Job controller's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..indexes import parse_indexes
from . import pod_validation, pods
from . import validation as check
from .errors import (
    Cause,
    forbidden_field,
    invalid_value,
    not_implemented,
    not_supported,
    required,
)
from .store import Object
from .strategy import Strategy

CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
_LEGACY = {CONTROLLER_UID: "controller-uid", JOB_NAME: "job-name"}
_MAX_INT = 2**31 - 1
_MAX_INDEXED = 100_000
_MAX_RULES = 20
_COUNTS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_IMMUTABLE = (
    "completionMode",
    "podFailurePolicy",
    "successPolicy",
    "backoffLimitPerIndex",
    "managedBy",
    "selector",
    "manualSelector",
)
_NOT_NEGATIVE = "must be greater than or equal to 0"
_NEEDS_INDEXES = "requires indexed completion mode"
_FIXED = "field is immutable"


class JobStrategy(Strategy):
    has_status = has_generation = True
    # For the sake of old clients: whoever names no policy leaves the pods behind, and is warned.
    default_policy = "Orphan"
    delete_warning = (
        "child pods are preserved by default when jobs are deleted; set "
        "propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress "
        "this warning"
    )

    def prepare_create(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("manualSelector"):
            raise not_implemented("Jobs with spec.manualSelector (the selector is generated)")
        _defaults(obj, spec)
        meta = obj["metadata"]
        labels = {CONTROLLER_UID: meta["uid"], JOB_NAME: meta["name"]}
        template = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
        template.update(labels)
        template.update({_LEGACY[name]: value for name, value in labels.items()})
        spec["selector"] = {"matchLabels": {CONTROLLER_UID: meta["uid"]}}
        obj["status"] = {}

    def validate_create(self, obj: Object) -> Iterator[Cause]:
        yield from _validate_hostname(obj)
        yield from _validate(obj["spec"])

    def prepare_update(self, new: Object, old: Object) -> None:
        spec = new.setdefault("spec", {})
        for name in ("selector", "manualSelector", "podReplacementPolicy"):
            if name in old["spec"]:
                spec.setdefault(name, old["spec"][name])
        _defaults(new, spec)

    def validate_update(self, new: Object, old: Object) -> Iterator[Cause]:
        yield from _validate(new["spec"])
        yield from _validate_changes(new["spec"], old)


def _defaults(obj: Object, spec: dict[str, Any]) -> None:
    if spec.get("completionMode") == "Indexed" and spec.get("completions", 0) > _MAX_INDEXED:
        raise not_implemented(f"Indexed Jobs of more than {_MAX_INDEXED} completions")
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", _MAX_INT if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    replaced = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    spec.setdefault("podReplacementPolicy", replaced)
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        for pattern in rule.get("onPodConditions", []):
            pattern.setdefault("status", "True")
    template = spec.setdefault("template", {})
    labels = template.setdefault("metadata", {}).get("labels")
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)
    pods.set_template_defaults(template.setdefault("spec", {}))


def _validate_hostname(obj: Object) -> Iterator[Cause]:
    """The name of an Indexed Job becomes a host name with the largest index behind it."""
    spec, name = obj["spec"], obj["metadata"]["name"]
    if spec["completionMode"] == "Indexed" and spec.get("completions"):
        longest = f"{name}-{spec['completions'] - 1}"
        for cause in check.dns_label("metadata.name", longest):
            why = f"will not able to create pod with invalid DNS label: {longest}"
            yield Cause(cause.reason, cause.field, f"Invalid value: {_quoted(name)}: {why}")


def _quoted(text: str) -> str:
    return f'"{text}"'


def _validate(spec: dict[str, Any]) -> Iterator[Cause]:
    for name in _COUNTS:
        if spec.get(name, 0) < 0:
            yield invalid_value(f"spec.{name}", spec[name], _NOT_NEGATIVE)
    indexed = spec["completionMode"] == "Indexed"
    if spec["completionMode"] not in ("Indexed", "NonIndexed"):
        known = ("Indexed", "NonIndexed")
        yield not_supported("spec.completionMode", spec["completionMode"], known)
    if indexed:
        if "completions" not in spec:
            yield required("spec.completions", "when completion mode is Indexed")
        if spec["parallelism"] > _MAX_INDEXED:
            why = f"must be less than or equal to {_MAX_INDEXED} when completion mode is Indexed"
            yield invalid_value("spec.parallelism", spec["parallelism"], why)
    yield from _validate_per_index(spec, indexed)
    yield from _validate_success_policy(spec, indexed)
    yield from _validate_failure_policy(spec)
    yield from _validate_template(spec["template"])


def _validate_per_index(spec: dict[str, Any], indexed: bool) -> Iterator[Cause]:
    if "backoffLimitPerIndex" in spec and not indexed:
        yield invalid_value(
            "spec.backoffLimitPerIndex", spec["backoffLimitPerIndex"], _NEEDS_INDEXES
        )
    limit = spec.get("maxFailedIndexes")
    if limit is None:
        return
    if "backoffLimitPerIndex" not in spec:
        yield required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if limit > spec.get("completions", _MAX_INT):
        yield invalid_value(
            "spec.maxFailedIndexes", limit, "must be less than or equal to completions"
        )


def _validate_success_policy(spec: dict[str, Any], indexed: bool) -> Iterator[Cause]:
    policy = spec.get("successPolicy")
    if policy is None:
        return
    field, rules = "spec.successPolicy", policy.get("rules", [])
    if not indexed:
        yield invalid_value(field, policy, _NEEDS_INDEXES)
        return
    if not rules:
        yield required(f"{field}.rules", "at least one rules must be specified")
    elif len(rules) > _MAX_RULES:
        yield Cause(
            "FieldValueTooMany",
            f"{field}.rules",
            f"Too many: {len(rules)}: must have at most {_MAX_RULES} items",
        )
    for i, rule in enumerate(rules):
        place = f"{field}.rules[{i}]"
        indexes, count = rule.get("succeededIndexes"), rule.get("succeededCount")
        if indexes is None and count is None:
            yield required(
                place, "at least one of succeededCount or succeededIndexes must be given"
            )
        total = spec.get("completions", 0)
        if indexes is not None:
            try:
                total = len(parse_indexes(indexes, total))
            except ValueError as error:
                why = f"error parsing succeededIndexes: {error}"
                yield invalid_value(f"{place}.succeededIndexes", indexes, why)
        if count is not None and not 0 <= count <= total:
            why = f"must be less than or equal to {total}" if count > 0 else _NOT_NEGATIVE
            yield invalid_value(f"{place}.succeededCount", count, why)


def _validate_failure_policy(spec: dict[str, Any]) -> Iterator[Cause]:
    policy = spec.get("podFailurePolicy")
    known = ("Failed", "TerminatingOrFailed")
    if spec["podReplacementPolicy"] not in known:
        yield not_supported("spec.podReplacementPolicy", spec["podReplacementPolicy"], known)
    if policy is None:
        return
    if spec["podReplacementPolicy"] != "Failed":
        yield not_supported("spec.podReplacementPolicy", spec["podReplacementPolicy"], ("Failed",))
    template = spec["template"].get("spec", {})
    if template.get("restartPolicy") != "Never":
        yield invalid_value(
            "spec.template.spec.restartPolicy",
            template.get("restartPolicy"),
            'only "Never" is supported when podFailurePolicy is specified',
        )
    kinds = ("initContainers", "containers")
    names = {c.get("name") for kind in kinds for c in template.get(kind, [])}
    for i, rule in enumerate(policy.get("rules", [])):
        field = f"spec.podFailurePolicy.rules[{i}]"
        yield from _validate_rule(field, rule, spec, names)


def _validate_rule(
    field: str, rule: dict[str, Any], spec: dict[str, Any], names: set[Any]
) -> Iterator[Cause]:
    action = rule.get("action")
    if action == "FailIndex" and "backoffLimitPerIndex" not in spec:
        why = "requires the backoffLimitPerIndex to be set"
        yield invalid_value(f"{field}.action", action, why)
    actions = frozenset({"Count", "FailIndex", "FailJob", "Ignore"})
    yield from check.one_of(f"{field}.action", action, actions)
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
    if codes is not None and conditions:
        why = "specifying both OnExitCodes and OnPodConditions is not supported"
        yield forbidden_field(field, why)
    elif codes is None and not conditions:
        yield required(field, "specifying one of OnExitCodes and OnPodConditions is required")
    if codes is not None:
        place = f"{field}.onExitCodes"
        operator, values = codes.get("operator"), codes.get("values", [])
        yield from check.one_of(f"{place}.operator", operator, frozenset({"In", "NotIn"}))
        if codes.get("containerName") and codes["containerName"] not in names:
            why = "must be one of the container or initContainer names in the pod template"
            yield invalid_value(f"{place}.containerName", codes["containerName"], why)
        if not values:
            yield invalid_value(f"{place}.values", values, "at least one value is required")
        if operator == "In" and 0 in values:
            k = values.index(0)
            yield invalid_value(f"{place}.values[{k}]", 0, "must not be 0 for the In operator")
        if values != sorted(set(values)):
            yield invalid_value(f"{place}.values", values, "must be ordered")
    statuses = frozenset({"False", "True", "Unknown"})
    for k, pattern in enumerate(conditions or []):
        place = f"{field}.onPodConditions[{k}]"
        yield from check.qualified_name(f"{place}.type", pattern.get("type", ""))
        yield from check.one_of(f"{place}.status", pattern.get("status"), statuses)


def _validate_template(template: dict[str, Any]) -> Iterator[Cause]:
    labels = template.get("metadata", {}).get("labels", {})
    yield from check.labels("spec.template.metadata.labels", labels)
    for cause in pod_validation.validate(template["spec"]):
        yield Cause(cause.reason, f"spec.template.{cause.field}", cause.message)
    policy = template["spec"].get("restartPolicy")
    if policy == "Always":
        yield required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')


def _validate_changes(spec: dict[str, Any], old: Object) -> Iterator[Cause]:
    before = old["spec"]
    for name in _IMMUTABLE:
        if spec.get(name) != before.get(name):
            yield invalid_value(f"spec.{name}", spec.get(name), _FIXED)
    if spec.get("completions") != before.get("completions"):
        # An Indexed Job may grow and shrink as one.
        elastic = spec["completionMode"] == "Indexed" and "completions" in spec
        if not elastic or spec["completions"] != spec["parallelism"]:
            yield invalid_value("spec.completions", spec.get("completions"), _FIXED)
    # While it waits for a queue, somebody may still say where its pods go.
    waits = before.get("suspend") and not old.get("status", {}).get("startTime")
    if _fixed(spec["template"], waits) != _fixed(before["template"], waits):
        yield invalid_value("spec.template", spec["template"], _FIXED)


def _fixed(template: dict[str, Any], waits: Any) -> Any:
    if not waits:
        return template
    free = ("nodeSelector", "tolerations", "schedulingGates", "affinity")
    return {k: v for k, v in template.get("spec", {}).items() if k not in free}
