"""Jobs at the API server alone: defaults, refusals, what may change, how they are deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.localcluster.apiserver.conftest import TABLE, Api
from tests.localcluster.support import Obj, indexed, job

JOBS = "/apis/batch/v1/namespaces/default/jobs"


async def create(api: Api, body: Obj) -> Obj:
    made: Obj = await api.ok("POST", JOBS, body)
    return made


async def test_a_job_gets_the_defaults_of_kubernetes(api: Api) -> None:
    pods = {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never"}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pods}
    made = await create(api, {"metadata": {"name": "j"}, "spec": {"template": template}})
    spec, uid = made["spec"], made["metadata"]["uid"]
    assert {k: v for k, v in spec.items() if k not in ("template", "selector")} == {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "manualSelector": False,
        "podReplacementPolicy": "TerminatingOrFailed",
    }
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert made["metadata"]["labels"] == {"a": "b"}  # the template's, where it has none
    assert spec["template"]["spec"]["containers"][0]["terminationMessagePolicy"] == "File"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"parallelism": -1}, "spec.parallelism: Invalid value: -1: must be greater than or equal"),
        ({"backoffLimit": -1}, "spec.backoffLimit: Invalid value: -1"),
        ({"completionMode": "Odd"}, 'spec.completionMode: Unsupported value: "Odd"'),
        (
            {"completionMode": "Indexed"},
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            {"backoffLimitPerIndex": 1},
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        ),
        ({"maxFailedIndexes": 1}, "spec.backoffLimitPerIndex: Required value"),
        ({"successPolicy": {"rules": [{"succeededCount": 1}]}}, "requires indexed completion mode"),
        ({"podReplacementPolicy": "Never"}, "spec.podReplacementPolicy: Unsupported value"),
        (
            {"podFailurePolicy": {"rules": [{"action": "FailJob"}]}},
            "specifying one of OnExitCodes and OnPodConditions is required",
        ),
        (
            {
                "podFailurePolicy": {
                    "rules": [
                        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [0, 1]}}
                    ]
                }
            },
            "must not be 0 for the In operator",
        ),
    ],
)
async def test_a_wrong_job_is_refused_with_what_is_wrong(api: Api, spec: Obj, message: str) -> None:
    body = job("j", "true")
    if spec.get("completionMode") == "Indexed":
        body["spec"]["parallelism"] = 1
    body["spec"] |= spec
    status, answer = await api.call("POST", JOBS, body)
    assert (status, answer["reason"]) == (422, "Invalid")
    assert message in answer["message"]


@pytest.mark.parametrize("text", ["1-0", "0,0", "7", "a", "0-", "-1", "1,,2", "0-9"])
async def test_indexes_that_are_none_are_refused(api: Api, text: str) -> None:
    body = indexed("j", "true", 3, successPolicy={"rules": [{"succeededIndexes": text}]})
    status, answer = await api.call("POST", JOBS, body)
    assert (status, answer["reason"]) == (422, "Invalid")
    assert "error parsing succeededIndexes" in answer["message"]


async def test_a_pod_template_is_judged_as_a_pod(api: Api) -> None:
    body = job("j", "true", template={"restartPolicy": "Always", "subdomain": "No"})
    status, answer = await api.call("POST", JOBS, body)
    assert status == 422
    fields = {c["field"] for c in answer["details"]["causes"]}
    assert fields == {"spec.template.spec.restartPolicy", "spec.template.spec.subdomain"}
    assert 'Required value: valid values: "OnFailure", "Never"' in answer["message"]


async def test_a_name_that_is_too_long_for_its_pods_is_refused(api: Api) -> None:
    status, answer = await api.call("POST", JOBS, indexed("j" * 62, "true", 10))
    assert status == 422
    assert "will not able to create pod with invalid DNS label" in answer["message"]
    await create(api, indexed("j" * 61, "true", 10))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"completions": 5}, "spec.completions"),
        ({"completionMode": "NonIndexed"}, "spec.completionMode"),
        ({"template": {"spec": {"subdomain": "other"}}}, "spec.template"),
        ({"selector": {"matchLabels": {"a": "b"}}}, "spec.selector"),
    ],
)
async def test_what_a_job_is_cannot_change(api: Api, change: Obj, field: str) -> None:
    await create(api, indexed("j", "true", 3))
    kind = "application/merge-patch+json"
    status, answer = await api.call("PATCH", f"{JOBS}/j", {"spec": change}, kind=kind)
    assert status == 422, answer
    assert field in {c["field"] for c in answer["details"]["causes"]}
    assert "field is immutable" in answer["message"]


async def test_an_indexed_job_grows_as_a_whole(api: Api) -> None:
    made = await create(api, indexed("j", "true", 3))
    changed = await api.patch(f"{JOBS}/j", {"spec": {"completions": 5, "parallelism": 5}})
    assert changed["metadata"]["generation"] == made["metadata"]["generation"] + 1


async def test_a_waiting_job_can_still_be_told_where_to_run(api: Api) -> None:
    await create(api, job("j", "true", suspend=True))
    place = {"spec": {"template": {"spec": {"nodeSelector": {"gpu": "a100"}}}}}
    changed = await api.patch(f"{JOBS}/j", place)
    assert changed["spec"]["template"]["spec"]["nodeSelector"] == {"gpu": "a100"}


async def test_who_deletes_a_job_without_a_policy_is_warned(api: Api) -> None:
    await create(api, job("j", "true"))
    left = await api.ok("DELETE", f"{JOBS}/j")
    assert left["metadata"]["finalizers"] == ["orphan"]
    assert "child pods are preserved by default" in api.headers["Warning"]
    await create(api, job("k", "true"))
    answer = await api.ok("DELETE", f"{JOBS}/k", {"propagationPolicy": "Background"})
    assert "Warning" not in api.headers
    assert answer["details"] == {
        "name": "k",
        "group": "batch",
        "kind": "jobs",
        "uid": answer["details"]["uid"],
    }


async def test_a_status_is_written_apart(api: Api) -> None:
    made = await create(api, job("j", "true"))
    changed = {**made, "status": {"succeeded": 1}}
    assert (await api.ok("PUT", f"{JOBS}/j", changed))["status"] == {}
    stored = await api.ok("GET", f"{JOBS}/j")
    stored["spec"]["parallelism"], stored["status"] = 7, {"succeeded": 1}
    answer = await api.ok("PUT", f"{JOBS}/j/status", stored)
    assert (answer["status"], answer["spec"]["parallelism"]) == ({"succeeded": 1}, 1)
    assert await api.names(JOBS, fieldSelector="status.successful=1") == ["j"]


@pytest.mark.parametrize(
    ("spec", "status", "cells"),
    [
        ({}, {}, ["Running", "0/1", ""]),
        ({"completions": 3}, {"succeeded": 2}, ["Running", "2/3", ""]),
        ({"parallelism": 2}, {"succeeded": 1}, ["Running", "1/1 of 2", ""]),
        (
            {},
            {
                "succeeded": 1,
                "startTime": "2026-11-23T07:30:00Z",
                "completionTime": "2026-11-23T07:31:30Z",
                "conditions": [
                    {"type": "SuccessCriteriaMet", "status": "True"},
                    {"type": "Complete", "status": "True"},
                ],
            },
            ["Complete", "1/1", "90s"],
        ),
        ({}, {"conditions": [{"type": "Suspended", "status": "True"}]}, ["Suspended", "0/1", ""]),
        (
            {},
            {"conditions": [{"type": "FailureTarget", "status": "True"}]},
            ["FailureTarget", "0/1", ""],
        ),
    ],
)
async def test_the_columns_of_a_job(api: Api, spec: Obj, status: Obj, cells: list[Any]) -> None:
    await create(api, job("j", "true", **spec))
    await api.patch(f"{JOBS}/j/status", {"status": status})
    found = await api.ok("GET", JOBS, accept=TABLE)
    names = [(c["name"], c["priority"]) for c in found["columnDefinitions"]]
    assert names == [
        *((name, 0) for name in ("Name", "Status", "Completions", "Duration", "Age")),
        *((name, 1) for name in ("Containers", "Images", "Selector")),
    ]
    row = found["rows"][0]["cells"]
    assert (row[0], row[1:4], row[5:7]) == ("j", cells, ["c", "busybox:1"])


async def test_jobs_are_watched(api: Api) -> None:
    version = (await api.ok("GET", JOBS))["metadata"]["resourceVersion"]
    async with api.watch(JOBS, resourceVersion=version) as watch:
        await create(api, job("j", "true"))
        event = await watch.next()
        assert (event["type"], event["object"]["kind"]) == ("ADDED", "Job")
        assert event["object"]["apiVersion"] == "batch/v1"


async def test_what_of_jobs_is_not_there_says_so(api: Api) -> None:
    status, answer = await api.call("GET", "/apis/batch/v1/namespaces/default/cronjobs")
    assert (status, "cronjobs of batch/v1" in answer["message"]) == (501, True)
    status, answer = await api.call("POST", JOBS, job("j", "true", manualSelector=True))
    assert (status, "spec.manualSelector" in answer["message"]) == (501, True)
    body = indexed("j", "true", 2**31 - 1, parallelism=1)
    status, answer = await api.call("POST", JOBS, body)
    assert (status, "more than 100000 completions" in answer["message"]) == (501, True)


async def test_a_body_of_the_wrong_shape_is_a_400(api: Api) -> None:
    wrong: list[Obj] = [{"completions": "2"}, {"template": []}]
    for spec in [*wrong, {"podFailurePolicy": {"rules": {}}}]:
        status, answer = await api.call("POST", JOBS, {"metadata": {"name": "j"}, "spec": spec})
        assert status == 400, answer
    for body in ({"metadata": {"name": "j"}}, {"metadata": {"name": "j"}, "spec": {}}):
        status, answer = await api.call("POST", JOBS, body)
        assert status == 422, json.dumps(answer)
