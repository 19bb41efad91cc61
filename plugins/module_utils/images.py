"""Pure logic of image building: content keys, parents, command lines, and the machine's mirror settings as files.

Nothing here reads files, runs commands or knows the time; :mod:`image_build` does that.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

REPOSITORY = "localhost/jhok"
KEY_LABEL = "jhok.lab/key"
BUILD_MOUNT = "/run/build"
INPUTS = "inputs"  # folder in it
# Part of every key: raise it when the way of building changes so that the same folder gives another image.
RECIPE = 1

VARIANTS = ("essential", "apt", "minbase", "buildd", "required", "important", "standard")
# What says how the go command reaches modules and which sums it asks for, and its flags.
GO_SETTINGS = ("GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOFLAGS")
_NAME = re.compile(r"[a-z0-9]+(?:[._/-][a-z0-9]+)*")
_COPIED = re.compile(
    rf"(?:docker://)?(?P<registry>localhost|[\w-]+(?:\.[\w-]+)+|[\w.-]+:\d+)(?P<path>/{_NAME.pattern})"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})"
)
_PARENT = re.compile(rf"(?<![\w./-]){re.escape(REPOSITORY)}/({_NAME.pattern})(:[\w.-]+)?")
_TAG = re.compile(r"\w[\w.-]{0,127}")
_URL_LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+@")
# What of `apt-config dump` says how to reach a mirror; the trusted certificates come with the settings' CA bundle.
_APT_OPTION = re.compile(
    r'Acquire::(?:https?::(?:Proxy|Verify-|Timeout)\S*|Check-Valid-Until|Check-Date|ForceIPv[46]) ".*";$'
)


class ImageError(Exception):
    """The folder of an image, or a setting, cannot be used; the message says which and what to do."""


@dataclass(frozen=True)
class Entry:
    """One file of an image's folder: whether it is executable, and its bytes (a symbolic link: its target)."""

    kind: str  # "file", "executable" or "link"
    content: bytes


@dataclass(frozen=True)
class Settings:
    """How this machine reaches what a build downloads. Empty means: the tool's own default.

    debian, debian_security, pypi, npm: URLs, possibly with a login in them.
    apt_options: lines of apt.conf. apt_auth: text of an apt_auth.conf(5) file.
    pip_timeout: seconds, as text. trusted_hosts: hosts whose certificate pip and uv do not check.
    npm_auth: lines of an npmrc with the registry's login. proxies: http_proxy, https_proxy, no_proxy.
    go: variables of the go command by name, those of GO_SETTINGS.
    """

    debian: str = ""
    debian_security: str = ""
    pypi: str = ""
    npm: str = ""
    apt_options: Sequence[str] = ()
    apt_auth: str = ""
    pip_timeout: str = ""
    trusted_hosts: str = ""
    npm_auth: Sequence[str] = ()
    proxies: Mapping[str, str] = field(default_factory=dict)
    go: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rootfs:
    """A checked rootfs.yml: what mmdebstrap makes."""

    suite: str
    variant: str
    include: Sequence[str]


# ---------------------------------------------------------------------------------------------- names and keys


def check_name(name: str) -> str:
    """Return `name` when it can be an image's name below ``localhost/jhok``; raise ImageError otherwise."""
    if not _NAME.fullmatch(name):
        raise ImageError(f"name: {name!r} is not an image name; use lower-case letters, digits and single . _ - /")
    return name


def reference(name: str, tag: str) -> str:
    """Return the reference of image `name` with `tag` (a key, or ``latest``) in the machine's podman storage."""
    return f"{REPOSITORY}/{name}:{tag}"


def _instructions(containerfile: str) -> Iterable[str]:
    return (line for line in containerfile.splitlines() if not line.lstrip().startswith("#"))


def parents(containerfile: str) -> list[str]:
    """Return the names of our own images that a Containerfile builds from, copies from or mounts, sorted."""
    return sorted({match[1] for line in _instructions(containerfile) for match in _PARENT.finditer(line)})


def pin_parents(containerfile: str, keys: Mapping[str, str]) -> str:
    """Return `containerfile` with each of our own images named by its key, so that ``latest`` decides nothing."""
    return _PARENT.sub(
        lambda match: reference(match[1], keys[match[1]]) if match[1] in keys else match[0], containerfile
    )


