"""What one user tries to get at another's home. Every attempt has to fail for the reason that is meant."""

from __future__ import annotations

import json
import time

import pytest
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubError
from hub_homes import stable_uid
from lab import wait_for
from people import ADA, LINUS, Person, Site

SECRET = "only Linus reads this"
MOUNTD, NFSD = 20048, 2049
# Any program can be an NFS client: this one speaks to mountd and nfsd (RFC 1813) without the kernel, as whom it likes.
NFS_CLIENT = """
import errno, os, socket, struct, sys

def connect(port):
    # Only root has a port below 1024, which a server may insist on; the machine's own mounts have some of them.
    for local in range(1023, 600, -1) if os.getuid() == 0 else [0]:
        try:
            return socket.create_connection(({server!r}, port), 10, ("", local))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise

def opaque(data):
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)

def call(connection, program, procedure, arguments):
    credentials = struct.pack(">I", 0) + opaque(b"anyone") + struct.pack(">III", {uid}, {uid}, 0)
    head = struct.pack(">IIIIII", 1, 0, 2, program, 3, procedure) + struct.pack(">I", 1) + opaque(credentials)
    request = head + bytes(8) + arguments
    connection.sendall(struct.pack(">I", 1 << 31 | len(request)) + request)
    answer = connection.makefile("rb")
    length = struct.unpack(">I", answer.read(4))[0] & 0x7FFFFFFF
    reply = answer.read(length)[24:]
    status = struct.unpack(">I", reply[:4])[0]
    if status:
        sys.exit(f"status {{status}}")
    return reply[4:]

def first(data):
    length = struct.unpack(">I", data[:4])[0]
    return data[4:4 + length]

try:
    handle = first(call(connect({mountd}), 100005, 1, opaque({path!r}.encode())))
    nfsd = connect({nfsd})
    for name in ("homes", {user!r}, "secret.txt"):
        handle = first(call(nfsd, 100003, 3, opaque(handle) + opaque(name.encode())))
    data = call(nfsd, 100003, 6, opaque(handle) + struct.pack(">QI", 0, 4096))
    print(first(data[4 + 84 + 8:]).decode())  # after the attributes, their mark, count and end
except OSError as error:
    print(type(error).__name__)
"""
LISTEN = """
import socket
for port in {ports}:
    try:
        socket.create_connection(({server!r}, port), timeout=10).close()
        print(port, "answers")
    except OSError as error:
        print(port, type(error).__name__)
"""


@pytest.fixture(scope="module", autouse=True)
def secret(people: dict[str, Person]) -> None:
    people[LINUS].run(f"open('secret.txt', 'w').write({SECRET!r})")


def test_each_server_runs_as_its_owner(site: Site, ada: Person, linus: Person) -> None:
    """A user number each, which owns the home and nothing else; 0700."""
    look = "import os; s = os.stat(os.path.expanduser('~')); print(os.getuid(), os.getgid(), s.st_uid, oct(s.st_mode))"
    for person in (ada, linus):
        uid = stable_uid(person.name)
        assert person.run(look) == f"{uid} {uid} {uid} 0o40700"
        assert site.run(site.nfs_server, f"stat -c '%u %a' {site.nfs_path}/homes/{person.name}") == f"{uid} 700\n"


def test_a_server_sees_its_own_home_only(ada: Person) -> None:
    assert ada.run("import os; print(os.listdir('/home'))") == f"['{ADA}']"
    for path in (f"/home/{LINUS}", f"/home/{ADA}/../{LINUS}", f"/proc/1/root/home/{LINUS}", "/volume"):
        said = ada.run(
            f"import os\ntry: print(os.listdir({path!r}))\nexcept OSError as error: print(type(error).__name__)"
        )
        assert said == "FileNotFoundError", path


