#!/usr/bin/python3
"""Cluster DNS: answers for Services from the Kubernetes API, forwards the rest.

It runs inside the CoreDNS Deployment that kubeadm makes, for clusters whose images have no CoreDNS: same ``-conf``
argument (of the Corefile only the zone and ``lameduck`` are read), same ports (53 DNS, 8080 health, 8181 ready, 9153
metrics), same service account. Records follow the specification "Kubernetes DNS-Based Service Discovery" 1.1.0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import os
import random
import re
import signal
import socket
import ssl
import threading
import time
import urllib.request
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from dnslib import AAAA, CNAME, EDNS0, PTR, QTYPE, RCODE, RR, SOA, SRV, TXT, A, DNSError, DNSRecord

TTL = 30  # seconds, for records of the cluster
NEGATIVE_TTL = 5  # seconds, for names that are not in the cluster (yet)
CACHE_TTL = 300  # seconds, the longest that an answer from outside is kept
CACHE_SIZE = 2000  # answers from outside
UDP_SIZE = 1232  # bytes, the largest answer over UDP that is never fragmented
FORWARD_TIMEOUT = 2.0  # seconds for one nameserver; a client gives up after 5
FORWARDS = 500  # under way at once
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
KINDS = ("services", "endpoints")

Objects = Mapping[tuple[str, str], Mapping[str, Any]]  # (namespace, name) -> object
Table = dict[str, list[tuple[str, Any]]]  # lower-case name without the last dot -> (type, data); empty: no data
Address = tuple[str, int]


# ------------------------------------------------------------------ records and answers: no I/O


def build_table(services: Objects, endpoints: Objects, zone: str) -> Table:
    """Return all records of the cluster.

    Args:
        services: the API's Service objects.
        endpoints: the API's Endpoints objects, for headless Services.
        zone: the cluster's domain, lower case, without a dot at its end.

    """
    table: Table = {
        zone: [("SOA", soa(zone).rdata)],
        f"svc.{zone}": [],
        f"pod.{zone}": [],
        f"dns-version.{zone}": [("TXT", TXT("1.1.0"))],
    }

    def add(name: str, *records: tuple[str, Any]) -> None:
        table.setdefault(name.lower(), []).extend(records)

    def add_address(name: str, address: str) -> None:
        record = ("AAAA", AAAA(address)) if ":" in address else ("A", A(address))
        if record not in table.get(name.lower(), []):
            add(name, record)

    def add_pointer(address: str, name: str) -> None:
        add(ipaddress.ip_address(address).reverse_pointer, ("PTR", PTR(f"{name}.")))

    def add_port(base: str, port: Mapping[str, Any], target: str) -> None:
        protocol = f"_{port.get('protocol', 'TCP').lower()}.{base}"
        add(protocol)
        if port.get("name"):
            record = ("SRV", SRV(0, 100, port["port"], f"{target}."))
            if record not in table.get(f"_{port['name']}.{protocol}".lower(), []):
                add(f"_{port['name']}.{protocol}", record)

    for (namespace, name), service in services.items():
        base, spec = f"{name}.{namespace}.svc.{zone}", service["spec"]
        add(f"{namespace}.svc.{zone}")
        add(base)
        if spec.get("type") == "ExternalName":
            add(base, ("CNAME", CNAME(spec["externalName"].rstrip(".") + ".")))
        elif spec.get("clusterIP") not in (None, "", "None"):
            add_address(base, spec["clusterIP"])
            add_pointer(spec["clusterIP"], base)
            for port in spec.get("ports") or []:
                add_port(base, port, base)
        else:
            for subset in endpoints.get((namespace, name), {}).get("subsets") or []:
                hosts = list(subset.get("addresses") or [])
                if spec.get("publishNotReadyAddresses"):
                    hosts += subset.get("notReadyAddresses") or []
                for host in hosts:
                    label = host.get("hostname") or re.sub("[.:]", "-", host["ip"])
                    add_address(base, host["ip"])
                    add_address(f"{label}.{base}", host["ip"])
                    add_pointer(host["ip"], f"{label}.{base}")
                    for port in subset.get("ports") or []:
                        add_port(base, port, f"{label}.{base}")
    return table


def soa(zone: str) -> RR:
    """Return the zone's SOA record, which says how long a negative answer holds."""
    data = SOA(f"ns.dns.{zone}", f"hostmaster.{zone}", (1, 7200, 1800, 86400, NEGATIVE_TTL))
    return RR(zone, QTYPE.SOA, rdata=data, ttl=NEGATIVE_TTL)


