"""The pods that a Job creates."""

from __future__ import annotations

import copy

from ...client import Obj
from .policies import INDEX, INDEX_FAILURES, INDEX_IGNORED, TRACKING, index_failures, judge

_PREFIX_CHARS = 58  # of a generated name, which gets five random characters
_INDEX_ENV = "JOB_COMPLETION_INDEX"


def pod_for(job: Obj, index: int | None, replaced: Obj | None = None) -> Obj:
    """A pod of the Job's template; `replaced` is the failed pod of the same index."""
    template = copy.deepcopy(job["spec"]["template"])
    given, name = template.get("metadata", {}), job["metadata"]["name"]
    suffix = "-" if index is None else f"-{index}-"
    meta = {
        "generateName": name[: _PREFIX_CHARS - len(suffix)] + suffix,
        "labels": dict(given.get("labels", {})),
        "annotations": dict(given.get("annotations", {})),
        "finalizers": [*given.get("finalizers", []), TRACKING],
        "ownerReferences": [owner_reference(job)],
    }
    spec = template["spec"]
    if index is not None:
        meta["labels"][INDEX] = meta["annotations"][INDEX] = str(index)
        spec.setdefault("hostname", f"{name}-{index}")
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            _tell_index(container)
        if "backoffLimitPerIndex" in job["spec"]:
            meta["annotations"] |= _failures(job, replaced)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def owner_reference(job: Obj) -> Obj:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _tell_index(container: Obj) -> None:
    env = container.setdefault("env", [])
    if all(item["name"] != _INDEX_ENV for item in env):
        field = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
        env.append({"name": _INDEX_ENV, "valueFrom": field})


def _failures(job: Obj, replaced: Obj | None) -> Obj:
    counted, ignored = index_failures(replaced) if replaced else (0, 0)
    if replaced is not None:
        if judge(job, replaced).counts:
            counted += 1
        else:
            ignored += 1
    notes = {INDEX_FAILURES: str(counted)}
    return {**notes, INDEX_IGNORED: str(ignored)} if ignored else notes