def test_links_lead_nowhere(ada: Person) -> None:
    """Neither into another home from within, nor does anything follow them from outside at the next start."""
    code = f"""
import os
os.chdir(os.path.expanduser("~"))
for target in ("../{LINUS}", "/volume/homes/{LINUS}", "/home/{LINUS}"):
    os.symlink(target, "link")
    print(os.path.exists("link/secret.txt"))
    os.remove("link")
    for make in (os.link, os.rename):
        try:
            make(target + "/secret.txt", "taken")
        except OSError as error:
            print(type(error).__name__)
os.symlink("/volume/homes/{LINUS}", "link")
"""
    assert ada.run(code).split() == ["False", "FileNotFoundError", "FileNotFoundError"] * 3
    ada.stop()
    ada.start()
    assert ada.run("import os; print(os.listdir('/home'), os.path.exists('link/secret.txt'))") == f"['{ADA}'] False"


def test_a_home_cannot_be_replaced(ada: Person) -> None:
    """The kubelet and root's programs on the server come to the name of a home, and would follow it."""
    code = f"""
import os
for act in (lambda: os.rename("/home/{ADA}", "/home/x"), lambda: os.symlink("/", "/home/{LINUS}"),
            lambda: os.rmdir("/home/{ADA}"), lambda: os.mkdir("/home/{LINUS}")):
    try:
        act()
        print("done")
    except OSError as error:
        print(type(error).__name__)
"""
    said = ada.run(code).split()
    assert "done" not in said
    assert len(said) == 4


def test_another_number_does_not_open_a_home(site: Site) -> None:
    """What holds where both are in sight: on the server, as one user's number, without rights."""
    program = f"setpriv --reuid {stable_uid(ADA)} --regid {stable_uid(ADA)} --clear-groups"
    look = f"{program} cat {site.nfs_path}/homes/{LINUS}/secret.txt 2>&1 || true"
    assert "Permission denied" in site.run(site.nfs_server, look)
    own = f"{program} test -w {site.nfs_path}/homes/{ADA} && echo writes"
    assert site.run(site.nfs_server, own) == "writes\n", "the number is none that opens nothing at all"


def test_root_of_a_node_is_nobody_to_the_homes(site: Site) -> None:
    """Though the kubelet, which is root, brings each home into its pod."""
    look = f"""
cd /var/lib/kubelet/pods/{site.pod(LINUS).metadata.uid}/volumes/kubernetes.io~nfs/homes/homes || exit 9
stat -c %u {LINUS}
for attempt in "ls ." "ls {LINUS}" "cat {LINUS}/secret.txt" "chown 0 {LINUS}" "rmdir {ADA}" "touch ../x"; do
  $attempt >/dev/null 2>&1 && echo "done: $attempt"
done
exit 0"""
    node = next(n for n, address in site.addresses.items() if address == site.pod(LINUS).status.host_ip)
    assert site.run(node, look) == f"{stable_uid(LINUS)}\n"


def test_an_nfs_client_in_a_server_reaches_none(site: Site, ada: Person) -> None:
    """The same program, run on a node, reads the file: it is the guard alone that stands in the way."""
    values = {
        "server": site.addresses[site.nfs_server],
        "mountd": MOUNTD,
        "nfsd": NFSD,
        "path": site.nfs_path,
        "user": LINUS,
        "uid": stable_uid(LINUS),
    }
    program = NFS_CLIENT.format(**values)
    node = next(name for name in site.machines if name != site.nfs_server)
    assert site.run(node, "python3 -", program.encode()) == f"{SECRET}\n"
    assert ada.run(program) == "ConnectionRefusedError"


def test_no_service_of_the_server_is_open(site: Site, ada: Person) -> None:
    for address in site.addresses.values():
        said = ada.run(LISTEN.format(ports=(22, 111, MOUNTD, NFSD, 10250, 2379), server=address)).splitlines()
        assert {line.split(" ", 1)[1] for line in said} == {"ConnectionRefusedError"}, said