def lookup(table: Table, zone: str, name: str) -> list[tuple[str, Any]] | None:
    """Return the records of a name in the cluster, or None when there is no such name."""
    records = table.get(name)
    if records is None and (match := re.fullmatch(r"(\d+-\d+-\d+-\d+)\.([^.]+)\.pod\." + re.escape(zone), name)):
        with contextlib.suppress(ValueError):
            records = [("A", A(str(ipaddress.IPv4Address(match[1].replace("-", ".")))))]
    return records


def key_of(name: object) -> str:
    """Return a name as the table has it."""
    return str(name).rstrip(".").lower()


def local_answer(request: DNSRecord, table: Table, zone: str) -> DNSRecord | None:
    """Return the answer for a name of the cluster, or None for one that has to be asked elsewhere."""
    name = key_of(request.q.qname)
    ours = name == zone or name.endswith(f".{zone}")
    records = lookup(table, zone, name)
    if records is None and not ours:
        return None
    reply = request.reply(ra=1, aa=1)
    if records is None:
        reply.header.rcode = RCODE.NXDOMAIN
    wanted = QTYPE.get(request.q.qtype)
    matching = [(kind, data) for kind, data in records or [] if kind == wanted or wanted == "ANY" or kind == "CNAME"]
    random.shuffle(matching)  # spreads clients that take the first address
    for kind, data in matching:
        reply.add_answer(RR(request.q.qname, getattr(QTYPE, kind), rdata=data, ttl=TTL))
    if not matching:
        reply.add_auth(soa(zone))
    return reply


def fit(reply: DNSRecord, request: DNSRecord, *, tcp: bool) -> bytes:
    """Return an answer's bytes; over UDP no longer than the client can take, else marked as truncated."""
    sizes = [option.rclass for option in request.ar if option.rtype == QTYPE.OPT]
    if sizes:
        reply.add_ar(EDNS0(udp_len=UDP_SIZE))
    packed: bytes = reply.pack()
    if tcp or len(packed) <= max(512, min([UDP_SIZE, *sizes]) if sizes else 0):
        return packed
    short: bytes = reply.truncate().pack()
    return short


@dataclass
class Outside:
    """What a nameserver outside the cluster answered."""

    rcode: int
    answers: list[RR]
    authority: list[RR]
    received: float  # seconds on the monotonic clock

    def ttl(self) -> int:
        """Return for how many seconds it may be kept; of negative answers the SOA decides."""
        if self.rcode not in (RCODE.NOERROR, RCODE.NXDOMAIN):
            return NEGATIVE_TTL  # else each question to a nameserver that is away costs seconds
        if self.answers:
            return min(CACHE_TTL, *(record.ttl for record in self.answers))
        limits = [min(record.ttl, record.rdata.times[4]) for record in self.authority if record.rtype == QTYPE.SOA]
        return min(limits[0], TTL) if limits else 0

    def fill(self, reply: DNSRecord, now: float) -> DNSRecord:
        """Add these records to a reply, with the seconds that they have left."""
        age = int(now - self.received)
        reply.header.rcode = self.rcode
        for records, add in ((self.answers, reply.add_answer), (self.authority, reply.add_auth)):
            for record in records:
                left = max(record.ttl - age, 0)
                add(RR(record.rname, record.rtype, rclass=record.rclass, rdata=record.rdata, ttl=left))
        return reply


# ------------------------------------------------------------------ forwarding


