"""Names of the labels and annotations that mark what belongs to whom (a contract with users)."""

from __future__ import annotations

PREFIX = "gpucloud.io/"
COMPONENT = PREFIX + "component"
USER = PREFIX + "user"
TEAM = PREFIX + "team"
APP = PREFIX + "app"
PROFILE = PREFIX + "profile"
PRICE = PREFIX + "price-per-gpu-hour"
HUB = PREFIX + "hub"  # which of several hubs in a namespace made it
JOB = PREFIX + "job"  # the id of a distributed job
ROLE = PREFIX + "role"  # of a job's replica

# values of COMPONENT
NOTEBOOK = "notebook"
JOB_REPLICA = "job"