def test_a_server_has_no_way_to_make_pods(site: Site, ada: Person) -> None:
    """There is no token, and without one Kubernetes answers nothing that concerns pods."""
    assert ada.run("import os; print(os.path.exists('/var/run/secrets/kubernetes.io'))") == "False"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "mine"},
        "spec": {
            "containers": [{"name": "c", "image": "x", "volumeMounts": [{"name": "homes", "mountPath": "/h"}]}],
            "volumes": [{"name": "homes", "persistentVolumeClaim": {"claimName": "homes"}}],
        },
    }
    code = f"""
import json, ssl, urllib.error, urllib.request
opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({{}}), urllib.request.HTTPSHandler(context=ssl._create_unverified_context()))
base = "https://kubernetes.default.svc/api/v1/namespaces/{site.namespace}"
for path, data in (("/pods", None), ("/secrets", None), ("/pods", {json.dumps(pod)!r}.encode())):
    request = urllib.request.Request(base + path, data, {{"Content-Type": "application/json"}})
    try:
        print(opener.open(request, timeout=20).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
    assert set(ada.run(code).split()) <= {"401", "403"}


def test_a_server_s_own_token_is_good_for_itself_only(ada: Person) -> None:
    """It is in the environment of every kernel."""
    code = f"""
import os, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
head = {{"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]}}
for method, path in (("GET", "/user"), ("GET", "/users/{LINUS}"), ("POST", "/users/{LINUS}/server"), ("GET", "/users"),
                     ("POST", "/users/{LINUS}/tokens"), ("POST", "/users/mallory"), ("PATCH", "/users/{ADA}")):
    request = urllib.request.Request(os.environ["JUPYTERHUB_API_URL"] + path, method=method, headers=head, data=b"{{}}")
    try:
        print(opener.open(request, timeout=20).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
    said = ada.run(code).split()
    assert said[0] == "200", "the token works"
    assert set(said[1:]) <= {"403", "404"}


def test_another_s_server_asks_who_is_there(site: Site, ada: Person) -> None:
    """Its pod is reached without the proxy, and asks the hub who it is all the same."""
    address = site.pod(LINUS).status.pod_ip
    code = f"""
import os, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
for head in ({{}}, {{"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]}}):
    url = "http://{address}:8888/user/{LINUS}/api/contents/secret.txt"
    try:
        print(opener.open(urllib.request.Request(url, headers=head), timeout=20).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
    assert set(ada.run(code).split()) <= {"401", "403"}


def test_a_home_of_somebody_else_is_refused_at_once(site: Site, ada: Person) -> None:
    """Whoever was to have it is told why, with what an admin does about it."""
    home = f"{site.nfs_path}/homes/{ADA}"
    ada.stop()
    site.run(site.nfs_server, f"chown 1234 {home}")
    # Nodes remember for a while whose a directory is.
    mounted = f"stat -c %u /var/lib/kubelet/pods/*/volumes/kubernetes.io~nfs/homes/homes/{ADA} 2>/dev/null || true"
    for machine in site.machines:
        wait_for("a node sees the owner", lambda name=machine: set(site.run(name, mounted).split()) <= {"1234"}, 90)
    try:
        begin = time.monotonic()
        with pytest.raises(HubError, match=r"belongs to user number 1234, .* chown -hR --from=1234"):
            ada.start()
        assert time.monotonic() - begin < 60, "the kubelet went on trying"
    finally:
        site.run(site.nfs_server, f"chown {stable_uid(ADA)} {home}")
    wait_for("the refused server's end", lambda: not site.pods(ADA), 60)
    ada.start()


@pytest.mark.parametrize(
    "options",
    [
        {"environment": "standard", "node": "master"},
        {"environment": "standard", "volume_mounts": [{"name": "homes", "mountPath": "/h"}]},
        {"environment": "../standard"},
        {"image": "localhost/x"},
    ],
)
def test_nothing_else_than_a_choice_can_be_asked_for(ada: Person, options: dict[str, object]) -> None:
    ada.stop()
    with pytest.raises(HubError, match=r"There is no (?:option|environment) "):
        ada.hub.start_server(ADA, options, 60)
    ada.start()