class _Exchange(asyncio.DatagramProtocol):
    """One question over UDP to one nameserver; the socket is connected, so that only it can answer."""

    def __init__(self, identity: int, done: asyncio.Future[DNSRecord]) -> None:
        self.identity, self.done = identity, done

    def datagram_received(self, data: bytes, _address: Address) -> None:
        with contextlib.suppress(DNSError):
            reply = DNSRecord.parse(data)
            if reply.header.id == self.identity and not self.done.done():
                self.done.set_result(reply)

    def error_received(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


async def ask(server: Address, question: DNSRecord) -> DNSRecord:
    """Ask one nameserver, over TCP when the answer does not fit into a datagram.

    Raises:
        OSError: the nameserver could not be reached, did not answer in time or sent something else.

    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[DNSRecord] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Exchange(question.header.id, done), remote_addr=server)
    try:
        transport.sendto(question.pack())
        reply = await asyncio.wait_for(done, FORWARD_TIMEOUT)
    finally:
        transport.close()
    if not reply.header.tc:
        return reply
    reader, writer = await asyncio.wait_for(asyncio.open_connection(*server), FORWARD_TIMEOUT)
    try:
        writer.write(_framed(question.pack()))
        return DNSRecord.parse(await asyncio.wait_for(_read_frame(reader), FORWARD_TIMEOUT))
    except (DNSError, EOFError) as error:
        raise OSError(f"broken answer from {server[0]}") from error
    finally:
        writer.close()


def _framed(message: bytes) -> bytes:
    """Return a message with its length before it, as TCP wants it."""
    return len(message).to_bytes(2, "big") + message


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    """Read a message with its length before it."""
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


# ------------------------------------------------------------------ the server


@dataclass
class ClusterDNS:
    """The server's state. Everything but the watches runs on one event loop, so nothing needs a lock."""

    zone: str
    nameservers: list[Address]  # asked in this order; one that failed goes to the end
    clock: Callable[[], float] = time.monotonic
    table: Table = field(default_factory=dict)
    synced: set[str] = field(default_factory=set)
    objects: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = field(default_factory=lambda: {k: {} for k in KINDS})
    counts: Counter[str] = field(default_factory=Counter)
    cache: OrderedDict[tuple[str, int], Outside] = field(default_factory=OrderedDict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def ready(self) -> bool:
        """Whether all objects were listed once."""
        return len(self.synced) == len(KINDS)

    def replace(self, kind: str, items: Iterable[Mapping[str, Any]]) -> None:
        """Take over a complete list of objects."""
        self.objects[kind] = {_identity(item): item for item in items}
        self.synced.add(kind)
        self._rebuild()

    def change(self, kind: str, event: str, item: Mapping[str, Any]) -> None:
        """Take over one event of a watch."""
        if event == "DELETED":
            self.objects[kind].pop(_identity(item), None)
        else:
            self.objects[kind][_identity(item)] = item
        self._rebuild()

    def _rebuild(self) -> None:
        if self.ready:
            self.table = build_table(self.objects["services"], self.objects["endpoints"], self.zone)

    async def answer(self, data: bytes, *, tcp: bool = False) -> bytes | None:
        """Return the answer to a message, or None for what deserves none."""
        try:
            request = DNSRecord.parse(data)
        except DNSError:
            return None
        if request.header.qr:
            return None  # an answer: two servers would talk to each other for ever
        if request.header.opcode != 0 or len(request.questions) != 1:
            reply = request.reply(ra=1, aa=0)
            reply.header.rcode = RCODE.NOTIMP if request.header.opcode else RCODE.FORMERR
        else:
            reply = await self._resolve(request)
        self.counts[f'coredns_dns_responses_total{{rcode="{RCODE.get(reply.header.rcode)}"}}'] += 1
        return fit(reply, request, tcp=tcp)

    async def _resolve(self, request: DNSRecord) -> DNSRecord:
        name = key_of(request.q.qname)
        if not self.ready and (name == self.zone or name.endswith(f".{self.zone}")):
            reply = request.reply(ra=1, aa=0)
            reply.header.rcode = RCODE.SERVFAIL  # the client asks again; NXDOMAIN would be believed
            return reply
        reply = local_answer(request, self.table, self.zone)
        if reply is None:
            outside = await self._outside(request.q.qname, request.q.qtype)
            return outside.fill(request.reply(ra=1, aa=0), self.clock())
        if request.q.qtype in (QTYPE.A, QTYPE.AAAA) and [rr.rtype for rr in reply.rr] == [QTYPE.CNAME]:
            await self._follow(reply, request.q.qtype)
        return reply

    async def _follow(self, reply: DNSRecord, qtype: int) -> None:
        """Add the addresses of an ExternalName: resolvers in pods do not look them up themselves."""
        target = reply.rr[0].rdata.label
        question = DNSRecord.question(str(target), QTYPE[qtype])
        found = local_answer(question, self.table, self.zone)
        if found is None:
            outside = await self._outside(target, qtype)
            found = outside.fill(question.reply(ra=1, aa=0), self.clock())
        for record in found.rr:
            reply.add_answer(record)

    async def _outside(self, qname: object, qtype: int) -> Outside:
        """Return the cached or fresh answer for a name outside the cluster."""
        key = (key_of(qname), qtype)
        cached = self.cache.get(key)
        if cached and self.clock() - cached.received < cached.ttl():
            self.counts["coredns_cache_hits_total"] += 1
            return cached
        question = DNSRecord.question(str(qname), "A")
        question.q.qtype = qtype
        question.add_ar(EDNS0(udp_len=UDP_SIZE))
        servers = self._usable_nameservers()
        answer = None
        for server in (2 * servers)[: max(2, len(servers))]:  # a datagram may get lost
            question.header.id = random.SystemRandom().randrange(65536)
            try:
                reply = await ask(server, question)
            except OSError:
                self._last(server)
                continue
            answer = Outside(reply.header.rcode, list(reply.rr), list(reply.auth), self.clock())
            if answer.rcode not in (RCODE.SERVFAIL, RCODE.REFUSED):
                break
        answer = answer or Outside(RCODE.SERVFAIL, [], [], self.clock())
        self.cache.pop(key, None)
        if answer.ttl():
            self.cache[key] = answer
        while len(self.cache) > CACHE_SIZE:
            self.cache.popitem(last=False)
        return answer

    def _usable_nameservers(self) -> list[Address]:
        """Return the nameservers that are not this server or another one of the cluster, else questions would loop."""
        return [s for s in self.nameservers if ipaddress.ip_address(s[0]).reverse_pointer not in self.table]

    def _last(self, server: Address) -> None:
        """Ask a nameserver that failed after all others from now on."""
        if server in self.nameservers:
            self.nameservers.remove(server)
            self.nameservers.append(server)

    # -------------------------------------------------------------- sockets

    async def listen(self, host: str, port: int) -> tuple[int, asyncio.DatagramTransport, asyncio.Server]:
        """Serve DNS over UDP and TCP; port 0 takes a free one. Returns the port, and what to close."""
        tcp = await asyncio.start_server(self._tcp_client, host, port)
        port = tcp.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        udp, _ = await loop.create_datagram_endpoint(lambda: _Listener(self), local_addr=(host, port))
        return port, udp, tcp

    def datagram(self, transport: asyncio.DatagramTransport, data: bytes, client: Address) -> None:
        """Answer one datagram."""
        if len(self.tasks) < FORWARDS:
            task = asyncio.create_task(self._datagram(transport, data, client))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _datagram(self, transport: asyncio.DatagramTransport, data: bytes, client: Address) -> None:
        reply = await self.answer(data)
        if reply is not None:
            transport.sendto(reply, client)

    async def _tcp_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client over TCP until it leaves or says nothing for ten seconds."""
        with contextlib.suppress(OSError, EOFError):
            while (reply := await self.answer(await asyncio.wait_for(_read_frame(reader), 10), tcp=True)) is not None:
                writer.write(_framed(reply))
                await writer.drain()
        writer.close()

    async def http_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the kubelet's probes and Prometheus."""
        with contextlib.suppress(OSError, ValueError, IndexError, EOFError, asyncio.LimitOverrunError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            path = head.split()[1]
            status, body = "200 OK", "OK\n"
            if path == b"/ready" and not self.ready:
                status, body = "503 Service Unavailable", "services and endpoints are not listed yet\n"
            elif path == b"/metrics":
                body = "".join(f"{name} {count}\n" for name, count in sorted(self.counts.items()))
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
            )
            await writer.drain()
        writer.close()


class _Listener(asyncio.DatagramProtocol):
    """The UDP socket of the server."""

    def __init__(self, server: ClusterDNS) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, client: Address) -> None:
        self.server.datagram(self.transport, data, client)  # type: ignore[arg-type]


def _identity(item: Mapping[str, Any]) -> tuple[str, str]:
    """Return an object's namespace and name."""
    return item["metadata"]["namespace"], item["metadata"]["name"]


# ------------------------------------------------------------------ the Kubernetes API


def follow(kind: str, request: Callable[[str, int], Any], deliver: Callable[..., object]) -> None:
    """List and watch one kind for ever, in a thread. While the API is away, the server answers from what it has.

    Args:
        kind: ``services`` or ``endpoints``.
        request: opens a path of the API with a time-out in seconds.
        deliver: takes ``replace`` or ``change`` and its arguments to the event loop.

    """
    while True:
        try:
            with request(f"/api/v1/{kind}", 30) as response:
                listed = json.load(response)
            deliver("replace", kind, listed.get("items") or [])
            version = listed["metadata"]["resourceVersion"]
            while True:
                query = f"watch=1&allowWatchBookmarks=1&timeoutSeconds=60&resourceVersion={version}"
                with request(f"/api/v1/{kind}?{query}", 75) as response:
                    for line in response:
                        event = json.loads(line)
                        if event["type"] == "ERROR":  # the version is too old: list again
                            raise OSError(event["object"].get("message"))
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            deliver("change", kind, event["type"], event["object"])
        except (OSError, HTTPException, ValueError, KeyError) as error:
            print(f"watch of {kind} ended, trying again: {error}", flush=True)
            time.sleep(1)


def api_request(path: str, timeout: int) -> Any:  # noqa: ANN401 (urllib's response)
    """Open a path of the API server as the pod's service account; its token changes and is read each time."""
    context = ssl.create_default_context(cafile=SERVICE_ACCOUNT / "ca.crt")
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    token = (SERVICE_ACCOUNT / "token").read_text()
    request = urllib.request.Request(f"https://{host}:{port}{path}", headers={"Authorization": f"Bearer {token}"})
    return urllib.request.urlopen(request, context=context, timeout=timeout)  # noqa: S310


# ------------------------------------------------------------------ start


def read_corefile(text: str) -> tuple[str, int]:
    """Return the cluster's zone and for how many seconds to serve on after SIGTERM."""
    zone = re.search(r"^\s*kubernetes\s+(\S+)", text, re.M)
    lameduck = re.search(r"^\s*lameduck\s+(\d+)s", text, re.M)
    return (zone[1].rstrip(".").lower() if zone else "cluster.local"), int(lameduck[1]) if lameduck else 0


def read_nameservers(text: str, own: Iterable[str]) -> list[Address]:
    """Return the nameservers of a resolv.conf but for loopback and own addresses, which would be this server."""
    found = [address.split("%")[0] for address in re.findall(r"^nameserver\s+(\S+)", text, re.M)]
    return [(a, 53) for a in found if not ipaddress.ip_address(a).is_loopback and a not in own]


async def serve(corefile: str) -> None:
    """Serve until SIGTERM."""
    zone, lameduck = read_corefile(corefile)
    try:
        own = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        own = set()
    server = ClusterDNS(zone, read_nameservers(Path("/etc/resolv.conf").read_text(), own))
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def deliver(method: str, *args: object) -> None:
        loop.call_soon_threadsafe(partial(getattr(server, method), *args))

    for kind in KINDS:
        threading.Thread(target=follow, args=(kind, api_request, deliver), daemon=True).start()
    await server.listen("0.0.0.0", 53)  # noqa: S104 (a pod's own address)
    for port in (8080, 8181, 9153):
        await asyncio.start_server(server.http_client, "0.0.0.0", port)  # noqa: S104
    print(f"serving {zone}, forwarding to {[address for address, _ in server.nameservers]}", flush=True)
    await stop.wait()
    await asyncio.sleep(lameduck)  # until kube-proxy sends nobody here any more


def main() -> None:
    """Read CoreDNS' own argument and serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-conf", type=Path, default=Path("/etc/coredns/Corefile"), help="Corefile")
    asyncio.run(serve(parser.parse_args().conf.read_text()))


if __name__ == "__main__":
    main()
