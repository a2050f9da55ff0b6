"""Where a pod goes: the pure decisions of the scheduler, without any I/O.

`Ledger` keeps what each node has granted, `place` filters and scores the nodes for one pod and
either names a node or says in kube-scheduler 1.36's own words why there is none. Preemption,
topology spread, pod affinity and volume topology are not implemented: such a pod is placed as if it
did not ask for them, except that preemption is always reported as finding no victim.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .quantity import amount

Obj = dict[str, Any]
Amounts = dict[str, int]

# Weights of kube-scheduler's default plugins, and one of our own (see `_score`).
WEIGHT_FIT, WEIGHT_AFFINITY, WEIGHT_TAINTS, WEIGHT_PACKING = 1, 2, 3, 10
UNTOLERATED = "node(s) had untolerated taint(s)"
CORDONED = "node(s) were unschedulable"
NO_MATCH = "node(s) didn't match Pod's node affinity/selector"
NO_VICTIMS = "No preemption victims found for incoming pod"
NOT_HELPFUL = "Preemption is not helpful for scheduling"


def pod_requests(pod: Mapping[str, Any]) -> Amounts:
    """What a pod occupies on its node: the sum of its containers, or its greediest moment during
    initialisation if that is more, plus its overhead. A missing request is the limit."""
    spec = pod["spec"]
    running: Counter[str] = Counter(pods=1)
    peak: Amounts = {}
    for container in spec.get("initContainers") or []:
        wanted = _container_requests(container)
        if container.get("restartPolicy") == "Always":  # a sidecar stays, beside all that follow
            running.update(wanted)
            wanted = dict(running)
        else:
            wanted = dict(running + Counter(wanted))
        peak = _maximum(peak, wanted)
    for container in spec.get("containers") or []:
        running.update(_container_requests(container))
    total = Counter(_maximum(peak, running))
    total.update({name: amount(name, text) for name, text in (spec.get("overhead") or {}).items()})
    return {name: value for name, value in total.items() if value}


def _container_requests(container: Mapping[str, Any]) -> Amounts:
    resources = container.get("resources") or {}
    wanted = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: amount(name, text) for name, text in wanted.items()}


def _maximum(one: Mapping[str, int], other: Mapping[str, int]) -> Amounts:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {*one, *other}}


def is_extended(resource: str) -> bool:
    """Whether this is a countable device such as nvidia.com/gpu."""
    return "/" in resource and "kubernetes.io/" not in resource


@dataclass
class Node:
    """A node as the scheduler sees it, and the sum of what its pods have been granted."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[Obj] = field(default_factory=list)
    unschedulable: bool = False
    allocatable: Amounts = field(default_factory=dict)
    granted: Counter[str] = field(default_factory=Counter)
    known: bool = False  # False: pods name this node, but there is no such Node object


class Ledger:
    """Who holds what on which node. Incremental: each event costs the one pod that it is about."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._grants: dict[str, tuple[str, Amounts]] = {}

    @property
    def nodes(self) -> list[Node]:
        return [node for node in self._nodes.values() if node.known]

    def _node(self, name: str) -> Node:
        return self._nodes.setdefault(name, Node(name))

    def set_node(self, obj: Mapping[str, Any]) -> bool:
        """Takes over a Node object; True if anything that matters for a placement changed."""
        node = self._node(obj["metadata"]["name"])
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        allocatable = status.get("allocatable") or status.get("capacity") or {}
        new = (
            obj["metadata"].get("labels") or {},
            spec.get("taints") or [],
            bool(spec.get("unschedulable")),
            {name: amount(name, text) for name, text in allocatable.items()},
            True,
        )
        old = (node.labels, node.taints, node.unschedulable, node.allocatable, node.known)
        node.labels, node.taints, node.unschedulable, node.allocatable, node.known = new
        return new != old

    def remove_node(self, name: str) -> None:
        node = self._nodes[name]
        node.known = False
        if not +node.granted:
            del self._nodes[name]

    def grant(self, uid: str, node: str, requests: Amounts) -> None:
        """Counts a pod on its node; repeating it, also with new numbers, is harmless."""
        if self._grants.get(uid) == (node, requests):
            return
        self.release(uid)
        self._grants[uid] = (node, requests)
        self._node(node).granted.update(requests)

    def release(self, uid: str) -> bool:
        """Gives a pod's grant back; False if it held none."""
        grant = self._grants.pop(uid, None)
        if grant is None:
            return False
        node = self._node(grant[0])
        node.granted.subtract(grant[1])
        node.granted = +node.granted
        if not node.granted and not node.known:
            del self._nodes[node.name]
        return True

    def holder(self, uid: str) -> str | None:
        """The node that this pod is counted on."""
        grant = self._grants.get(uid)
        return grant[0] if grant else None


@dataclass(frozen=True)
class Decision:
    """The chosen node, or None and the scheduler's message."""

    node: str | None
    message: str = ""


@dataclass(frozen=True)
class _Refusal:
    reasons: tuple[str, ...]
    resolvable: bool = False  # could evicting pods ever help?


def place(pod: Mapping[str, Any], requests: Amounts, nodes: Iterable[Node]) -> Decision:
    """The best node for this pod, or why none of them will do."""
    candidates = list(nodes)
    if not candidates:
        return Decision(None, "no nodes available to schedule pods")
    refusals: list[_Refusal] = []
    fitting: list[Node] = []
    for node in candidates:
        refusal = _refusal(pod["spec"], requests, node)
        if refusal is None:
            fitting.append(node)
        else:
            refusals.append(refusal)
    if not fitting:
        return Decision(None, _explain(pod["spec"], refusals))
    return Decision(max(_scores(pod["spec"], requests, fitting))[2])


