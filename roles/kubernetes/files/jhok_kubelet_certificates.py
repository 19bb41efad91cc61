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
import ipaddress
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

# Tags of DER, and the object identifiers of what a request may hold, as they are encoded.
INTEGER, BITS, OCTETS, OBJECT, SEQUENCE, SET = 0x02, 0x03, 0x04, 0x06, 0x30, 0x31
ATTRIBUTES, DNS_NAME, IP_ADDRESS = 0xA0, 0x82, 0x87
ORGANIZATION, COMMON_NAME, ALTERNATIVE_NAMES = b"\x55\x04\x0a", b"\x55\x04\x03", b"\x55\x1d\x11"
EXTENSION_REQUEST = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e"
_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE REQUEST-----\n"
    rb"((?:[A-Za-z0-9+/]+\n)*[A-Za-z0-9+/]+={0,2}\n)"
    rb"-----END CERTIFICATE REQUEST-----\n?"
)


class OddRequestError(Exception):
    """A request that does not have just what a kubelet's has; the message says where."""


@dataclass(frozen=True)
class Request:
    """What a request for a certificate asks for: its subject, and the names and addresses to serve under."""

    subject: tuple[tuple[bytes, str], ...]
    names: frozenset[str]
    addresses: frozenset[str]


def elements(data: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of the elements that `data`, which is DER, is made of; raise OddRequestError otherwise."""
    found = []
    while data:
        if len(data) < 2 or data[0] & 0x1F == 0x1F:
            raise OddRequestError("no DER")
        tag, length, start = data[0], data[1], 2
        if length > 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[2:start], "big")
            if start > 6 or length < 0x80 or data[2] == 0:
                raise OddRequestError("no DER")
        elif length == 0x80:
            raise OddRequestError("no DER")
        if len(data) < start + length:
            raise OddRequestError("no DER")
        found.append((tag, data[start : start + length]))
        data = data[start + length :]
    return found


def content(data: bytes, *tags: int) -> list[bytes]:
    """Return the contents of the elements of `data`, which have to bear just these tags."""
    found = elements(data)
    if [tag for tag, _ in found] != list(tags):
        raise OddRequestError("it holds something else than a kubelet's")
    return [inside for _, inside in found]


def parse_request(pem: bytes) -> Request:
    """Return what is in a request; raise OddRequestError when it is not of the form that kubelets use.

    The bytes decide that are signed later. What openssl prints of a request would not do: a request can hold text that
    looks like a line of it.
    """
    text = _PEM.fullmatch(pem)
    if not text:
        raise OddRequestError("no PEM of one request")
    (request,) = content(base64.b64decode(text[1]), SEQUENCE)
    info, _algorithm, _signature = content(request, SEQUENCE, SEQUENCE, BITS)
    _version, subject, _key, attributes = content(info, INTEGER, SEQUENCE, SEQUENCE, ATTRIBUTES)
    pairs = []
    for tag, group in elements(subject):
        if tag != SET:
            raise OddRequestError("no subject of single names")
        (pair,) = content(group, SEQUENCE)
        inside = elements(pair)
        if len(inside) != 2 or inside[0][0] != OBJECT:
            raise OddRequestError("no subject of single names")
        pairs.append((inside[0][1], inside[1][1].decode("ascii", "replace")))
    (attribute,) = content(attributes, SEQUENCE)
    kind, values = content(attribute, OBJECT, SET)
    if kind != EXTENSION_REQUEST:
        raise OddRequestError("another attribute than extensions")
    (extensions,) = content(values, SEQUENCE)
    (extension,) = content(extensions, SEQUENCE)
    inside = [element for element in elements(extension) if element != (0x01, b"\xff")]  # whether it is critical
    if [tag for tag, _ in inside] != [OBJECT, OCTETS] or inside[0][1] != ALTERNATIVE_NAMES:
        raise OddRequestError("another extension than alternative names")
    (alternatives,) = content(inside[1][1], SEQUENCE)
    names, addresses = set(), set()
    for tag, value in elements(alternatives):
        if tag == DNS_NAME:
            names.add(value.decode("ascii", "replace"))
        elif tag == IP_ADDRESS and len(value) in (4, 16):
            addresses.add(str(ipaddress.ip_address(value)))
        else:
            raise OddRequestError("another kind of name than DNS and IP")
    return Request(tuple(sorted(pairs)), frozenset(names), frozenset(addresses))


def refusal(csr: Mapping[str, Any], nodes: Mapping[str, str]) -> str:
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
    try:
        request = parse_request(base64.b64decode(spec.get("request", "")))
    except (OddRequestError, ValueError) as error:
        return f"{user} asks in another way than a kubelet: {error}"
    if request.subject != ((COMMON_NAME, user), (ORGANIZATION, "system:nodes")):
        return f"{user} asks for another subject than its own"
    foreign = (request.names - {name}) | (request.addresses - {nodes[name]})
    if foreign or not request.names | request.addresses:
        return f"{user} asks for {', '.join(sorted(foreign)) or 'no name'}"
    return ""


def waits(csr: Mapping[str, Any]) -> bool:
    """Return whether a request is for a kubelet's serving certificate and nobody has decided on it."""
    return bool(csr["spec"].get("signerName") == SIGNER and not (csr.get("status") or {}).get("conditions"))


def kubectl(*arguments: str) -> str:
    """Return what kubectl prints; raise CalledProcessError when it fails."""
    command = ["/usr/local/bin/kubectl", "--kubeconfig", KUBECONFIG, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


def approve(nodes: Mapping[str, str], reported: set[str]) -> str:
    """Approve what waits and may be; say on stderr, once, why the rest may not. Return what did not work, or ""."""
    trouble = ""
    try:
        listed = json.loads(kubectl("get", "certificatesigningrequests", "--output", "json"))["items"]
        for csr in filter(waits, listed):
            name = csr["metadata"]["name"]
            why = refusal(csr, nodes)
            if not why:
                kubectl("certificate", "approve", name)
                print(f"approved {name} of {csr['spec']['username']}", flush=True)
            elif name not in reported:
                reported.add(name)
                print(f"not approved: {name}: {why}", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        trouble = f"kubectl: {error.stderr.strip()}"
    return trouble


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
    trouble = approve(nodes, reported)
    if seconds is None:
        if trouble:
            print(trouble, file=sys.stderr)
        return 1 if trouble else 0
    deadline = time.monotonic() + seconds
    while faults := {name: why for name, address in nodes.items() if (why := fault(address))}:
        if time.monotonic() > deadline:
            for name, why in faults.items():
                print(f"The kubelet of {name} has no certificate of the cluster's: {why}", file=sys.stderr)
            if trouble:
                print(trouble, file=sys.stderr)
            return 1
        time.sleep(1)
        trouble = approve(nodes, reported)
    return 0


if __name__ == "__main__":
    sys.exit(main())
