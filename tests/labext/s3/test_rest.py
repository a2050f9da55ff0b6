"""`api/s3` of a user's server, and `%gpucloud s3` in one of its kernels."""

from __future__ import annotations

from pathlib import Path

from tests.labext.lab import SERVICE_TOKEN, Service, running

from .conftest import Pod


def printed(messages: list[tuple[str, dict[str, str]]]) -> str:
    return "".join(content["text"] for kind, content in messages if kind == "stream")


async def test_a_servers_answers_and_its_kernels_words(pod: Pod, tmp_path: Path) -> None:
    keys = pod.keys
    data = {
        "user": "ada",
        "endpoint": keys.endpoint,
        "region": keys.region,
        "bucket": keys.bucket,
        "team_buckets": dict(keys.team_buckets),
        "usage": {"bytes": 3 * 2**30, "objects": 12, "quota_bytes": 4 * 2**30},
        "message": None,
    }
    with Service() as service:
        secret = {"access_key": "GCNEW", "secret_key": "never-told"}
        service.answers = {"api/s3": (200, data), "api/s3/credentials": (201, secret)}
        environment = pod.environment() | {
            "GPUCLOUD_API_URL": service.url,
            "JUPYTERHUB_API_TOKEN": SERVICE_TOKEN,
        }
        with running(tmp_path, environment) as lab:
            assert lab.api("s3").json() == data
            answer = lab.api("s3/credentials", "POST", json={})
            assert (answer.status_code, answer.json()) == (201, {"access_key": "GCNEW"})
            refused = lab.api("s3/credentials", "POST", json={"user": "bob"})
            assert (refused.status_code, refused.json()["code"]) == (400, "unknown_field")
            with lab.kernel() as kernel:
                told = printed(kernel.run("print(get_ipython().run_line_magic('gpucloud', 's3'))"))
                assert "3.0 GiB in 12 objects, 75 % of 4.0 GiB" in told
                assert "team-vision" in told and "hidden: add --show-secret" in told
                assert keys.secret_key not in told
                assert keys.access_key in told
                show = "get_ipython().run_line_magic('gpucloud', 's3 --show-secret')"
                told = printed(kernel.run(f"r = {show}; print(r)"))
                assert f"aws_secret_access_key {keys.secret_key}" in told
                assert "Clear this output" in told
                told = printed(kernel.run("print(r.data, r.bucket)"))
                assert keys.secret_key not in told
                assert keys.bucket in told
                service.answers["api/s3"] = (
                    404,
                    {"code": "s3_off", "message": "This site has no S3 storage.", "details": {}},
                )
                kinds = kernel.run("%gpucloud s3")
                assert "This site has no S3 storage." in repr(kinds)
