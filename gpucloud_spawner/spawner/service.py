"""The service `gpucloud` in the hub's configuration: how it is started, and who may use it.

What the service does is in `portal`, which this room does not know.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jupyterhub import orm
from sqlalchemy.orm import object_session

SERVICE = "gpucloud"
ACCESS_SCOPE = f"access:services!service={SERVICE}"
ADMIN_SCOPE = "custom:gpucloud:admin"
DEFAULT_PORT = 8000


def add_service(c: Any) -> None:
    """Declare the service, its roles and who may use it, in the configuration ``c``.

    The hub starts it, unless GPUCLOUD_SERVICE_URL says where it runs on its own; then both know its
    token from GPUCLOUD_SERVICE_TOKEN.
    """
    hub = c.JupyterHub
    hub.custom_scopes.update(
        {ADMIN_SCOPE: {"description": "See all usage of gpucloud, set prices, enter corrections."}}
    )
    hub.extra_user_scopes.update({ACCESS_SCOPE})
    c.GPUCloudSpawner.server_token_scopes = server_token_scopes
    # groups: who is in a team, and who may see all of its use; names: whose jobs are nobody's
    scopes = ["list:groups", "read:groups", "read:users:name"]
    hub.load_roles.append({"name": SERVICE, "services": [SERVICE], "scopes": scopes})
    external = os.environ.get("GPUCLOUD_SERVICE_URL")
    hub.services.append(
        {
            "name": SERVICE,
            # a browser's session holds no more than what decides about an administrator
            "oauth_client_allowed_scopes": [ADMIN_SCOPE, "admin:users"],
            "oauth_no_confirm": True,
            **(_external(external) if external else _managed()),
        }
    )


def _external(url: str) -> dict[str, Any]:
    token = os.environ.get("GPUCLOUD_SERVICE_TOKEN")
    if not token:
        raise ValueError(
            "GPUCLOUD_SERVICE_URL is set, so GPUCLOUD_SERVICE_TOKEN must be, too: the token that "
            "the service has as JUPYTERHUB_API_TOKEN"
        )
    return {"url": url, "api_token": token}


def _managed() -> dict[str, Any]:
    command = [sys.executable, "-m", "gpucloud_spawner.portal"]
    file = _config_file()
    if file:
        command += ["--config", str(file)]
    port = os.environ.get("GPUCLOUD_SERVICE_PORT")
    if not port:
        port = str(int(os.environ.get("GPUCLOUD_PORT") or DEFAULT_PORT) + 3)
    # on this machine only, unless pods elsewhere must reach it (see local.py)
    host = os.environ.get("GPUCLOUD_HUB_CONNECT_IP") or "127.0.0.1"
    return {
        "url": f"http://{host}:{port}",
        "command": command,
        # no secrets here: the hub keeps it in its database
        "environment": {"GPUCLOUD_HUB_PID": str(os.getpid())},
    }


def _config_file() -> Path | None:
    """The file that the running hub was given; None where this is no hub."""
    app = sys.modules.get("jupyterhub.app")
    if app is None or not app.JupyterHub.initialized():
        return None
    return Path(app.JupyterHub.instance().config_file).absolute()


def server_token_scopes(spawner: Any) -> list[str]:
    """What a server's own token may do: what JupyterHub gives it, and ask the service."""
    # Spawner.db is deprecated; this is the session that the hub itself works in
    role = orm.Role.find(object_session(spawner.orm_spawner), "server")
    return [*role.scopes, ACCESS_SCOPE]


def url_for_pods(spawner: Any, environment: Mapping[str, str] = os.environ) -> str:
    """Where pods reach the service: through the proxy, as everybody does. "" where nobody knows.

    On zero-to-jupyterhub, Kubernetes tells the hub's pod the addresses of the proxy's Services;
    elsewhere it is the public address, and for an address that only this machine knows, that at
    which pods reach the hub.
    """
    # proxy-http: the proxy without TLS, where autohttps stands before it
    for name, port in (
        ("PROXY_HTTP_SERVICE", "PORT"),
        ("PROXY_PUBLIC_SERVICE", "PORT_HTTP"),
        ("PROXY_PUBLIC_SERVICE", "PORT"),
    ):
        if environment.get(f"{name}_HOST") and environment.get(f"{name}_{port}"):
            address = f"http://{environment[f'{name}_HOST']}:{environment[f'{name}_{port}']}"
            break
    else:
        address = _public_address(spawner)
    if not address:
        return ""
    base = spawner.hub.base_url.removesuffix("hub/")
    return f"{address}{base}services/{SERVICE}/"


def _public_address(spawner: Any) -> str:
    app = sys.modules.get("jupyterhub.app")
    if app is None or not app.JupyterHub.initialized():
        return ""
    bound = urlsplit(app.JupyterHub.instance().bind_url)
    host = bound.hostname or ""
    if _is_for_this_machine_only(host):
        host = urlsplit(spawner.hub_connect_url or spawner.hub.url).hostname or host
    host = f"[{host}]" if ":" in host else host
    return f"{bound.scheme}://{host}" + (f":{bound.port}" if bound.port else "")


def _is_for_this_machine_only(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
