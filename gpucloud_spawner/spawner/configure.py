"""The one line that turns a JupyterHub into a gpucloud: `configure(c)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .service import add_service

TEMPLATES = Path(__file__).parent / "templates"
HOME_MOUNT = "/home/jovyan"  # the home of Jupyter's images; a contract with users


def configure(c: Any) -> None:
    """Wire gpucloud into the JupyterHub configuration ``c``.

    Settings made after this call win, so call it first, then set profiles and the authenticator::

        from gpucloud_spawner import configure

        configure(c)
        c.GPUCloudSpawner.profiles = [...]

    It adds a service, a role and a scope: where you have such of your own, use
    ``c.JupyterHub.services.append(...)``, ``c.JupyterHub.load_roles.append(...)``.
    """
    hub, spawner = c.JupyterHub, c.GPUCloudSpawner
    hub.spawner_class = "gpucloud_spawner.GPUCloudSpawner"
    # one application = one named server
    hub.allow_named_servers = True
    hub.template_paths.insert(0, str(TEMPLATES))
    # user servers outlive the hub: it finds them again
    hub.cleanup_servers = False

    # one volume per application; {user_server} is unique for each
    spawner.storage_pvc_ensure = True
    spawner.pvc_name_template = "claim-{user_server}"
    spawner.storage_access_modes = ["ReadWriteOnce"]
    spawner.volumes = [{"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}}]
    spawner.volume_mounts = [{"name": "home", "mountPath": HOME_MOUNT}]

    # an ordinary user that owns its volume; KubeSpawner already forbids privilege escalation
    spawner.uid = 1000
    spawner.fs_gid = 100
    spawner.default_url = "/lab"

    add_service(c)