def refuse_everywhere(pod: Mapping[str, Any], reason: str, nodes: int) -> str:
    """The message for a pod that cannot go anywhere for a reason that is not the nodes'."""
    return f"0/{nodes} nodes are available: {reason}. " + _preemption(
        pod["spec"], [_Refusal((reason,))] * nodes
    )


def _refusal(spec: Obj, requests: Amounts, node: Node) -> _Refusal | None:
    # In the order of kube-scheduler's plugins: the first that refuses is the one that speaks.
    tolerations = spec.get("tolerations") or []
    if node.unschedulable and not _tolerated(
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, tolerations
    ):
        return _Refusal((CORDONED,))
    hard = (taint for taint in node.taints if taint.get("effect") in ("NoSchedule", "NoExecute"))
    if not all(_tolerated(taint, tolerations) for taint in hard):
        return _Refusal((UNTOLERATED,))
    if not _selected(spec, node):
        return _Refusal((NO_MATCH,))
    return _lacking(requests, node)


def _lacking(requests: Amounts, node: Node) -> _Refusal | None:
    reasons = []
    resolvable = True
    for name, wanted in requests.items():
        capacity = node.allocatable.get(name, 0)
        if wanted <= capacity - node.granted[name]:
            continue
        reasons.append("Too many pods" if name == "pods" else f"Insufficient {name}")
        resolvable = resolvable and wanted <= capacity
    return _Refusal(tuple(reasons), resolvable) if reasons else None


def tolerates(toleration: Obj, taint: Obj) -> bool:
    """Whether a pod with this toleration may be on a node with this taint."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    # Only "Exists" may go without a key.
    same = (toleration.get("value") or "") == (taint.get("value") or "")
    return bool(toleration.get("key")) and same


def _tolerated(taint: Obj, tolerations: list[Obj]) -> bool:
    return any(tolerates(toleration, taint) for toleration in tolerations)


def _selected(spec: Obj, node: Node) -> bool:
    for key, value in (spec.get("nodeSelector") or {}).items():
        if node.labels.get(key) != value:
            return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_term_matches(term, node) for term in required.get("nodeSelectorTerms") or [])


def _term_matches(term: Obj, node: Node) -> bool:
    expressions = term.get("matchExpressions") or []
    fields = term.get("matchFields") or []
    if not expressions and not fields:
        return False  # an empty term matches no node
    return all(_matches(e, node.labels.get(e["key"])) for e in expressions) and all(
        _matches(e, node.name if e["key"] == "metadata.name" else None) for e in fields
    )


def _matches(expression: Obj, value: str | None) -> bool:
    operator, values = expression["operator"], expression.get("values") or []
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            try:
                have, bound = int(value or ""), int(values[0])
            except (ValueError, IndexError):
                return False
            return have > bound if operator == "Gt" else have < bound
    return False


def _explain(spec: Obj, refusals: list[_Refusal]) -> str:
    reasons = Counter(reason for refusal in refusals for reason in refusal.reasons)
    return f"{_histogram(len(refusals), reasons)} {_preemption(spec, refusals)}"


def _preemption(spec: Obj, refusals: list[_Refusal]) -> str:
    if spec.get("preemptionPolicy") == "Never":
        outcome = "not eligible due to preemptionPolicy=Never."
    else:
        verdicts = Counter(NO_VICTIMS if r.resolvable else NOT_HELPFUL for r in refusals)
        outcome = _histogram(len(refusals), verdicts)
    return f"no new claims to deallocate, preemption: {outcome}"


def _histogram(nodes: int, reasons: Counter[str]) -> str:
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    return f"0/{nodes} nodes are available: {listed}."


def _scores(spec: Obj, requests: Amounts, nodes: list[Node]) -> list[tuple[float, str, str]]:
    """(score, tie-breaker, name) of each node; higher is better."""
    preferred = [_preferred_affinity(spec, node) for node in nodes]
    soft = [_soft_taints(spec, node) for node in nodes]
    most_preferred, most_soft = max(preferred) or 1, max(soft) or 1
    result = []
    for node, liking, dislike in zip(nodes, preferred, soft, strict=True):
        score = WEIGHT_AFFINITY * 100 * liking / most_preferred
        score += WEIGHT_TAINTS * 100 * (1 - dislike / most_soft)
        score += _score(requests, node)
        # Equal nodes: the first by name. kube-scheduler rolls dice; a test must not.
        result.append((score, "".join(chr(0x10FFFF - ord(c)) for c in node.name), node.name))
    return result


def _score(requests: Amounts, node: Node) -> float:
    """Least allocated for cpu and memory, so that people do not disturb one another; most
    allocated for devices: a user who asks for all GPUs of a node waits for as long as single GPUs
    are held on every node, and a GPU is worth far more than an even spread of cpu."""
    spread = [
        100 * max(0.0, 1 - (node.granted[name] + requests.get(name, 0)) / capacity)
        for name in ("cpu", "memory", "pods")  # pods: for those that request nothing
        if (capacity := node.allocatable.get(name, 0))
    ]
    packed = [
        100 * (node.granted[name] + wanted) / node.allocatable[name]
        for name, wanted in requests.items()
        if is_extended(name)
    ]
    score = WEIGHT_FIT * sum(spread) / len(spread) if spread else 0.0
    return score + (WEIGHT_PACKING * sum(packed) / len(packed) if packed else 0.0)


def _preferred_affinity(spec: Obj, node: Node) -> int:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []
    return sum(t["weight"] for t in terms if _term_matches(t.get("preference") or {}, node))


def _soft_taints(spec: Obj, node: Node) -> int:
    tolerations = spec.get("tolerations") or []
    return sum(
        taint.get("effect") == "PreferNoSchedule" and not _tolerated(taint, tolerations)
        for taint in node.taints
    )
