"""Content keys, parents, the machine's settings as files, and command lines."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.module_utils import images
from ansible_collections.jhok.lab.plugins.module_utils.images import Entry, ImageError, Rootfs, Settings

FOLDERS = Path(__file__).parents[3] / "images"
BASE = {"Containerfile": Entry("file", b"FROM localhost/jhok/tools\n"), "run": Entry("executable", b"#!/bin/sh\n")}
PRIVATE = Settings(
    debian="https://deb:s3cret%2Fdeb@mirror.example.org/debian",
    debian_security="http://mirror.example.org/debian-security",
    pypi="https://pip:s3cret-pip@mirror.example.org/simple",
    npm="https://npm:s3cret-npm@mirror.example.org/npm/",
    apt_options=('Acquire::http::Proxy "http://p:s3cret-aptproxy@proxy.example.org:3128/";',),
    apt_auth="machine other.example.org login me password s3cret-auth\n",
    pip_timeout="180",
    trusted_hosts="mirror.example.org",
    npm_auth=("//other.example.org/:_authToken=s3cret-token",),
    proxies={"https_proxy": "http://p:s3cret-proxy@proxy.example.org:3128"},
    go={"GOPROXY": "https://go:s3cret-go@mirror.example.org/go|direct", "GONOSUMDB": "example.org"},
)
SECRETS = (
    "s3cret/deb",
    "s3cret-pip",
    "s3cret-npm",
    "s3cret-aptproxy",
    "s3cret-auth",
    "s3cret-token",
    "s3cret-proxy",
    "s3cret-go",
)


def key(**changed: object) -> str:
    inputs: dict[str, Any] = {
        "files": BASE,
        "target": "",
        "epoch": "",
        "build_args": {},
        "parent_keys": {"tools": "a" * 16},
    }
    return images.content_key(**(inputs | changed))


def test_key_is_stable_and_independent_of_order() -> None:
    assert key() == key(files=dict(reversed(BASE.items())))
    assert re.fullmatch(r"[0-9a-f]{16}", key())


@pytest.mark.parametrize(
    "changed",
    [
        {"files": {**BASE, "run": Entry("executable", b"#!/bin/bash\n")}},
        {"files": {**BASE, "run": Entry("file", b"#!/bin/sh\n")}},
        {"files": {**BASE, "more": Entry("file", b"")}},
        {"files": {"Containerfile": BASE["Containerfile"], "start": BASE["run"]}},
        {"target": "hub"},
        {"epoch": "2026-12"},
        {"build_args": {"VERSION": "2"}},
        {"parent_keys": {"tools": "b" * 16}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_key_follows_every_input(changed: dict[str, Any]) -> None:
    assert key(**changed) != key()


def test_parents_are_found_wherever_a_containerfile_can_name_them() -> None:
    text = """\
