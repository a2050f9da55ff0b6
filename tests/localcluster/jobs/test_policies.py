"""The rules of a Job: what counts as a failure, when it has enough, when its time is over."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.localcluster.support import NAMESPACE, Cluster, first_line, indexed, job

from .support import Obj, conditions, ended, pods_of, run, running, until_pods

ODD_FAILS = "exit $((JOB_COMPLETION_INDEX % 2))"


def rule(action: str, *codes: int, **more: Any) -> Obj:
    given = {"onExitCodes": {"operator": "In", "values": list(codes)}} if codes else {}
    return {"action": action, **given, **more}


def policy(*rules: Obj) -> Obj:
    return {"podFailurePolicy": {"rules": list(rules)}}


async def test_an_exit_code_can_fail_the_job_at_once(cluster: Cluster) -> None:
    body = indexed("j", "exit 42", 1, backoffLimit=6, **policy(rule("FailJob", 42)))
    done = await run(cluster, body)
    assert conditions(done)["Failed"] == "PodFailurePolicy"
    message = done["status"]["conditions"][-1]["message"]
    [pod] = await pods_of(cluster, "j")
    assert message == (
        f"Container c for pod default/{pod['metadata']['name']} failed with exit code 42 matching "
        "FailJob rule at index 0"
    )


async def test_an_ignored_exit_code_is_tried_again_without_counting(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = f"mkdir {tmp_path}/a && exit 9; mkdir {tmp_path}/b && exit 9; exit 0"
    body = job("j", script, backoffLimit=0, **policy(rule("Ignore", 9)))
    done = await run(cluster, body)
    assert "Complete" in conditions(done)
    assert "failed" not in done["status"]
    assert len(await pods_of(cluster, "j")) == 3


async def test_an_evicted_pod_can_be_told_from_a_failing_script(cluster: Cluster) -> None:
    pattern = {"type": "DisruptionTarget", "status": "True"}
    rules = policy(rule("Ignore", onPodConditions=[pattern]), rule("FailJob", 1))
    await cluster.create(indexed("j", "sleep 60", 1, template={"tolerations": []}, **rules))
    [pod] = await until_pods(cluster, "j", running(1))
    taint = {"spec": {"taints": [{"key": "broken", "effect": "NoExecute"}]}}
    await cluster.client.patch("nodes", "node-0", taint)
    first = pod["metadata"]["name"]
    await until_pods(cluster, "j", lambda pods: first not in [p["metadata"]["name"] for p in pods])
    [second] = await until_pods(cluster, "j", lambda pods: len(pods) == 1)
    assert second["metadata"]["name"] != first
    await cluster.client.patch("nodes", "node-0", {"spec": {"taints": None}})
    await until_pods(cluster, "j", running(1))
    found = await cluster.client.get("jobs", "j", NAMESPACE)
    assert (found["status"]["active"], found["status"].get("failed")) == (1, None)


async def test_indexes_fail_on_their_own(cluster: Cluster) -> None:
    body = indexed("j", ODD_FAILS, 4, backoffLimitPerIndex=1)
    del body["spec"]["backoffLimit"]
    done = await run(cluster, body)
    status = done["status"]
    assert conditions(done)["Failed"] == "FailedIndexes"
    assert (status["completedIndexes"], status["failedIndexes"]) == ("0,2", "1,3")
    assert (status["succeeded"], status["failed"]) == (2, 4)
    notes = [p["metadata"]["annotations"] for p in await pods_of(cluster, "j")]
    key = "batch.kubernetes.io/job-index-failure-count"
    assert sorted(note[key] for note in notes) == ["0"] * 4 + ["1"] * 2


async def test_too_many_failed_indexes_end_the_job(cluster: Cluster) -> None:
    script = "[ $JOB_COMPLETION_INDEX = 0 ] && exec sleep 60; exit 1"
    limits = {"backoffLimit": 9, "backoffLimitPerIndex": 0, "maxFailedIndexes": 1}
    body = indexed("j", script, 4, **limits)
    done = await run(cluster, body)
    assert conditions(done)["Failed"] == "MaxFailedIndexesExceeded"


async def test_an_exit_code_can_fail_only_its_index(cluster: Cluster) -> None:
    rules = policy(rule("FailIndex", 1))
    body = indexed("j", ODD_FAILS, 2, backoffLimitPerIndex=5, **rules)
    done = await run(cluster, body)
    assert done["status"]["failedIndexes"] == "1"
    assert len(await pods_of(cluster, "j")) == 2


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{"succeededIndexes": "0"}], "Matched rules at index 0"),
        ([{"succeededIndexes": "1-2"}, {"succeededCount": 1}], "Matched rules at index 1"),
    ],
)
async def test_a_job_that_has_enough_ends_its_other_pods(
    cluster: Cluster, rules: list[Obj], message: str
) -> None:
    script = "[ $JOB_COMPLETION_INDEX = 0 ] && exit 0; exec sleep 60"
    done = await run(cluster, indexed("j", script, 3, successPolicy={"rules": rules}))
    assert conditions(done) == dict.fromkeys(("SuccessCriteriaMet", "Complete"), "SuccessPolicy")
    assert done["status"]["conditions"][-1]["message"] == message
    assert (done["status"]["succeeded"], done["status"].get("failed")) == (1, None)
    [pod] = await until_pods(cluster, "j", lambda pods: len(pods) == 1)
    assert pod["status"]["phase"] == "Succeeded"


async def test_a_job_that_takes_too_long_is_ended(cluster: Cluster) -> None:
    done = await run(cluster, job("j", "exec sleep 60", activeDeadlineSeconds=1))
    assert conditions(done)["Failed"] == "DeadlineExceeded"
    await until_pods(cluster, "j", lambda pods: not pods)


async def test_a_finished_job_goes_away_with_its_pods(cluster: Cluster) -> None:
    await cluster.create(job("j", "true", ttlSecondsAfterFinished=0))
    jobs = await cluster.informer("jobs")
    async with asyncio.timeout(15):
        while not jobs.store:
            await asyncio.sleep(0.01)
        while jobs.store:
            await asyncio.sleep(0.01)
    assert await pods_of(cluster, "j") == []


async def test_a_suspended_job_has_no_pods_and_starts_anew_when_resumed(cluster: Cluster) -> None:
    await cluster.create(job("j", "exec sleep 60", suspend=True))

    def suspended(found: Obj) -> bool:
        return conditions(found).get("Suspended") == "JobSuspended"

    found = await cluster.until("j", suspended, resource="jobs")
    assert await pods_of(cluster, "j") == []
    assert "startTime" not in found["status"]
    await suspend(cluster, False)
    await until_pods(cluster, "j", running(1))
    await suspend(cluster, True)
    await until_pods(cluster, "j", lambda pods: not pods)
    found = await cluster.until("j", suspended, resource="jobs")
    assert {"failed", "active"}.isdisjoint(found["status"])  # its pods did not fail
    before = datetime.fromisoformat(found["status"]["startTime"])
    await suspend(cluster, False)
    found = await cluster.until("j", lambda j: not suspended(j), resource="jobs")
    assert datetime.fromisoformat(found["status"]["startTime"]) >= before
    assert (await cluster.event("j", "Resumed"))["message"] == "Job resumed"


async def suspend(cluster: Cluster, value: bool) -> None:
    await cluster.client.patch("jobs", "j", {"spec": {"suspend": value}}, NAMESPACE)


async def test_a_pod_that_restarts_its_containers_uses_up_the_limit(cluster: Cluster) -> None:
    body = job("j", "exit 1", backoffLimit=1, template={"restartPolicy": "OnFailure"})
    done = await run(cluster, body)
    assert conditions(done)["Failed"] == "BackoffLimitExceeded"
    await until_pods(cluster, "j", lambda pods: not pods)


async def test_a_pod_is_replaced_only_after_its_end_if_so_asked(
    cluster: Cluster, tmp_path: Path
) -> None:
    end = f"until [ -e {tmp_path}/go ]; do sleep 0.02; done; sleep 0.7; exit 1"
    script = f"trap '{end}' TERM; echo up; while :; do sleep 0.02; done"
    body = indexed("j", script, 1, backoffLimit=6, podReplacementPolicy="Failed")
    await cluster.create(body)
    [first] = await until_pods(cluster, "j", running(1))
    await first_line(cluster, first["metadata"]["name"])
    seen: set[int] = set()
    pods = await cluster.informer("pods")

    def count(_old: Obj | None, _new: Obj | None) -> None:
        phases = [p["status"]["phase"] for p in pods.store.values()]
        seen.add(sum(phase in ("Pending", "Running") for phase in phases))

    pods.handlers.append(count)
    await cluster.delete(first["metadata"]["name"])
    found = await cluster.until("j", lambda j: j["status"].get("terminating"), resource="jobs")
    assert found["status"].get("active") is None
    (tmp_path / "go").touch()
    await until_pods(
        cluster,
        "j",
        lambda now: running(1)(now) and first["metadata"]["uid"] != now[0]["metadata"]["uid"],
    )
    assert seen <= {0, 1}


async def test_a_pod_that_is_deleted_by_force_still_counts(cluster: Cluster) -> None:
    await cluster.create(job("j", "exec sleep 60", backoffLimit=0))
    [pod] = await until_pods(cluster, "j", running(1))
    await cluster.delete(pod["metadata"]["name"], grace=0)
    done = await cluster.until("j", ended, resource="jobs")
    assert done["status"]["failed"] == 1
    assert conditions(done)["Failed"] == "BackoffLimitExceeded"


async def test_a_pod_that_never_got_a_node_can_be_deleted(cluster: Cluster) -> None:
    nowhere = {"nodeSelector": {"no": "where"}}
    rules = policy(rule("FailJob", 1))  # with such a policy only ended pods are replaced
    await cluster.create(job("j", "true", backoffLimit=6, template=nowhere, **rules))
    [pod] = await until_pods(cluster, "j", lambda pods: len(pods) == 1)
    await cluster.delete(pod["metadata"]["name"])
    found = await cluster.until("j", lambda j: j["status"].get("failed") == 1, resource="jobs")
    assert not ended(found)
    uid = pod["metadata"]["uid"]
    await until_pods(cluster, "j", lambda pods: [p["metadata"]["uid"] for p in pods] != [uid])


async def test_a_job_of_any_number_runs_until_one_pod_has_succeeded(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = f"mkdir {tmp_path}/first && exit 0; sleep 0.3; exit 0"
    body = job("queue", script, parallelism=3)
    done = await run(cluster, body)
    assert "Complete" in conditions(done)
    assert done["status"]["succeeded"] == 3


async def test_more_pods_than_run_at_once_follow_one_another(cluster: Cluster) -> None:
    body = indexed("j", "true", 5, parallelism=2)
    seen: list[int] = []
    jobs = await cluster.informer("jobs")
    jobs.handlers.append(
        lambda old, new: seen.append(new["status"].get("active", 0)) if new else None
    )
    done = await run(cluster, body)
    assert done["status"]["completedIndexes"] == "0-4"
    assert max(seen) == 2
    assert len(await pods_of(cluster, "j")) == 5


async def test_a_job_that_needs_gpus_waits_for_them(cluster: Cluster) -> None:
    wants = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    containers = job("x", "exec sleep 0.1")["spec"]["template"]["spec"]["containers"]
    template = {"containers": [{**containers[0], **wants}]}
    done = await run(cluster, indexed("j", "", 3, template=template))  # of two GPUs
    assert done["status"]["succeeded"] == 3
