"""Which requests for a kubelet's serving certificate are approved; requests are made by openssl."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import jhok_kubelet_certificates as certificates
import pytest

NODES = {"master": "172.16.0.100", "worker1": "172.16.0.101"}
GOOD: dict[str, Any] = {
    "subject": "/O=system:nodes/CN=system:node:worker1",
    "names": "DNS:worker1,IP:172.16.0.101",
    "username": "system:node:worker1",
    "groups": ["system:nodes", "system:authenticated"],
    "usages": ["digital signature", "server auth"],
}


def csr(tmp_path: Path, **change: object) -> dict[str, Any]:
    asked = GOOD | change
    key = tmp_path / "key.pem"
    command = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-subj", asked["subject"]]
    if asked["names"]:
        command += ["-addext", f"subjectAltName={asked['names']}"]
    pem = subprocess.run(command, check=True, capture_output=True).stdout
    spec = {name: asked[name] for name in ("username", "groups", "usages")}
    spec |= {"signerName": certificates.SIGNER, "request": base64.b64encode(pem).decode()}
    return {"metadata": {"name": "csr-1"}, "spec": spec}


def judge(given: dict[str, Any]) -> str:
    return certificates.refusal(given, certificates.read_request(given), NODES)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"names": "IP:172.16.0.101"},
        {"usages": ["key encipherment", "digital signature", "server auth"]},
        {"subject": "/CN=system:node:worker1/O=system:nodes"},
    ],
)
def test_a_node_gets_its_own(tmp_path: Path, change: dict[str, Any]) -> None:
    assert judge(csr(tmp_path, **change)) == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"username": "system:node:stranger"}, "no node of the inventory"),
        ({"username": "system:serviceaccount:jupyterhub:hub"}, "no node of the inventory"),
        ({"username": "worker1"}, "no node of the inventory"),
        ({"groups": ["system:authenticated"]}, "not in group system:nodes"),
        ({"usages": ["server auth", "client auth"]}, "usages client auth, server auth"),
        ({"usages": ["digital signature"]}, "usages digital signature"),
        ({"subject": "/O=system:nodes/CN=system:node:master"}, "subject"),
        ({"subject": "/O=system:masters/CN=system:node:worker1"}, "subject"),
        ({"subject": "/O=system:nodes/O=system:masters/CN=system:node:worker1"}, "subject"),
        ({"names": "DNS:worker1,IP:172.16.0.100"}, "asks for IP Address:172.16.0.100"),
        ({"names": "DNS:master,IP:172.16.0.101"}, "asks for DNS:master"),
        ({"names": "DNS:worker1,URI:spiffe://x"}, "asks for URI:spiffe://x"),
        ({"names": "DNS:worker1,email:a@example.org"}, "asks for email:a@example.org"),
        ({"names": ""}, "asks for no name"),
    ],
)
def test_what_is_not_its_own_is_not_approved(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    assert why in judge(csr(tmp_path, **change))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"status": {}}, True),
        ({"status": {"conditions": [{"type": "Approved"}]}}, False),
        ({"status": {"conditions": [{"type": "Denied"}]}}, False),
        ({"spec": {"signerName": "kubernetes.io/kube-apiserver-client-kubelet"}}, False),
    ],
)
def test_only_what_nobody_has_decided_on_waits(change: dict[str, Any], expected: bool) -> None:
    assert certificates.waits({"spec": {"signerName": certificates.SIGNER}, **change}) is expected