# FROM localhost/jhok/commented
FROM localhost/jhok/base AS build
RUN --mount=type=bind,from=localhost/jhok/tools,source=/opt,target=/opt true
FROM example.localhost/jhok/foreign
FROM --platform=linux/amd64 localhost/jhok/group/nodejs:latest
COPY --from=localhost/jhok/base --chmod=0755 /a /a
COPY --from=build /b /b
"""
    assert images.parents(text) == ["base", "group/nodejs", "tools"]
    pinned = images.pin_parents(text, {"base": "b1", "tools": "t1", "group/nodejs": "n1"})
    assert "FROM localhost/jhok/base:b1 AS build" in pinned
    assert "from=localhost/jhok/tools:t1,source=/opt" in pinned
    assert "localhost/jhok/group/nodejs:n1\n" in pinned
    assert "--from=localhost/jhok/base:b1 --chmod" in pinned
    assert "example.localhost/jhok/foreign\n" in pinned
    assert "--from=build /b" in pinned


@pytest.mark.parametrize("name", ["Hub", "hub:1", "../hub", "/hub", "hub/", "", "hub latest", "a__b"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match=r"^name: "):
        images.check_name(name)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "exactly the keys"),
        ({"suite": "trixie", "variant": "minbase"}, "exactly the keys"),
        ({"suite": "trixie", "variant": "minbase", "include": [], "more": 1}, "exactly the keys"),
        ({"suite": "--help", "variant": "minbase", "include": []}, "suite is '--help'"),
        ({"suite": "trixie", "variant": "tiny", "include": []}, "variant is 'tiny'"),
        ({"suite": "trixie", "variant": "minbase", "include": "curl"}, "include is 'curl'"),
        ({"suite": "trixie", "variant": "minbase", "include": ["curl;id"]}, "include is"),
    ],
)
def test_bad_rootfs_is_refused_with_its_file(data: object, says: str) -> None:
    with pytest.raises(ImageError, match=rf"^x/rootfs\.yml: .*{says}"):
        images.check_rootfs(data, "x/rootfs.yml")


def test_debian_mirrors_of_an_ordinary_machine() -> None:
    targets = (
        "Docker|Docker CE|https://docker.example.org/debian/\n"
        "Debian|Debian|cdrom:[Debian GNU/Linux 12]/\n"
        "Debian|Debian-Security|http://mirror.example.org/debian-security/\n"
        "Debian|Debian|http://mirror.example.org/debian/\n"
        "Debian|Debian|http://second.example.org/debian/\n"
    )
    assert images.debian_mirrors(targets, lambda _: "") == (
        "http://mirror.example.org/debian",
        "http://mirror.example.org/debian-security",
    )


def test_debian_mirrors_of_a_cloud_image_are_read_from_their_list() -> None:
    lists = {"/etc/apt/mirrors/debian.list": "https://one.example.org/debian\nhttps://two.example.org/debian\n"}
    targets = "Debian|Debian|mirror+file:/etc/apt/mirrors/debian.list/\n"
    assert images.debian_mirrors(targets, lambda path: lists.get(path, "")) == ("https://one.example.org/debian", "")


def test_a_machine_without_debian_has_no_mirrors() -> None:
    assert images.debian_mirrors("Ubuntu|Ubuntu|http://mirror.example.org/ubuntu/\n||\n", lambda _: "") == ("", "")


def test_apt_options_are_those_about_reaching_mirrors() -> None:
    dump = (
        'Acquire "";\nAcquire::http::Proxy "http://proxy:3128/";\nAcquire::http::Proxy::local.example.org "DIRECT";\n'
        'Acquire::https::Verify-Peer "false";\nAcquire::https::CaInfo "/etc/x.crt";\nAcquire::Check-Date "false";\n'
        'APT::Install-Recommends "1";\nAcquire::Languages:: "none";\n'
    )
    assert images.apt_options(dump) == [
        'Acquire::http::Proxy "http://proxy:3128/";',
        'Acquire::http::Proxy::local.example.org "DIRECT";',
        'Acquire::https::Verify-Peer "false";',
        'Acquire::Check-Date "false";',
    ]


def test_pip_options_of_the_environment_win() -> None:
    listed = (
        ":env:.index-url='https://env.example.org/simple'\nglobal.index-url='https://file.example.org/simple'\n"
        "global.timeout='30'\ninstall.trusted-host='\\na\\nb'\nnonsense\nglobal.broken=(\n"
    )
    assert images.pip_options(listed) == {
        "index-url": "https://env.example.org/simple",
        "timeout": "30",
        "trusted-host": "a b",
    }


def sourced(env: str) -> dict[str, str]:
    """The environment after a shell has read the fragment."""
    script = "set -a; . /dev/stdin; env -0"
    out = subprocess.run(
        ["env", "-i", "sh", "-c", script], input=env, capture_output=True, text=True, check=True
    ).stdout
    return dict(item.split("=", 1) for item in out.split("\0") if item)


def test_files_of_a_machine_without_settings_leave_the_tools_to_their_defaults() -> None:
    files = images.build_files(Settings())
    env = sourced(files["env"])
    assert env["APT_CONFIG"] == "/run/build/apt.conf"
    assert env["SSL_CERT_FILE"] == env["NODE_EXTRA_CA_CERTS"] == "/run/build/ca.crt"
    assert not {"UV_DEFAULT_INDEX", "http_proxy", "UV_HTTP_TIMEOUT", "GOPROXY"} & set(env)
    assert "index-url" not in files["pip.conf"]
    assert "registry" not in files["npmrc"]
    assert "://" not in "".join(files.values())


def test_files_of_a_machine_with_private_mirrors() -> None:
    files = images.build_files(PRIVATE, "/mnt/x")
    env = sourced(files["env"])
    assert env["UV_DEFAULT_INDEX"] == PRIVATE.pypi
    assert env["https_proxy"] == env["HTTPS_PROXY"] == PRIVATE.proxies["https_proxy"]
    assert (env["GOPROXY"], env["GONOSUMDB"]) == (PRIVATE.go["GOPROXY"], "example.org")
    assert env["PIP_CONFIG_FILE"] == "/mnt/x/pip.conf"
    assert "machine https://mirror.example.org/debian login deb password s3cret/deb" in files["auth.conf"]
    assert "machine other.example.org login me password s3cret-auth" in files["auth.conf"]
    assert f"index-url = {PRIVATE.pypi}" in files["pip.conf"]
    assert "registry=https://mirror.example.org/npm/\n" in files["npmrc"]
    token = base64.b64encode(b"npm:s3cret-npm").decode()
    assert f"//mirror.example.org/npm/:_auth={token}\n" in files["npmrc"]
    assert PRIVATE.apt_options[0] in files["apt.conf"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ""),
        ("https://a.example.org,direct", "https://a.example.org,direct"),
        (
            "file:///srv/go,https://a.example.org|https://b.example.org,off",
            "https://a.example.org|https://b.example.org,off",
        ),
        ("https://a.example.org|file:///srv/go,direct", "https://a.example.org,direct"),
        ("file:///srv/go", ""),
    ],
)
def test_a_build_is_told_of_no_folder_as_module_proxy(given: str, expected: str) -> None:
    assert images.go_proxies(given) == expected


def test_a_percent_sign_in_an_index_survives_pip() -> None:
    files = images.build_files(Settings(pypi="https://u:a%2Fb@mirror.example.org/simple"))
    assert "index-url = https://u:a%%2Fb@mirror.example.org/simple" in files["pip.conf"]


def test_env_quotes_what_a_shell_would_read() -> None:
    env = sourced(images.build_files(Settings(pypi="https://m.example.org/a b;$(id)'\""))["env"])
    assert env["UV_DEFAULT_INDEX"] == "https://m.example.org/a b;$(id)'\""


@pytest.mark.parametrize("secret", SECRETS)
def test_redact_hides_each_login_by_itself_and_in_its_url(secret: str) -> None:
    hidden = images.secrets(PRIVATE)
    text = "\n".join([f"bare {secret} end", *images.build_files(PRIVATE).values()])
    assert secret not in images.redact(text, hidden)
    assert "bare *** end" in images.redact(text, hidden)


def test_redact_hides_the_quoted_form_and_unknown_logins() -> None:
    hidden = images.secrets(PRIVATE)
    assert images.redact("s3cret%2Fdeb", hidden) == "***"
    assert images.redact("GET https://who:what@h.example.org/x", ()) == "GET https://***@h.example.org/x"


def test_runc_only_where_crun_cannot_work() -> None:
    assert images.podman_command(cgroup_v2=True, has_runc=True) == ["podman"]
    assert images.podman_command(cgroup_v2=False, has_runc=False) == ["podman"]
    assert images.podman_command(cgroup_v2=False, has_runc=True) == ["podman", "--runtime", "runc"]


def test_mmdebstrap_command_names_the_mirrors_without_logins() -> None:
    command = images.mmdebstrap_command(Rootfs("trixie", "minbase", ("curl", "tini")), PRIVATE, "/run/b", "/x.tar")
    assert command[-5:] == [
        "trixie",
        "/x.tar",
        "deb https://mirror.example.org/debian trixie main",
        "deb https://mirror.example.org/debian trixie-updates main",
        "deb http://mirror.example.org/debian-security trixie-security main",
    ]
    assert {"--variant=minbase", "--include=curl,tini", '--aptopt=APT::Install-Recommends "false"'} <= set(command)
    assert not any(secret in " ".join(command) for secret in SECRETS)


def test_mmdebstrap_chooses_its_own_mirrors_when_none_is_known() -> None:
    command = images.mmdebstrap_command(Rootfs("trixie", "apt", ()), Settings(), "/run/b", "/x.tar")
    assert command[-2:] == ["trixie", "/x.tar"]


def test_hook_adds_source_packages(tmp_path: Path) -> None:
    sources = tmp_path / "etc/apt/sources.list"
    sources.parent.mkdir(parents=True)
    sources.write_text("deb http://m/debian trixie main\ndeb [arch=amd64] http://m/s trixie-security main\n")
    command = images.mmdebstrap_command(Rootfs("trixie", "apt", ()), Settings(), "/run/b", "/x.tar")
    (hook,) = [item.removeprefix("--customize-hook=") for item in command if "deb-src" in item]
    subprocess.run(["sh", "-c", hook, "sh", str(tmp_path)], check=True)
    assert sources.read_text().splitlines() == [
        "deb http://m/debian trixie main",
        "deb-src http://m/debian trixie main",
        "deb [arch=amd64] http://m/s trixie-security main",
        "deb-src [arch=amd64] http://m/s trixie-security main",
    ]


def test_build_command() -> None:
    command = images.build_command(
        ["podman"],
        "kube-proxy",
        "0123456789abcdef",
        folder="/i/kubernetes",
        containerfile="/run/b/Containerfile",
        target="kube-proxy",
        build_args={"B": "2", "A": "1"},
        inputs={"package": "/srv/a package.deb"},
        build_dir="/run/b",
    )
    assert command == [
        "podman",
        "build",
        "--layers",
        "--pull=never",
        "--network=host",
        "--http-proxy=false",
        "--volume=/run/b:/run/build:ro",
        "--volume=/srv/a package.deb:/run/build/inputs/package:ro",
        "--file=/run/b/Containerfile",
        "--target=kube-proxy",
        "--build-arg=A=1",
        "--build-arg=B=2",
        "--label=jhok.lab/key=0123456789abcdef",
        "--tag=localhost/jhok/kube-proxy:0123456789abcdef",
        "/i/kubernetes",
    ]


DIGEST = "sha256:" + "0" * 64


REF = f"reg.example.org/lab/r:4.4@{DIGEST}"


def test_catalogue_ships_what_says_so() -> None:
    catalogue = [
        {"name": "tools", "source": "build"},
        {"name": "hub", "source": "build", "ship": True},
        {"name": "gpu", "source": "build", "folder": "singleuser", "target": "cuda", "ship": True},
        {"name": "r", "source": "copy", "ref": REF, "setting": "lab_r", "ship": True},
        {"name": "a", "source": "archive", "archive": "/srv/a: 1.tar", "sha256": "0f", "ship": True},
    ]
    assert images.catalogue_images(catalogue, {"tools": "t", "hub": "h", "gpu": "g"}) == [
        {"name": "jhok/hub", "tag": "h", "from": "localhost/jhok/hub:h", "origin": "images/hub"},
        {"name": "jhok/gpu", "tag": "g", "from": "localhost/jhok/gpu:g", "origin": "images/singleuser/cuda"},
        {
            "name": "jhok/r",
            "tag": "4.4",
            "from": f"docker://reg.example.org/lab/r@{DIGEST}",
            "origin": REF,
            "setting": "lab_r",
        },
        {
            "name": "jhok/a",
            "tag": "latest",
            "from": "archive:/srv/a: 1.tar",
            "origin": "archive a: 1.tar",
            "sha256": "0f",
        },
    ]


@pytest.mark.parametrize(
    ("ref", "tag", "registries", "source", "shipped"),
    [
        (REF, "", {}, "reg.example.org/lab/r", "4.4"),
        (f"docker://{REF}", "5", {}, "reg.example.org/lab/r", "5"),
        (f"localhost:5000/r@{DIGEST}", "", {}, "localhost:5000/r", "0" * 16),
        (REF, "", {"reg.example.org": "10.0.0.1:5000/mirror/"}, "10.0.0.1:5000/mirror/lab/r", "4.4"),
        (REF, "", {"example.org": "10.0.0.1:5000"}, "reg.example.org/lab/r", "4.4"),
    ],
)
def test_where_a_copy_comes_from(ref: str, tag: str, registries: dict[str, str], source: str, shipped: str) -> None:
    (image,) = images.catalogue_images(
        [{"name": "r", "source": "copy", "ref": ref, "tag": tag, "ship": True}], {}, registries
    )
    assert (image["from"], image["tag"]) == (f"docker://{source}@{DIGEST}", shipped)
    assert image["origin"] == ref.removeprefix("docker://")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"ref": "docker://reg.example.org/r:4"}, "'docker://reg.example.org/r:4' names no image for good"),
        ({"ref": f"lab/r@{DIGEST}"}, f"'lab/r@{DIGEST}' names no image for good; give registry, "),
        ({}, "'' names no image for good"),
        ({"ref": REF, "tag": "4 4"}, "r has tag '4 4'; use letters"),
        ({"source": "archive"}, "r has source archive and archive ''; give a file's whole path"),
        ({"source": "archive", "archive": "a.tar"}, "r has source archive and archive 'a.tar'; give"),
    ],
)
def test_a_copy_that_names_no_certain_image_is_refused(entry: dict[str, str], says: str) -> None:
    for setting in ("images_catalogue", "lab_r"):
        with pytest.raises(ImageError, match=f"^{setting}: {re.escape(says)}"):
            images.catalogue_images([{"name": "r", "source": "copy", "setting": setting, **entry}], {})


# ---------------------------------------------------------------------------------------------- the folders themselves


def pins(path: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^ ;]+)", (FOLDERS / path).read_text(), re.MULTILINE))


def test_hub_and_user_server_have_the_same_jupyterhub() -> None:
    assert pins("hub/requirements.txt")["jupyterhub"] == pins("singleuser/server.txt")["jupyterhub"]


@pytest.mark.parametrize(
    "path", ["tools/requirements.txt", "hub/requirements.txt", "singleuser/server.txt", "singleuser/python.txt"]
)
def test_every_python_package_is_pinned_with_hashes(path: str) -> None:
    blocks = re.split(r"\n(?=\S)", (FOLDERS / path).read_text().strip())
    assert blocks
    assert [
        block for block in blocks if not re.match(r"[\w.\[\]-]+==\S+", block) or "--hash=sha256:" not in block
    ] == []


def test_every_npm_package_is_pinned_with_a_hash_and_no_registry() -> None:
    packages = json.loads((FOLDERS / "proxy/package-lock.json").read_text())["packages"]
    assert [name for name, package in packages.items() if name and "integrity" not in package] == []
    assert [name for name, package in packages.items() if "resolved" in package] == []


@pytest.mark.parametrize("folder", sorted(path.name for path in FOLDERS.iterdir() if path.is_dir()))
def test_each_folder_can_be_built_from_its_neighbours(folder: str) -> None:
    rootfs, containerfile = FOLDERS / folder / "rootfs.yml", FOLDERS / folder / "Containerfile"
    assert rootfs.is_file() != containerfile.is_file()
    if rootfs.is_file():
        assert images.check_rootfs(yaml.safe_load(rootfs.read_text()), str(rootfs)).include
    else:
        found = images.parents(containerfile.read_text())
        assert found
        assert [parent for parent in found if not (FOLDERS / parent).is_dir()] == []


@pytest.mark.parametrize("folder", ["hub", "proxy", "singleuser"])
def test_shipped_images_run_as_an_unprivileged_user_under_an_init(folder: str) -> None:
    text = (FOLDERS / folder / "Containerfile").read_text()
    assert re.findall(r"^USER (\d+):\d+$", text, re.MULTILINE)[-1] != "0"
    assert re.search(r'^ENTRYPOINT \["tini", ', text, re.MULTILINE)


def test_redact_hides_a_login_whose_password_has_an_at_sign() -> None:
    settings = Settings(go={"GOPROXY": "https://me:s3cr@t@mirror.example.org/go,direct"})
    text = images.redact("fetching https://me:s3cr@t@mirror.example.org/go/x", images.secrets(settings))
    assert "s3cr" not in text
    assert "t@" not in text
