#!/usr/bin/python3
"""Approve the certificates that the nodes' kubelets ask the cluster for, to serve with.

Kubernetes signs such a request only when somebody has approved it. This program approves the request of a node that the
inventory names, for its own name and address, and no other. A kubelet asks when it joins and again before its
certificate ends, so a timer runs the program every ten minutes. It runs on the control plane host as root.

    jhok_kubelet_certificates.py             approve what waits
    jhok_kubelet_certificates.py --wait 60   and wait up to 60 seconds until every kubelet serves with such one

It prints a line for each request that it approves. Other requests stay as they are; it says why on stderr.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODES = Path("/etc/jhok/nodes.json")  # address by name of node
KUBECONFIG = "/etc/kubernetes/admin.conf"
CA = "/etc/kubernetes/pki/ca.crt"
SIGNER = "kubernetes.io/kubelet-serving"
KUBELET_PORT = 10250
USAGES = {"digital signature", "key encipherment", "server auth"}
_ALTERNATIVE_NAMES = re.compile(r"X509v3 Subject Alternative Name:(?: critical)?\s*\n\s*(.+)")


@dataclass(frozen=True)
class Request:
    """What a request for a certificate asks for: its subject, and the names and addresses to serve under."""

    subject: str
    names: frozenset[str]


def parse_request(text: str) -> Request:
    """Return what is in a request, from the output of ``openssl req -noout -subject -text -nameopt RFC2253``."""
    subject = re.search(r"^subject=\s*(.*)$", text, re.MULTILINE)
    found = _ALTERNATIVE_NAMES.search(text)
    names = found[1].split(", ") if found else []
    return Request(subject[1].strip() if subject else "", frozenset(name.strip() for name in names))


def refusal(csr: Mapping[str, Any], request: Request, nodes: Mapping[str, str]) -> str:
    """Return why a request is not approved, or "" when it may be.

    csr: the CertificateSigningRequest as the API has it. nodes: address by name of node.
    """
    spec = csr["spec"]
    user = str(spec.get("username", ""))
    name = user.removeprefix("system:node:")
    if not user.startswith("system:node:") or name not in nodes:
        return f"{user} is no node of the inventory"
    if "system:nodes" not in (spec.get("groups") or []):
        return f"{user} is not in group system:nodes"
    usages = set(spec.get("usages") or [])
    if "server auth" not in usages or usages - USAGES:
        return f"{user} asks for the usages {', '.join(sorted(usages))}"
    if set(request.subject.split(",")) != {f"CN={user}", "O=system:nodes"}:
        return f"{user} asks for the subject {request.subject}"
    foreign = request.names - {f"DNS:{name}", f"IP Address:{nodes[name]}"}
    if foreign or not request.names:
        return f"{user} asks for {', '.join(sorted(foreign)) or 'no name'}"
    return ""


def waits(csr: Mapping[str, Any]) -> bool:
    """Return whether a request is for a kubelet's serving certificate and nobody has decided on it."""
    return bool(csr["spec"].get("signerName") == SIGNER and not (csr.get("status") or {}).get("conditions"))


def kubectl(*arguments: str) -> str:
    """Return what kubectl prints; raise CalledProcessError when it fails."""
    command = ["/usr/local/bin/kubectl", "--kubeconfig", KUBECONFIG, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def read_request(csr: Mapping[str, Any]) -> Request:
    """Return what is in a CertificateSigningRequest."""
    command = ["openssl", "req", "-noout", "-subject", "-text", "-nameopt", "RFC2253"]
    pem = base64.b64decode(csr["spec"]["request"])
    done = subprocess.run(command, input=pem, check=True, capture_output=True)  # noqa: S603
    return parse_request(done.stdout.decode())


def approve(nodes: Mapping[str, str], reported: set[str]) -> None:
    """Approve what waits and may be; say on stderr, once, why the rest may not."""
    for csr in filter(waits, json.loads(kubectl("get", "certificatesigningrequests", "--output", "json"))["items"]):
        name = csr["metadata"]["name"]
        why = refusal(csr, read_request(csr), nodes)
        if not why:
            kubectl("certificate", "approve", name)
            print(f"approved {name} of {csr['spec']['username']}", flush=True)
        elif name not in reported:
            reported.add(name)
            print(f"not approved: {name}: {why}", file=sys.stderr)


def fault(address: str) -> str:
    """Return why the kubelet at an address does not serve with a certificate of the cluster's, or ""."""
    context = ssl.create_default_context(cafile=CA)
    try:
        with socket.create_connection((address, KUBELET_PORT), timeout=5) as plain:
            context.wrap_socket(plain, server_hostname=address).close()
    except OSError as error:  # ssl.SSLError is one, too
        return str(error)
    return ""


def main() -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description="Approve the certificates that kubelets ask for, to serve with.")
    parser.add_argument("--wait", type=float, metavar="SECONDS", help="wait until every kubelet serves with one")
    seconds = parser.parse_args().wait
    nodes = json.loads(NODES.read_text())
    reported: set[str] = set()
    approve(nodes, reported)
    if seconds is None:
        return 0
    deadline = time.monotonic() + seconds
    while faults := {name: why for name, address in nodes.items() if (why := fault(address))}:
        if time.monotonic() > deadline:
            for name, why in faults.items():
                print(f"The kubelet of {name} has no certificate of the cluster's: {why}", file=sys.stderr)
            return 1
        time.sleep(1)
        approve(nodes, reported)
    return 0


if __name__ == "__main__":
    sys.exit(main())
