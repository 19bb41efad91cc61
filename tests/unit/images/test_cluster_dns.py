"""The cluster's DNS server: its records, and its answers over real sockets on loopback."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dnslib import AAAA, CNAME, EDNS0, QTYPE, RCODE, RR, SOA, A, DNSRecord

ZONE = "cluster.local"


def load() -> ModuleType:
    path = Path(__file__).parents[3] / "images" / "kubernetes" / "cluster_dns.py"
    spec = importlib.util.spec_from_file_location("cluster_dns", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["cluster_dns"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


dns = load()


def service(name: str, **spec: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"metadata": {"namespace": "default", "name": name}, "spec": spec}


SERVICES = [
    service("web", clusterIP="10.96.0.20", ports=[{"name": "http", "port": 80, "protocol": "TCP"}, {"port": 81}]),
    service("db", clusterIP="None", ports=[{"name": "sql", "port": 5432}]),
    service("open", clusterIP="None", publishNotReadyAddresses=True),
    service("six", clusterIP="fd00::20"),
    service("out", type="ExternalName", externalName="files.example.com"),
    service("alias", type="ExternalName", externalName="web.default.svc.cluster.local."),
    service("pending", type="ClusterIP"),
    service("many", clusterIP="None"),
]
DB = {
    "metadata": {"namespace": "default", "name": "db"},
    "subsets": [
        {
            "addresses": [{"ip": "10.244.0.5", "hostname": "db-0"}, {"ip": "10.244.1.6"}],
            "notReadyAddresses": [{"ip": "10.244.1.7"}],
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
        }
    ],
}
OPEN = {
    "metadata": {"namespace": "default", "name": "open"},
    "subsets": [{"notReadyAddresses": [{"ip": "10.244.1.8"}]}],
}
MANY = {
    "metadata": {"namespace": "default", "name": "many"},
    "subsets": [{"addresses": [{"ip": f"10.244.2.{i}"} for i in range(1, 101)]}],
}


class Upstream:
    """A nameserver outside the cluster, over UDP and TCP on one port."""

    def __init__(self, name: str = "a.example.com") -> None:
        self.name = name
        self.asked: list[tuple[str, str]] = []
        self.address = ("", 0)

    def answer(self, data: bytes, *, tcp: bool) -> bytes:
        request = DNSRecord.parse(data)
        name, kind = str(request.q.qname), QTYPE[request.q.qtype]
        self.asked.append((name.lower(), "TCP" if tcp else kind))
        reply = request.reply(aa=0)
        label = name.split(".")[0].lower()
        if label == "none":
            reply.header.rcode = RCODE.NXDOMAIN
            reply.add_auth(RR("example.com", QTYPE.SOA, ttl=900, rdata=SOA("ns.", "x.", (1, 2, 3, 4, 20))))
        elif label == "broken":
            reply.header.rcode = RCODE.SERVFAIL
        elif label == "big" and not tcp:
            reply.header.tc = 1
        elif label == "big":
            for i in range(200):
                reply.add_answer(RR(name, QTYPE.A, ttl=60, rdata=A(f"198.51.100.{i}")))
        elif kind == "A":
            reply.add_answer(RR(name, QTYPE.CNAME, ttl=60, rdata=CNAME("cdn.example.com.")))
            reply.add_answer(RR("cdn.example.com", QTYPE.A, ttl=40, rdata=A("198.51.100.7")))
        elif kind == "AAAA":
            reply.add_answer(RR(name, QTYPE.AAAA, ttl=60, rdata=AAAA("2001:db8::7")))
        return bytes(reply.pack())

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        reply = self.answer(await reader.readexactly(size), tcp=True)
        writer.write(len(reply).to_bytes(2, "big") + reply)
        await writer.drain()
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Upstream]:
        tcp = await asyncio.start_server(self.client, "127.0.0.1", 0)
        self.address = tcp.sockets[0].getsockname()
        upstream = self

        class Protocol(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:  # noqa: ANN401
                self.transport = transport

            def datagram_received(self, data: bytes, client: Any) -> None:  # noqa: ANN401
                self.transport.sendto(upstream.answer(data, tcp=False), client)

        loop = asyncio.get_running_loop()
        udp, _ = await loop.create_datagram_endpoint(Protocol, local_addr=self.address)
        yield self
        udp.close()
        tcp.close()


class Site:
    """A running server with what tests need to ask it."""

    def __init__(self, upstream: Upstream) -> None:
        self.now = 1000.0
        self.upstream = upstream
        self.server = dns.ClusterDNS(ZONE, [tuple(upstream.address)], clock=lambda: self.now)
        self.port = 0

    def fill(self) -> None:
        self.server.replace("services", SERVICES)
        self.server.replace("endpoints", [DB, OPEN, MANY])

    async def send(self, data: bytes, *, tcp: bool = False) -> bytes:
        def exchange() -> bytes:
            if tcp:
                with socket.create_connection(("127.0.0.1", self.port), 5) as stream:
                    stream.sendall(len(data).to_bytes(2, "big") + data)
                    file = stream.makefile("rb")
                    return file.read(int.from_bytes(file.read(2), "big"))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                datagrams.settimeout(5)
                datagrams.sendto(data, ("127.0.0.1", self.port))
                return datagrams.recv(65535)

        return await asyncio.to_thread(exchange)

    async def ask(self, name: str, kind: str = "A", *, tcp: bool = False, size: int = 0) -> DNSRecord:
        question = DNSRecord.question(name, kind)
        if size:
            question.add_ar(EDNS0(udp_len=size))
        reply = DNSRecord.parse(await self.send(question.pack(), tcp=tcp))
        assert reply.header.id == question.header.id
        return reply


def on_site(test: Callable[[Site], Awaitable[None]], *, filled: bool = True) -> None:
    """Run one test against a server and a nameserver outside."""

    async def run() -> None:
        async with Upstream().running() as upstream:
            site = Site(upstream)
            if filled:
                site.fill()
            site.port, udp, tcp = await site.server.listen("127.0.0.1", 0)
            try:
                await test(site)
            finally:
                udp.close()
                tcp.close()

    asyncio.run(run())


def values(reply: DNSRecord) -> list[str]:
    return sorted(f"{QTYPE[rr.rtype]} {rr.rdata}" for rr in reply.rr)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.default.svc.cluster.local", "A", ["A 10.96.0.20"]),
        ("WEB.Default.SVC.cluster.local", "A", ["A 10.96.0.20"]),
        ("web.default.svc.cluster.local", "AAAA", []),
        ("web.default.svc.cluster.local", "TXT", []),
        ("web.default.svc.cluster.local", "HTTPS", []),
        ("six.default.svc.cluster.local", "AAAA", ["AAAA fd00::20"]),
        ("pending.default.svc.cluster.local", "A", []),
        ("_http._tcp.web.default.svc.cluster.local", "SRV", ["SRV 0 100 80 web.default.svc.cluster.local."]),
        ("_tcp.web.default.svc.cluster.local", "SRV", []),
        ("default.svc.cluster.local", "A", []),
        ("20.0.96.10.in-addr.arpa", "PTR", ["PTR web.default.svc.cluster.local."]),
        ("5.0.244.10.in-addr.arpa", "PTR", ["PTR db-0.db.default.svc.cluster.local."]),
        ("db.default.svc.cluster.local", "A", ["A 10.244.0.5", "A 10.244.1.6"]),
        ("db-0.db.default.svc.cluster.local", "A", ["A 10.244.0.5"]),
        ("10-244-1-6.db.default.svc.cluster.local", "A", ["A 10.244.1.6"]),
        (
            "_sql._tcp.db.default.svc.cluster.local",
            "SRV",
            [
                "SRV 0 100 5432 10-244-1-6.db.default.svc.cluster.local.",
                "SRV 0 100 5432 db-0.db.default.svc.cluster.local.",
            ],
        ),
        ("open.default.svc.cluster.local", "A", ["A 10.244.1.8"]),
        ("10-244-1-6.default.pod.cluster.local", "A", ["A 10.244.1.6"]),
        ("10-244-1-6.default.pod.cluster.local", "AAAA", []),
        ("alias.default.svc.cluster.local", "A", ["A 10.96.0.20", "CNAME web.default.svc.cluster.local."]),
        ("dns-version.cluster.local", "TXT", ['TXT "1.1.0"']),
        ("cluster.local", "SOA", ["SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"]),
    ],
)
def test_names_of_the_cluster(name: str, kind: str, expected: list[str]) -> None:
    async def test(site: Site) -> None:
        reply = await site.ask(name, kind)
        assert values(reply) == expected
        assert RCODE[reply.header.rcode] == "NOERROR"
        assert (reply.header.aa, reply.header.ra) == (1, 1)
        assert [QTYPE[rr.rtype] for rr in reply.auth] == ([] if expected else ["SOA"])
        assert all(rr.ttl == dns.TTL for rr in reply.rr)
        assert site.upstream.asked == []

    on_site(test)


@pytest.mark.parametrize(
    "name",
    [
        "nope.default.svc.cluster.local",
        "web.other.svc.cluster.local",
        "db-0.web.default.svc.cluster.local",
        "10-244-1-999.default.pod.cluster.local",
        "files.example.com.default.svc.cluster.local",
    ],
)
def test_unknown_names_of_the_cluster_are_not_asked_elsewhere(name: str) -> None:
    async def test(site: Site) -> None:
        reply = await site.ask(name)
        assert RCODE[reply.header.rcode] == "NXDOMAIN"
        assert [QTYPE[rr.rtype] for rr in reply.auth] == ["SOA"]
        assert (reply.rr, site.upstream.asked) == ([], [])

    on_site(test)


def test_changes_are_answered_at_once() -> None:
    async def test(site: Site) -> None:
        new = service("new", clusterIP="10.96.0.99")
        site.server.change("services", "ADDED", new)
        assert values(await site.ask("new.default.svc.cluster.local")) == ["A 10.96.0.99"]
        site.server.change("services", "MODIFIED", service("new", clusterIP="10.96.0.98"))
        assert values(await site.ask("new.default.svc.cluster.local")) == ["A 10.96.0.98"]
        site.server.change("services", "DELETED", new)
        assert RCODE[(await site.ask("new.default.svc.cluster.local")).header.rcode] == "NXDOMAIN"

    on_site(test)


def test_nothing_is_denied_before_the_lists_are_there() -> None:
    async def test(site: Site) -> None:
        site.server.replace("services", SERVICES)
        reply = await site.ask("web.default.svc.cluster.local")
        assert RCODE[reply.header.rcode] == "SERVFAIL"
        assert not site.server.ready

    on_site(test, filled=False)


def test_outside_names_are_forwarded_and_kept_for_their_ttl() -> None:
    async def test(site: Site) -> None:
        first = await site.ask("www.example.com")
        assert values(first) == ["A 198.51.100.7", "CNAME cdn.example.com."]
        assert (first.header.aa, first.header.ra) == (0, 1)
        site.now += 30
        second = await site.ask("WWW.example.com")
        assert sorted(rr.ttl for rr in second.rr) == [10, 30]
        assert len(site.upstream.asked) == 1
        assert values(await site.ask("www.example.com", "AAAA")) == ["AAAA 2001:db8::7"]
        site.now += 11
        await site.ask("www.example.com")
        assert [kind for _, kind in site.upstream.asked] == ["A", "AAAA", "A"]
        assert site.server.counts["coredns_cache_hits_total"] == 1

    on_site(test)


def test_negative_answers_are_kept_as_the_soa_says() -> None:
    async def test(site: Site) -> None:
        for seconds, asked in ((0, 1), (19, 1), (2, 2)):
            site.now += seconds
            reply = await site.ask("none.example.com")
            assert RCODE[reply.header.rcode] == "NXDOMAIN"
            assert [QTYPE[rr.rtype] for rr in reply.auth] == ["SOA"]
            assert len(site.upstream.asked) == asked

    on_site(test)


def test_external_name_brings_the_addresses_along() -> None:
    async def test(site: Site) -> None:
        reply = await site.ask("out.default.svc.cluster.local")
        assert values(reply) == ["A 198.51.100.7", "CNAME cdn.example.com.", "CNAME files.example.com."]

    on_site(test)


def test_long_answers_are_truncated_over_udp_and_whole_over_tcp() -> None:
    async def test(site: Site) -> None:
        for name, count in (("many.default.svc.cluster.local", 100), ("big.example.com", 200)):
            short = await site.ask(name)
            assert (short.header.tc, short.rr) == (1, [])
            assert len((await site.ask(name, tcp=True)).rr) == count
        few = await site.ask("db.default.svc.cluster.local", size=4096)
        assert few.header.tc == 0
        assert [rr.rtype for rr in few.ar] == [QTYPE.OPT]

    on_site(test)


def test_size_of_datagrams_follows_the_client() -> None:
    async def test(site: Site) -> None:
        site.server.change(
            "endpoints", "MODIFIED", {**MANY, "subsets": [{"addresses": MANY["subsets"][0]["addresses"][:40]}]}
        )
        name = "many.default.svc.cluster.local"
        assert (await site.ask(name)).header.tc == 1
        assert (await site.ask(name, size=800)).header.tc == 0
        assert (await site.ask(name, size=600)).header.tc == 1

    on_site(test)


def test_a_dead_nameserver_goes_to_the_end() -> None:
    async def test(site: Site) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
            unused.bind(("127.0.0.1", 0))
            dead = unused.getsockname()
        site.server.nameservers.insert(0, dead)
        assert values(await site.ask("www.example.com"))
        assert site.server.nameservers == [tuple(site.upstream.address), dead]

    on_site(test)


def test_without_nameservers_clients_hear_so_and_it_is_not_forgotten() -> None:
    async def test(site: Site) -> None:
        assert RCODE[(await site.ask("broken.example.com")).header.rcode] == "SERVFAIL"
        assert RCODE[(await site.ask("broken.example.com")).header.rcode] == "SERVFAIL"
        assert len(site.upstream.asked) == 2  # tried twice for the first, not at all for the second
        site.server.nameservers.clear()
        assert RCODE[(await site.ask("www.example.com")).header.rcode] == "SERVFAIL"

    on_site(test)


def test_questions_do_not_loop() -> None:
    async def test(site: Site) -> None:
        site.server.change("services", "ADDED", service("kube-dns", clusterIP="127.0.0.1"))
        assert RCODE[(await site.ask("www.example.com")).header.rcode] == "SERVFAIL"
        assert site.upstream.asked == []

    on_site(test)
    text = "search lab\nnameserver 127.0.0.53\nnameserver 10.244.0.9\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n"
    assert dns.read_nameservers(text, own={"10.244.0.9"}) == [("192.0.2.53", 53), ("fe80::1", 53)]


def test_strange_messages() -> None:
    async def test(site: Site) -> None:
        answer = site.server.answer
        assert await answer(b"\x00") is None
        assert await answer(DNSRecord.question("web.default.svc.cluster.local").reply().pack()) is None
        update = DNSRecord.question("web.default.svc.cluster.local")
        update.header.opcode = 5
        assert RCODE[DNSRecord.parse(await site.send(update.pack())).header.rcode] == "NOTIMP"
        empty = DNSRecord()
        assert RCODE[DNSRecord.parse(await site.send(empty.pack())).header.rcode] == "FORMERR"
        assert values(await site.ask("web.default.svc.cluster.local")) == ["A 10.96.0.20"]

    on_site(test)


def test_cache_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "CACHE_SIZE", 2)

    async def test(site: Site) -> None:
        for name in ("a.example.com", "b.example.com", "c.example.com"):
            await site.ask(name)
        assert [name for name, _ in site.server.cache] == ["b.example.com", "c.example.com"]

    on_site(test)


def test_probes_and_metrics() -> None:
    async def test(site: Site) -> None:
        web = await asyncio.start_server(site.server.http_client, "127.0.0.1", 0)
        host, port = web.sockets[0].getsockname()

        async def get(path: str) -> str:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            text = (await reader.read()).decode()
            writer.close()
            return text

        assert (await get("/health")).startswith("HTTP/1.1 200 ")
        assert (await get("/ready")).startswith("HTTP/1.1 503 ")
        site.fill()
        assert (await get("/ready")).startswith("HTTP/1.1 200 ")
        await site.ask("nope.cluster.local")
        assert 'coredns_dns_responses_total{rcode="NXDOMAIN"} 1\n' in await get("/metrics")
        web.close()

    on_site(test, filled=False)


def test_corefile_is_the_one_that_kubeadm_writes() -> None:
    corefile = """.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes lab.example in-addr.arpa ip6.arpa {
       pods insecure
       ttl 30
    }
}
"""
    assert dns.read_corefile(corefile) == ("lab.example", 5)
    assert dns.read_corefile(".:53 {\n}\n") == ("cluster.local", 0)
