"""The shipped configuration with teams, budgets and other services: for the service's own tests."""

import os
from pathlib import Path

from gpucloud_spawner import Image, Profile

c = get_config()

load_subconfig(str(Path(__file__).parents[2] / "hub_config" / "jupyterhub_config.py"))

c.GPUCloudSpawner.profiles = [
    *c.GPUCloudSpawner.profiles,
    Profile(
        slug="strict",
        display_name="Refuses when the budget is not known",
        images={"notebook": Image(image="gpucloud/notebook:0.1")},
        gpus=[0, 1],
        kubespawner_override={"budget_unreachable": "deny"},
    ),
]
c.JupyterHub.load_groups = {
    "vision": {"users": ["ada", "vera"], "properties": {"gpucloud_admins": ["vera"]}},
    "speech": {"users": ["dora"], "properties": {"gpucloud_admins": "dora"}},  # no list: nobody
}
c.GPUCloudPortal.user_budgets = {"ada": 100, "*": 1000}
c.GPUCloudPortal.team_budgets = {"vision": 150}
c.GPUCloudPortal.currency = "CHF"

# one that finance uses, one without rights that has a user's name, and one for Prometheus
c.JupyterHub.services.extend(
    [
        {"name": "auditor", "api_token": os.environ["TEST_TOKEN"] + "-auditor"},
        {"name": "ada", "api_token": os.environ["TEST_TOKEN"] + "-namesake"},
        {"name": "prometheus", "api_token": os.environ["TEST_TOKEN"] + "-prometheus"},
    ]
)
access = "access:services!service=gpucloud"
c.JupyterHub.load_roles.extend(
    [
        {
            "name": "finance",
            "services": ["auditor"],
            "scopes": [access, "custom:gpucloud:admin"],
        },
        {"name": "reader", "services": ["ada"], "scopes": [access]},
        {"name": "scraper", "services": ["prometheus"], "scopes": ["read:metrics"]},
        # what a site gives to those who manage the accounts of a group: no right to its money
        {
            "name": "group-manager",
            "groups": ["speech"],
            "scopes": ["admin-ui", "admin:users!group=vision", "list:users!group=vision"],
        },
    ]
)
