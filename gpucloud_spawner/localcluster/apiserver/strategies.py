"""Which strategy is whose: data only."""

from __future__ import annotations

from .endpoints import EndpointSliceStrategy
from .jobs import JobStrategy
from .resources import RESOURCES
from .store import Store
from .strategy import (
    ClaimStrategy,
    ConfigMapStrategy,
    EventStrategy,
    LeaseStrategy,
    NamespaceStrategy,
    NodeStrategy,
    PodStrategy,
    SecretStrategy,
    ServiceAccountStrategy,
    ServiceStrategy,
    StorageClassStrategy,
    Strategy,
    VolumeStrategy,
)

_STRATEGIES: dict[str, type[Strategy]] = {
    "pods": PodStrategy,
    "nodes": NodeStrategy,
    "namespaces": NamespaceStrategy,
    "persistentvolumeclaims": ClaimStrategy,
    "persistentvolumes": VolumeStrategy,
    "storageclasses": StorageClassStrategy,
    "secrets": SecretStrategy,
    "configmaps": ConfigMapStrategy,
    "services": ServiceStrategy,
    "serviceaccounts": ServiceAccountStrategy,
    "events": EventStrategy,
    "leases": LeaseStrategy,
    "jobs": JobStrategy,
    "endpointslices": EndpointSliceStrategy,
}


def strategies(store: Store) -> dict[str, Strategy]:
    """One strategy per served plural."""
    return {r.plural: _STRATEGIES[r.plural](store, r) for r in RESOURCES}