def content_key(
    files: Mapping[str, Entry],
    target: str,
    epoch: str,
    build_args: Mapping[str, str],
    parent_keys: Mapping[str, str],
) -> str:
    """Return the key (16 hex digits) of what a build from these inputs gives.

    files: the folder, by path relative to it. parent_keys: key of each of our own images it is built from.
    """
    inputs = {
        "recipe": RECIPE,
        "files": {path: [entry.kind, hashlib.sha256(entry.content).hexdigest()] for path, entry in files.items()},
        "target": target,
        "epoch": epoch,
        "build_args": dict(build_args),
        "parents": dict(parent_keys),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def check_rootfs(data: object, path: str) -> Rootfs:
    """Return the checked content of the rootfs.yml at `path`; raise ImageError when it is not as documented."""
    if not isinstance(data, dict) or set(data) != {"suite", "variant", "include"}:
        raise ImageError(f"{path}: must hold exactly the keys suite, variant and include")
    suite, variant, include = data["suite"], data["variant"], data["include"]
    if not isinstance(suite, str) or not re.fullmatch(r"[a-z]+", suite):
        raise ImageError(f"{path}: suite is {suite!r}; give the code name of a Debian release, such as trixie")
    if variant not in VARIANTS:
        raise ImageError(f"{path}: variant is {variant!r}; give one of {', '.join(VARIANTS)}")
    package = re.compile(r"[a-z0-9][a-z0-9.+-]+")
    if not isinstance(include, list) or not all(isinstance(item, str) and package.fullmatch(item) for item in include):
        raise ImageError(f"{path}: include is {include!r}; give a list of Debian package names")
    return Rootfs(suite, variant, tuple(include))


def catalogue_images(
    catalogue: Sequence[Mapping[str, Any]], keys: Mapping[str, str], registries: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Return what module ``bundle`` has to ship of a catalogue (role images, images_catalogue).

    keys: the key of each built image, by its name in the catalogue. registries: what stands for a registry, by the
    registry's name. Raises ImageError for an entry that cannot be used.
    """
    shipped = []
    for entry in catalogue:
        name = check_name(entry["name"])
        setting = entry.get("setting") or "images_catalogue"
        image = {"name": f"jhok/{name}"}
        if entry["source"] == "build":
            origin = "/".join(filter(None, ("images", entry.get("folder") or name, entry.get("target"))))
            image |= {"tag": keys[name], "from": reference(name, keys[name]), "origin": origin}
        elif entry["source"] == "copy":
            image |= _copied(entry.get("ref") or "", entry.get("tag") or "", setting, registries or {})
        else:
            path = entry.get("archive") or ""
            if not path.startswith("/"):
                raise ImageError(f"{setting}: {name} has source archive and archive {path!r}; give a file's whole path")
            image |= {"tag": entry.get("tag") or "latest", "from": f"archive:{path}"}
            image["origin"] = f"archive {path.rpartition('/')[2]}"
            if entry.get("sha256"):
                image["sha256"] = entry["sha256"]
        if not _TAG.fullmatch(image["tag"]):
            raise ImageError(f"{setting}: {name} has tag {image['tag']!r}; use letters, digits and . _ -")
        if entry.get("setting"):
            image["setting"] = setting
        if entry.get("ship"):
            shipped.append(image)
    return shipped


def _copied(ref: str, tag: str, setting: str, registries: Mapping[str, str]) -> dict[str, str]:
    """Return tag, source and origin of an image in a registry; a tag beside the digest is for people alone."""
    found = _COPIED.fullmatch(ref)
    if not found:
        raise ImageError(
            f"{setting}: {ref!r} names no image for good; give registry, name and digest, as "
            "registry.example.org/name:1.0@sha256:... (skopeo inspect says the digest)"
        )
    registry, path, digest = found["registry"], found["path"], found["digest"]
    mirror = registries.get(registry, registry).rstrip("/")
    return {
        "tag": tag or found["tag"] or digest[-64:-48],
        "from": f"docker://{mirror}{path}{digest}",
        "origin": ref.removeprefix("docker://"),
    }


# ---------------------------------------------------------------------------------------------- the machine's settings


def debian_mirrors(indextargets: str, mirror_list: Callable[[str], str]) -> tuple[str, str]:
    """Return the URLs of Debian and Debian-Security that apt uses, or "" where it uses none.

    indextargets: output of ``apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)'``.
    mirror_list: returns the text of a file that a ``mirror+file:`` source names.
    """
    found: dict[str, str] = {}
    for line in indextargets.splitlines():
        origin, _, rest = line.partition("|")
        label, _, uri = rest.partition("|")
        if origin != "Debian" or label in found:
            continue
        if uri.startswith("mirror+file:"):  # as Debian's cloud images have it: the file's first line is a mirror
            words = mirror_list(uri.removeprefix("mirror+file:").rstrip("/")).split()
            uri = words[0] if words else ""
        if uri.startswith(("http://", "https://")):
            found[label] = uri.rstrip("/")
    return found.get("Debian", ""), found.get("Debian-Security", "")


def apt_options(dump: str) -> list[str]:
    """Return those lines of ``apt-config dump`` that say how a mirror is reached (proxies, checks, time-outs)."""
    return [line for line in dump.splitlines() if _APT_OPTION.match(line)]


def pip_options(config_list: str) -> dict[str, str]:
    """Return the options of ``pip config list`` by name, those of the environment winning over those of files.

    Values of several lines become one, separated by spaces.
    """
    options: dict[str, str] = {}
    for prefix in ("global.", "install.", ":env:."):
        for line in config_list.splitlines():
            name, sep, value = line.partition("=")
            if sep and name.startswith(prefix):
                try:
                    options[name.removeprefix(prefix)] = " ".join(str(ast.literal_eval(value)).split())
                except (ValueError, SyntaxError):
                    continue
    return options


def go_proxies(value: str) -> str:
    """Return a GOPROXY without the proxies that a build cannot reach: folders of this machine (``file://``).

    The separators of what is left stay as they are: ``,`` goes on after "not found" only, ``|`` after any error.
    """
    parts = re.split(r"([,|])", value)
    kept = [
        (separator, proxy.strip())
        for separator, proxy in zip(["", *parts[1::2]], parts[::2], strict=True)
        if proxy.strip() and not proxy.strip().startswith("file:")
    ]
    return "".join((separator if index else "") + proxy for index, (separator, proxy) in enumerate(kept))


def split_login(url: str) -> tuple[str, str, str]:
    """Return `url` without its login, the user's name and the password ("" where there is none)."""
    parts = urlsplit(url)
    _, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, "", ""
    return urlunsplit(parts._replace(netloc=host)), unquote(parts.username or ""), unquote(parts.password or "")


def build_files(settings: Settings, mount: str = BUILD_MOUNT) -> dict[str, str]:
    """Return the text files that a build finds in the directory `mount`, by name. Beside them lies ``ca.crt``."""
    auth = settings.apt_auth.rstrip("\n").splitlines()
    for url in (settings.debian, settings.debian_security):
        clean, login, password = split_login(url)
        if login:
            auth.append(f"machine {clean} login {login} password {password}")
    apt_conf = [
        # The files named here are root's alone, also where apt would download as another user.
        'APT::Sandbox::User "root";',
        'Acquire::Retries "3";',
        f'Acquire::https::CaInfo "{mount}/ca.crt";',
        f'Dir::Etc::netrc "{mount}/auth.conf";',
        *settings.apt_options,
    ]
    pip_conf = ["[global]", f"cert = {mount}/ca.crt", "disable-pip-version-check = true"]
    for option, value in (
        ("index-url", settings.pypi),
        ("trusted-host", settings.trusted_hosts),
        ("timeout", settings.pip_timeout),
    ):
        if value:
            pip_conf.append(f"{option} = {value.replace('%', '%%')}")
    npmrc = ["fund=false", "audit=false", "update-notifier=false", *settings.npm_auth]
    if settings.npm:
        registry, login, password = split_login(settings.npm)
        npmrc.append(f"registry={registry.rstrip('/')}/")
        if login:
            scope = registry.partition(":")[2].rstrip("/")
            token = base64.b64encode(f"{login}:{password}".encode()).decode()
            npmrc.append(f"{scope}/:_auth={token}")
    files = {
        "env": _env(settings, mount),
        "apt.conf": "\n".join(apt_conf),
        "auth.conf": "\n".join(auth),
        "pip.conf": "\n".join(pip_conf),
        "npmrc": "\n".join(npmrc),
    }
    return {name: text.rstrip("\n") + "\n" for name, text in files.items()}


def _env(settings: Settings, mount: str) -> str:
    ca = f"{mount}/ca.crt"
    values = {
        "DEBIAN_FRONTEND": "noninteractive",
        "APT_CONFIG": f"{mount}/apt.conf",
        "SSL_CERT_FILE": ca,
        "REQUESTS_CA_BUNDLE": ca,
        "CURL_CA_BUNDLE": ca,
        "PIP_CERT": ca,
        "PIP_CONFIG_FILE": f"{mount}/pip.conf",
        # Files of a cache mount cannot be linked into the image; the image's own Python is the one to use.
        "UV_LINK_MODE": "copy",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "UV_DEFAULT_INDEX": settings.pypi,
        "UV_INSECURE_HOST": settings.trusted_hosts,
        "UV_HTTP_TIMEOUT": settings.pip_timeout,
        "NODE_EXTRA_CA_CERTS": ca,
        "NPM_CONFIG_CAFILE": ca,
        "NPM_CONFIG_USERCONFIG": f"{mount}/npmrc",
    }
    values |= settings.go
    for name, value in settings.proxies.items():
        values[name.lower()] = values[name.upper()] = value
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items() if value]
    return "\n".join(["# How this build reaches its mirrors; sourced by each RUN that downloads.", *lines])


def secrets(settings: Settings) -> list[str]:
    """Return every password and token in `settings` (in each form they may be printed in), longest first."""
    found: set[str] = set()
    urls = [settings.debian, settings.debian_security, settings.pypi, settings.npm, *settings.proxies.values()]
    urls += re.split("[,|]", settings.go.get("GOPROXY", ""))
    urls += re.findall(r'"([^"]*://[^"]*)"', "\n".join(settings.apt_options))
    for url in urls:
        _, login, password = split_login(url)
        found |= {password, quote(password, safe="")} if password else {login}
    found |= set(re.findall(r"\bpassword\s+(\S+)", settings.apt_auth))
    found |= {line.partition("=")[2].strip().strip("\"'") for line in settings.npm_auth if "=" in line}
    return sorted((secret for secret in found if secret), key=lambda secret: (-len(secret), secret))


def redact(text: str, hidden: Sequence[str]) -> str:
    """Return `text` with the logins of URLs and every string of `hidden` replaced by ``***``."""
    for secret in hidden:
        text = text.replace(secret, "***")
    return _URL_LOGIN.sub("***@", text)


# ---------------------------------------------------------------------------------------------- command lines


def podman_command(cgroup_v2: bool, has_runc: bool) -> list[str]:
    """Return the beginning of every podman command that runs something: with runc where crun would refuse.

    cgroup_v2: the machine has the unified cgroup hierarchy. has_runc: runc is installed.
    """
    return ["podman"] if cgroup_v2 or not has_runc else ["podman", "--runtime", "runc"]


def mmdebstrap_command(rootfs: Rootfs, settings: Settings, build_dir: str, tar: str) -> list[str]:
    """Return the command that writes the root file system to `tar`.

    build_dir: directory on the machine that holds the files of ``build_files(settings, build_dir)``. The image keeps
    the mirrors' addresses, with source packages added, and nothing else of the machine's settings.
    """
    debian, security = split_login(settings.debian)[0], split_login(settings.debian_security)[0]
    lines = []
    if debian:
        lines = [f"deb {debian} {rootfs.suite} main", f"deb {debian} {rootfs.suite}-updates main"]
        if security:
            lines.append(f"deb {security} {rootfs.suite}-security main")
    conf = "etc/apt/apt.conf.d/00build"
    apt = ('Acquire::Languages "none"', 'APT::Install-Recommends "false"', 'APT::Install-Suggests "false"')
    excluded = ("man", "info", "locale", "doc", "doc-base", "lintian")
    return [
        "mmdebstrap",
        f"--variant={rootfs.variant}",
        "--components=main",
        f"--include={','.join(rootfs.include)}",
        *(f"--aptopt={option}" for option in apt),
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in excluded),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f'--setup-hook=cp {shlex.quote(build_dir)}/apt.conf "$1"/{conf}',
        f'--customize-hook=rm "$1"/{conf}',
        '--customize-hook=sed -i "/^deb /{p;s/^deb /deb-src /}" "$1"/etc/apt/sources.list',
        # mmdebstrap takes these two over from the machine it runs on.
        '--customize-hook=for file in hostname resolv.conf; do : > "$1"/etc/$file; done',
        rootfs.suite,
        tar,
        *lines,
    ]


