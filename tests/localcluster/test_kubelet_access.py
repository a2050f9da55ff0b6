"""Who may read logs from a kubelet: the local API server by token, a real one by certificate."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from gpucloud_spawner.localcluster.client import KubeClient
from gpucloud_spawner.localcluster.kubelet.server import Server


class Authority:
    """A CA and the client certificates that it signs."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = directory / f"{name}.crt"
        self.file.write_bytes(self._sign(self._key, [(NameOID.COMMON_NAME, name)], ca=True))

    def _sign(
        self, key: ec.EllipticCurvePrivateKey, subject: list[tuple[Any, str]], ca: bool = False
    ) -> bytes:
        now = datetime.now(UTC)
        names = x509.Name([x509.NameAttribute(*part) for part in subject])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(names)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)

    def client(self, user: str, group: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [(NameOID.ORGANIZATION_NAME, group), (NameOID.COMMON_NAME, user)]
        file = self.directory / f"{self.name}-{user}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(self._sign(key, subject) + private)
        context = _anybody()
        context.load_cert_chain(file)
        return context


def _anybody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class RealAPI:
    """As much of another API server as the kubelet asks: it has no kubelet-api Secret, and answers
    whether somebody may use nodes/proxy."""

    def __init__(self) -> None:
        self.reviews: list[dict[str, Any]] = []
        self.app = web.Application()
        self.app.router.add_post("/apis/authorization.k8s.io/v1/subjectaccessreviews", self._review)
        self.app.router.add_get("/api/v1/namespaces/kube-system/secrets/{name}", self._secret)

    async def _review(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.reviews.append(review["spec"])
        allowed = "kubeadm:cluster-admins" in review["spec"]["groups"]
        return web.json_response({**review, "status": {"allowed": allowed}}, status=201)

    async def _secret(self, request: web.Request) -> web.Response:
        status = {"kind": "Status", "reason": "NotFound", "message": "not found", "code": 404}
        return web.json_response(status, status=404)


@pytest.fixture
async def real() -> AsyncIterator[tuple[RealAPI, str]]:
    api = RealAPI()
    async with TestServer(api.app) as server:
        yield api, str(server.make_url("/")).rstrip("/")


def kubeconfig(path: Path, url: str) -> str:
    parts = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "current-context": "x", **parts}))
    return str(path)


async def _get(url: str, context: ssl.SSLContext, **headers: str) -> int:
    connector = aiohttp.TCPConnector(ssl=context)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url, headers=headers) as response,
    ):
        return response.status


async def test_certificates_of_a_real_api_server(real: tuple[RealAPI, str], tmp_path: Path) -> None:
    api, url = real
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    async with (
        KubeClient.from_kubeconfig(kubeconfig(tmp_path / "config", url)) as client,
        Server(client, tmp_path, lambda namespace, name: None, ours.file) as server,
    ):
        await server.start(["127.0.0.1"])
        logs = f"https://127.0.0.1:{server.port}/containerLogs/default/p/c"
        apiserver = ours.client("kube-apiserver-kubelet-client", "kubeadm:cluster-admins")
        for _ in range(2):
            assert await _get(logs, apiserver) == 404  # let in: there is no such pod
        assert api.reviews == [
            {
                "user": "kube-apiserver-kubelet-client",
                "groups": ["kubeadm:cluster-admins", "system:authenticated"],
                "resourceAttributes": {"verb": "get", "resource": "nodes", "subresource": "proxy"},
            }
        ]
        # The cluster's CA signs everybody's certificates: who shows one is not yet an API server.
        assert await _get(logs, ours.client("jane", "developers")) == 403
        assert await _get(logs, _anybody()) == 401
        assert await _get(logs, _anybody(), Authorization="Bearer ") == 401
        with pytest.raises(aiohttp.ClientError):
            await _get(logs, others.client("system:admin", "kubeadm:cluster-admins"))


async def test_without_a_ca_no_certificate_counts(
    real: tuple[RealAPI, str], tmp_path: Path
) -> None:
    api, url = real
    ours = Authority(tmp_path, "ours")
    async with (
        KubeClient.from_kubeconfig(kubeconfig(tmp_path / "config", url)) as client,
        Server(client, tmp_path, lambda namespace, name: None) as server,
    ):
        await server.start(["127.0.0.1"])
        logs = f"https://127.0.0.1:{server.port}/containerLogs/default/p/c"
        assert await _get(logs, ours.client("x", "kubeadm:cluster-admins")) == 401
    assert api.reviews == []
