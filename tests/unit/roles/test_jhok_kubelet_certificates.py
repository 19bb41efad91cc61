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
    "subject": ["O=system:nodes", "CN=system:node:worker1"],
    "names": "DNS:worker1,IP:172.16.0.101",
    "username": "system:node:worker1",
    "groups": ["system:nodes", "system:authenticated"],
    "usages": ["digital signature", "server auth"],
}


def csr(tmp_path: Path, **change: object) -> dict[str, Any]:
    """Return a request as the API has it; `extensions` and `attributes` are lines of openssl's configuration."""
    asked = GOOD | {"extensions": [], "attributes": []} | change
    extensions = ([f"subjectAltName={asked['names']}"] if asked["names"] else []) + asked["extensions"]
    lines = [
        "[req]",
        "prompt=no",
        "distinguished_name=dn",
        "attributes=attr",
        "req_extensions=ext" if extensions else "",
    ]
    lines += ["[dn]", *asked["subject"], "[attr]", *asked["attributes"], "[ext]", *extensions]
    (tmp_path / "req.cnf").write_text("\n".join(lines) + "\n")
    command = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-utf8"]
    command += ["-config", str(tmp_path / "req.cnf"), "-keyout", str(tmp_path / "key.pem")]
    pem = subprocess.run(command, check=True, capture_output=True).stdout
    return as_api(pem, asked)


def as_api(pem: bytes, asked: dict[str, Any]) -> dict[str, Any]:
    spec = {name: asked[name] for name in ("username", "groups", "usages")}
    spec |= {"signerName": certificates.SIGNER, "request": base64.b64encode(pem).decode()}
    return {"metadata": {"name": "csr-1"}, "spec": spec}


def judge(given: dict[str, Any]) -> str:
    return certificates.refusal(given, NODES)


# Printed by openssl this looks like the alternative names of worker1.
FORGED = b"\nX509v3 Subject Alternative Name: \n    DNS:worker1, IP Address:172.16.0.101\n"
OTHERS = "DNS:master,DNS:kubernetes,IP:10.96.0.1,IP:172.16.0.100"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"names": "IP:172.16.0.101"},
        {"names": "critical,DNS:worker1,IP:172.16.0.101"},
        {"usages": ["key encipherment", "digital signature", "server auth"]},
        {"subject": ["CN=system:node:worker1", "O=system:nodes"]},
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
        ({"subject": ["O=system:nodes", "CN=system:node:master"]}, "another subject"),
        ({"subject": ["O=system:masters", "CN=system:node:worker1"]}, "another subject"),
        ({"subject": ["0.O=system:nodes", "1.O=system:masters", "CN=system:node:worker1"]}, "another subject"),
        ({"subject": ["O=system:nodes", "0.CN=system:node:worker1", "1.CN=master"]}, "another subject"),
        ({"subject": ["O=system:nodes", "OU=x", "CN=system:node:worker1"]}, "another subject"),
        ({"names": OTHERS}, "asks for 10.96.0.1, 172.16.0.100, kubernetes, master"),
        ({"names": OTHERS, "extensions": [f"1.2.3.4=DER:{FORGED.hex()}"]}, "in another way"),
        ({"extensions": ["basicConstraints=CA:TRUE"]}, "in another way"),
        ({"attributes": ["challengePassword=abcdef"]}, "in another way"),
        ({"names": "DNS:worker1,IP:172.16.0.100"}, "asks for 172.16.0.100"),
        ({"names": "DNS:master,IP:172.16.0.101"}, "asks for master"),
        ({"names": "DNS:worker1,URI:spiffe://x"}, "another kind of name"),
        ({"names": "DNS:worker1,email:a@example.org"}, "another kind of name"),
        ({"names": ""}, "in another way"),
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


def test_only_one_request_and_nothing_around_it_is_read(tmp_path: Path) -> None:
    good = csr(tmp_path)
    pem = base64.b64decode(good["spec"]["request"])
    lines = pem.splitlines(keepends=True)
    odd = [b"x\n" + pem, pem + pem, pem + b"x", lines[0] + b"Name: x\n\n" + b"".join(lines[1:]), b"", pem[:200]]
    der = base64.b64decode(b"".join(lines[1:-1]))
    odd.append(lines[0] + base64.encodebytes(der + b"\x05\x00") + lines[-1])
    empty = [b"", b"\x30\x00", b"\x30\x02\x30\x00", b"\x30\x81", b"\x1f\x00"]
    odd += [lines[0] + base64.encodebytes(inside) + lines[-1] for inside in empty]
    for other in odd:
        assert "in another way" in judge(as_api(other, GOOD)), other
