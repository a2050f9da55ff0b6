"""EndpointSlices: what Kubernetes fills in and refuses. Who writes them is a controller."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from . import validation as check
from .errors import Cause, invalid_value, required
from .store import Object
from .strategy import Strategy

_TYPES = frozenset({"IPv4", "IPv6", "FQDN"})
_MAX_ADDRESSES = 100


class EndpointSliceStrategy(Strategy):
    has_generation = True

    def prepare_create(self, obj: Object) -> None:
        self._defaults(obj)

    def prepare_update(self, new: Object, old: Object) -> None:
        self._defaults(new)
        content = ("endpoints", "ports")
        if any(new.get(part) != old.get(part) for part in content):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1

    def _defaults(self, obj: Object) -> None:
        obj.setdefault("endpoints", [])
        for port in obj.setdefault("ports", []):
            port.setdefault("name", "")
            port.setdefault("protocol", "TCP")

    def validate_create(self, obj: Object) -> Iterator[Cause]:
        yield from check.one_of("addressType", obj.get("addressType"), _TYPES)
        for i, endpoint in enumerate(obj["endpoints"]):
            field = f"endpoints[{i}]"
            addresses = endpoint.get("addresses", [])
            if not addresses:
                yield required(f"{field}.addresses", "must contain at least 1 address")
            elif len(addresses) > _MAX_ADDRESSES:
                why = f"must have at most {_MAX_ADDRESSES} items"
                yield invalid_value(f"{field}.addresses", len(addresses), why)
            if obj.get("addressType") == "IPv4":
                for k, address in enumerate(addresses):
                    if not _is_ipv4(address):
                        why = "must be a valid IPv4 address"
                        yield invalid_value(f"{field}.addresses[{k}]", address, why)
            if "hostname" in endpoint:
                yield from check.dns_label(f"{field}.hostname", endpoint["hostname"])

    def validate_update(self, new: Object, old: Object) -> Iterator[Cause]:
        if new.get("addressType") != old.get("addressType"):
            yield invalid_value("addressType", new.get("addressType"), "field is immutable")
        yield from self.validate_create(new)


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