def import_command(name: str, key: str, tar: str) -> list[str]:
    """Return the command that makes an image of the root file system in `tar`."""
    return [
        "podman",
        "import",
        "--change=ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "--change=ENV LANG=C.UTF-8",
        '--change=CMD ["bash"]',
        f"--change=LABEL {KEY_LABEL}={key}",
        tar,
        reference(name, key),
    ]


def build_command(
    podman: Sequence[str],
    name: str,
    key: str,
    *,
    folder: str,
    containerfile: str,
    target: str,
    build_args: Mapping[str, str],
    inputs: Mapping[str, str],
    build_dir: str,
) -> list[str]:
    """Return the ``podman build`` command of an image.

    podman: see podman_command. folder: the build's context. containerfile: path of the Containerfile whose parents are
    pinned. inputs: files of the machine, by the name that they have in /run/build/inputs. build_dir: the directory on
    the machine that is seen as /run/build.
    """
    return [
        *podman,
        "build",
        "--layers",
        "--pull=never",
        # The machine's own network: its name resolution, and a proxy that listens on its loopback address.
        "--network=host",
        "--http-proxy=false",
        f"--volume={build_dir}:{BUILD_MOUNT}:ro",
        *(f"--volume={path}:{BUILD_MOUNT}/{INPUTS}/{name}:ro" for name, path in sorted(inputs.items())),
        f"--file={containerfile}",
        *([f"--target={target}"] if target else []),
        *(f"--build-arg={arg}={value}" for arg, value in sorted(build_args.items())),
        f"--label={KEY_LABEL}={key}",
        f"--tag={reference(name, key)}",
        folder,
    ]
