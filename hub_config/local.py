"""One machine: loopback only, any user name, no password. Not for more than one person's trust.

Loaded by jupyterhub_config.py for `make run`; state is kept in GPUCLOUD_DATA.
"""

import ipaddress
import os
import secrets
from pathlib import Path

from gpucloud_spawner import CephRGW, LocalS3

c = get_config()

root = Path(__file__).parent.parent
data = Path(os.environ.get("GPUCLOUD_DATA") or root / ".gpucloud").absolute()
port = int(os.environ.get("GPUCLOUD_PORT") or 8000)

# Six neighbouring ports (the last three: the service, S3, Ceph's monitor): pods keep the hub's
# address over a restart, so it must not be random.
c.JupyterHub.bind_url = f"http://127.0.0.1:{port}"
# The address at which pods reach the hub; on a real cluster, one of this machine's own.
hub_ip = os.environ.get("GPUCLOUD_HUB_CONNECT_IP") or "127.0.0.1"
c.JupyterHub.hub_ip = hub_ip
c.JupyterHub.hub_connect_ip = hub_ip
c.JupyterHub.hub_port = port + 1
if hub_ip != "127.0.0.1":
    # pods elsewhere cannot reach the proxy, which is for this machine's browser only
    c.GPUCloudSpawner.service_url = f"http://{hub_ip}:{port + 3}/services/gpucloud/"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{port + 2}"
c.ConfigurableHTTPProxy.command = [str(root / "node_modules/.bin/configurable-http-proxy")]
c.ConfigurableHTTPProxy.pid_file = str(data / "proxy.pid")

c.GPUCloudSpawner.create_namespace = True

c.JupyterHub.db_url = f"sqlite:///{data / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(data / "cookie_secret")

# The S3 server that `gpucloud run` has started beside the hub, unless the site file names another.
if "s3_provider" not in c.GPUCloudSpawner:
    s3_endpoint = f"http://127.0.0.1:{port + 4}"
    if os.environ.get("GPUCLOUD_S3") == "rclone":
        c.GPUCloudSpawner.s3_provider = LocalS3(data / "s3", s3_endpoint)
    elif os.environ.get("GPUCLOUD_S3") == "ceph":
        c.GPUCloudSpawner.s3_provider = CephRGW(s3_endpoint, admin_file=data / "ceph/admin.json")

# Jupyter refuses to run as root unless told so; the embedded cluster runs pods as who you are.
if os.getuid() == 0:
    c.Spawner.cmd = ["jupyterhub-singleuser", "--allow-root"]

c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {"admin"}
if not ipaddress.ip_address(hub_ip).is_loopback:
    # pods elsewhere must reach the hub, so others can, too: then there is a password
    password = data / "password"
    if not password.exists():
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(12))
    c.DummyAuthenticator.password = password.read_text()

# A server that fails is the user's business here, not a reason to restart the hub.
c.Spawner.consecutive_failure_limit = 0
