"""What a user finds in the image of users' servers, run as the cluster runs it: a number without a name, no network."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.jhok.lab.plugins.module_utils import images
from hub import free_port
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.integration

IMAGE = "localhost/jhok/singleuser:latest"
PODMAN = images.podman_command(Path("/sys/fs/cgroup/cgroup.controllers").exists(), shutil.which("runc") is not None)
LIMITS = ["--ulimit=nofile=16384:16384", "--ulimit=nproc=32768:32768", "--pids-limit=0"]
UID, GID = 4242, 100
TIMEOUT = 60


def podman(*arguments: str, stdin: str = "", check: bool = True) -> str:
    """Run podman and return what it printed; with `check` a failure shows it."""
    done = subprocess.run(
        # zsh's own encoding of its history is not UTF-8
        [*PODMAN, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=2 * TIMEOUT,
    )
    if check and done.returncode:
        pytest.fail(f"podman {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout + done.stderr


class Box:
    """A running container of the image, with a home on this machine."""

    def __init__(self, home: Path, *environment: str, usage: Path | None = None, port: int = 0) -> None:
        """Start it.

        Args:
            home: directory of the home.
            environment: variables besides those that a server needs.
            usage: directory in which the NFS server says how full the home is.
            port: where a browser on this machine finds it; without one it has no network.

        """
        self.home = home
        self.base = f"http://127.0.0.1:{port or 8888}/user/ada"
        mounts = [f"--volume={home}:/home/ada", *([f"--volume={usage}:/run/jhok/home:ro"] if usage else [])]
        self.name = podman(
            *("run", "--detach", f"--network={'host' if port else 'none'}", *LIMITS, *mounts),
            *("--cap-drop=all", "--security-opt=no-new-privileges"),
            *(f"--user={UID}:{GID}", "--passwd=false", "--env=HOME=/home/ada"),
            *(f"--env={value}" for value in ("NB_USER=ada", "JUPYTER_TOKEN=t", *environment)),
            *(IMAGE, "jupyter-lab", "--no-browser", "--ip=127.0.0.1", f"--port={port or 8888}"),
            "--ServerApp.base_url=/user/ada/",
        ).strip()

    def run(self, *command: str, stdin: str = "", check: bool = True) -> str:
        """Run a command beside the server and return what it printed."""
        options = ["--interactive", "--workdir=/home/ada", "--env=HOME=/home/ada"]
        return podman("exec", *options, self.name, *command, stdin=stdin, check=check)

    def sh(self, script: str, check: bool = True) -> str:
        """Run a shell script beside the server and return what it printed."""
        return self.run("sh", "-euc", script, check=check)

    def get(self, path: str) -> str:
        """Return the page at `path` below the server's address, as curl shows it with its headers."""
        join = "&" if "?" in path else "?"
        return self.run("curl", "-sSi", "--max-time", str(TIMEOUT), f"{self.base}{path}{join}token=t")

    def wait_until_ready(self) -> None:
        """Wait for the server; when it does not come, show its log."""
        retry = ["--retry", "120", "--retry-delay", "1", "--retry-all-errors", "--retry-max-time", str(TIMEOUT)]
        try:
            self.run("curl", "-sSf", *retry, f"{self.base}/api")
        except pytest.fail.Exception:
            pytest.fail(podman("logs", self.name), pytrace=False)

    def type(self, shell: list[str], *steps: tuple[str, str | None]) -> str:
        """Type into a shell on a terminal: each step's keys, then its pattern is waited for (None: the shell's end).

        Return all that was shown.
        """
        return self.run("/opt/jupyter/bin/python", "-c", TYPIST, json.dumps([shell, steps]))

    def remove(self) -> None:
        """Remove the container at once."""
        podman("rm", "--force", "--time=0", self.name)


# Runs in the container, with the environment that a terminal of JupyterLab has: the server's. Patterns see colours'
# escape sequences too.
TYPIST = """
import fcntl, json, os, pathlib, pty, re, select, struct, subprocess, sys, termios, time
shell, steps = json.loads(sys.argv[1])
server = subprocess.check_output(["pgrep", "-of", "^[^ ]*python3? [^ ]*jupyter-lab"], text=True).strip()
environment = pathlib.Path(f"/proc/{server}/environ").read_text().rstrip("\\0").split("\\0")
pid, terminal = pty.fork()
if pid == 0:
    os.execvpe(shell[0], shell, {**dict(entry.split("=", 1) for entry in environment), "TERM": "xterm-256color"})
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
shown = ""
for keys, pattern in steps:
    os.write(terminal, keys.encode())
    new, deadline = "", time.monotonic() + 20
    while pattern is None or not re.search(pattern, new, re.DOTALL):
        if not select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]:
            sys.exit(f"{keys!r} did not bring {pattern!r} but {new!r}; before that {shown!r}")
        try:
            new += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # the shell has ended, and nobody else has the terminal
            break
    shown += new
print(shown)
"""


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    """Have the image; building it is the business of role images."""
    if subprocess.run([*PODMAN, "image", "exists", IMAGE]).returncode:
        pytest.fail(f"There is no image {IMAGE}. Let role images build it (make integration does).", pytrace=False)


def make_home(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


def owned(home: Path) -> Path:
    """Give everything in `home` to the user."""
    for path in (home, *home.rglob("*")):
        shutil.chown(path, UID, GID)
    return home


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A user's server with an empty home."""
    running = Box(owned(make_home(tmp_path_factory.mktemp("box") / "ada")))
    running.wait_until_ready()
    yield running
    running.remove()


# ---------------------------------------------------------------------------------------------- shells


def test_zsh_completes_suggests_highlights_and_shows_the_branch(box: Box) -> None:
    box.sh("git init -q -b trunk projekt")
    shown = box.type(
        ["zsh", "-l"],
        ("", r"~.{0,9} % "),
        ("cd proj\t\r", r"~/projekt.{0,20} .{0,9}trunk"),
        ("echo one-$((1+1))-three\r", r"one-2-three.*% "),
        ("echo on", r"\x1b\[90me-\$\(\(1\+1\)\)-three"),  # the rest of the last such command, in grey
        ("\x15nosuchcommand", r"\x1b\[31mn"),  # an unknown command is red
        ("\x15touch 'Ünï 数据'; ls\r", r"'Ünï 数据'.*% "),
        ("git che\t", r"checkout +-- checkout branch"),
        ("\x15false\r", r"\x1b\[31m1\x1b"),
        ("one\x1b[A", r"one"),
        ("\x15exit\r", None),
    )
    assert "newuser" not in shown
    assert "insecure" not in shown


def test_zsh_writes_its_history_into_the_home_and_nothing_else(box: Box) -> None:
    box.type(
        ["zsh", "-l"],
        ("", r"~.{0,9} % "),
        ("echo remembered\r", r"\nremembered\r.*% "),
        ("exit\r", None),
    )
    assert "echo remembered" in box.run("cat", ".zsh_history")
    assert [name for name in box.run("ls", "-A").split() if name.startswith(".z")] == [".zsh_history"]


# As oh-my-zsh's own file does: its completion, its prompt, its copy of a plugin.
OWN_ZSHRC = """
autoload -Uz compinit && compinit -u -d ~/.cache/my-zcompdump
source /usr/share/zsh-syntax-highlighting/zsh-syntax-highlighting.zsh
PROMPT='mine> '
alias ll='echo my-ll'
"""


def test_a_users_own_zshrc_wins_and_is_not_touched(box: Box) -> None:
    box.run("sh", "-c", "mkdir -p .cache; cat > .zshrc", stdin=OWN_ZSHRC)
    box.type(
        ["zsh", "-l"],
        ("", "mine> "),
        ("ll\r", "my-ll\r"),
        ("nosuchcommand", r"\x1b\[31mn"),
        ("\x15print -r -- ${(M)precmd_functions:#*jhok*} $+functions[_zsh_autosuggest_start].\r", r"\n1\."),
        ("exit\r", None),
    )
    assert box.run("cat", ".zshrc") == OWN_ZSHRC
    box.run("rm", ".zshrc")


def test_bash_completes_and_shows_the_branch(box: Box) -> None:
    box.sh("test -d projekt || git init -q -b trunk projekt")
    box.type(
        ["bash", "-l"],
        ("cd projekt\r", r"~/projekt.{0,9} trunk"),
        ("git checko\t", "git checkout "),
        # Ctrl-U, not Ctrl-C: a signal that comes while completion still works leaves the prompt empty now and then.
        ("\x15\r", r"trunk.{0,9} \$ "),
        ("exit\r", None),
    )


@pytest.mark.parametrize("shell", ["zsh -l", "zsh", "bash -l", "bash", "sh -l"])
def test_every_shell_finds_the_users_python_first(box: Box, shell: str) -> None:
    path = "/usr/local/bin:/usr/bin:/bin:/opt/jupyter/bin:/home/ada/.local/bin"
    box.type(
        shell.split(),
        (
            "command -v python; command -v jupyter-lab\r",
            "[ \r\n]/usr/local/bin/python\r\n/opt/jupyter/bin/jupyter-lab\r",
        ),
        ("echo $LANG $PATH\r", f"[ \r\n]C.UTF-8 {path}\r"),
    )


@pytest.mark.parametrize(
    "command",
    ["bzip2", "curl", "git", "htop", "less", "nano", "rsync", "ssh", "tmux", "unzip", "vim", "wget", "xz", "zip"],
)
def test_the_commands_of_the_guide_are_there(box: Box, command: str) -> None:
    assert box.run("sh", "-c", f"command -v {command}").startswith("/usr/bin/")


def test_zip_and_tmux_and_venv_work(box: Box) -> None:
    box.sh("mkdir -p z; echo 数 > 'z/a b.txt'; zip -qr z.zip z; rm -r z; unzip -q z.zip; grep 数 'z/a b.txt'")
    shell = box.sh(
        "tmux new-session -d -s t; tmux send-keys -t t 'echo $0 > ~/shell; tmux wait-for -S done' Enter;"
        "timeout 20 tmux wait-for done; tmux kill-server; cat ~/shell"
    )
    assert shell.strip() == "-zsh"
    box.sh("python -m venv own && own/bin/pip --version && rm -r own")


# ---------------------------------------------------------------------------------------------- JupyterLab and VS Code


def page_config(page: str) -> dict[str, Any]:
    begin = page.index("{", page.index("jupyter-config-data"))
    config: dict[str, Any] = json.loads(page[begin : page.index("</script>", begin)])
    return config


def test_jupyterlab_has_our_extension_and_the_home(box: Box) -> None:
    config = page_config(box.get("/lab"))
    assert config["jhokRoot"] == "/home/ada"
    (ours,) = [entry for entry in config["federated_extensions"] if entry["name"] == "@jhok/lab"]
    assert "window._JUPYTERLAB['@jhok/lab']" in box.get(f"/lab/extensions/@jhok/lab/{ours['load']}")
    assert '"enabled": false' in box.get("/server-proxy/servers-info")
    assert "Location: /user/ada/lab" in box.get("/")


def test_connection_files_do_not_outlive_the_container(box: Box) -> None:
    assert box.sh("ls -A ~/.local/share/jupyter/runtime 2>/dev/null || true") == ""


def test_deleted_files_are_gone(box: Box) -> None:
    box.sh("echo x > bin-me.txt")
    box.run("curl", "-sSf", "-X", "DELETE", "-H", "Authorization: token t", f"{box.base}/api/contents/bin-me.txt")
    assert box.sh("find ~ -name 'bin-me*'") == ""


def test_vscode_answers_below_the_server_on_a_socket_of_the_users_own(box: Box) -> None:
    page = box.get("/vscode/?folder=/home/ada")
    assert page.startswith("HTTP/1.1 200")
    assert "workbench" in page
    assert box.get("/vscode/").startswith("HTTP/1.1 ")  # a second tab, whatever it is told
    found = box.sh("cd /tmp/jupyter-server-proxy-*; stat -c '%a %n' . socket session").splitlines()
    assert found[:2] == ["700 .", "600 socket"]
    # State 0A is LISTEN. Beside Jupyter's port 8888 (22B8) nothing does, on either family.
    listening = box.sh("awk '$4 == \"0A\" {print $2}' /proc/net/tcp /proc/net/tcp6").split()
    assert listening == ["0100007F:22B8"]


def test_vscode_takes_a_strangers_request_nowhere(box: Box) -> None:
    answer = box.run("curl", "-sSi", f"{box.base}/vscode/?folder=/home/ada")
    assert answer.startswith("HTTP/1.1 302")
    assert "/login" in answer


def test_vscode_is_seeded_once_and_keeps_its_data_in_the_home(box: Box) -> None:
    box.get("/vscode/?folder=/home/ada")
    data = "/home/ada/.local/share/code-server"
    settings = json.loads(box.run("cat", f"{data}/User/settings.json"))
    assert settings["chat.disableAIFeatures"] is True
    assert settings["telemetry.telemetryLevel"] == "off"
    box.sh(f"echo '{{}}' > {data}/User/settings.json")
    # A server that dies comes back with the next request, and takes what it finds.
    box.sh("kill -9 $(pgrep -f [o]ut/node/entry.js)")
    retry = ("--retry", "30", "--retry-delay", "1", "--retry-all-errors")
    assert "workbench" in box.run("curl", "-sSf", *retry, f"{box.base}/vscode/?folder=/home/ada&token=t")
    assert box.run("cat", f"{data}/User/settings.json") == "{}\n"
    assert box.sh(f"ls -d {data}/extensions; find ~ -type s").strip() == f"{data}/extensions"


# ---------------------------------------------------------------------------------------------- how full the home is

GB = 1024**3


@pytest.fixture
def usage(tmp_path: Path) -> Path:
    """Make the directory in which the NFS server says how full the home is; it says nothing yet."""
    path = tmp_path / "usage"
    path.mkdir(mode=0o755)
    return path


def say(usage: Path, used: float, shared: str | None = None) -> None:
    """Say how many GB are in use, in one step, as the NFS server does."""
    new = usage / "home.new"
    new.write_text(json.dumps({"used": int(used * GB), "limit": 20 * GB, "shared": shared, "time": 1}))
    new.chmod(0o644)
    new.replace(usage / "home.json")


@pytest.fixture
def quota_box(tmp_path: Path, usage: Path) -> Iterator[Box]:
    """A user's server that a browser finds, where homes have quotas."""
    running = Box(owned(make_home(tmp_path / "ada")), usage=usage, port=free_port())
    running.wait_until_ready()
    yield running
    running.remove()


@pytest.fixture(scope="module")
def browser(chromium: Browser) -> Browser:
    expect.set_options(timeout=TIMEOUT * 1000)
    return chromium


class Status:
    """JupyterLab's status bar and notices, in a page whose clock is ours."""

    def __init__(self, browser: Browser, box: Box, locale: str) -> None:
        self.page = browser.new_page(locale=locale)
        self.page.clock.install()
        with self._asked():
            self.page.goto(f"{box.base}/lab?token=t", timeout=TIMEOUT * 1000)
        self.item = self.page.locator("#jhok-home")
        self.notices = self.page.locator(".Toastify__toast")

    def _asked(self) -> Any:  # noqa: ANN401
        return self.page.expect_response(lambda answer: "/jhok/home?" in answer.url, timeout=TIMEOUT * 1000)

    def a_minute_later(self) -> None:
        """Let a minute pass, after which the page asks again."""
        with self._asked() as answer:
            self.page.clock.fast_forward(61_000)
        assert answer.value.ok

    def colour(self) -> str:
        """Return the colour behind the item."""
        return str(self.item.evaluate("item => getComputedStyle(item).backgroundColor"))


def test_the_status_bar_follows_how_full_the_home_is(browser: Browser, quota_box: Box, usage: Path) -> None:
    status = Status(browser, quota_box, "en-GB")
    item, notices = status.item, status.notices
    expect(status.page.locator("#jp-main-statusbar")).to_contain_text("Launcher")
    assert item.count() == 0

    say(usage, 3.1)
    status.a_minute_later()
    expect(item).to_have_text("Home: 3.1 of 20.0 GB")
    expect(item).to_be_visible()
    assert "du -xh" in str(item.get_attribute("title"))
    plain = status.colour()
    assert notices.count() == 0

    say(usage, 18.9)
    status.a_minute_later()
    expect(item).to_have_text("Home: 18.9 of 20.0 GB, nearly full")
    expect(notices).to_have_text([re.compile("Your home is nearly full.+tail$")])
    nearly = status.colour()

    say(usage, 20)
    status.a_minute_later()
    expect(item).to_have_text("Home: 20.0 of 20.0 GB, full")
    expect(notices).to_have_text([re.compile("Your home is full.+tail$")])
    assert len({plain, nearly, status.colour()}) == 3

    notices.get_by_role("button").click()
    expect(notices).to_have_count(0)
    for used in (20.1, 20.2):
        say(usage, used)
        status.a_minute_later()
        expect(item).to_have_text(f"Home: {used} of 20.0 GB, full")
    assert notices.count() == 0  # who has been told is not told again

    say(usage, 18.5)
    status.a_minute_later()
    expect(item).to_have_text("Home: 18.5 of 20.0 GB, nearly full")
    say(usage, 20)
    status.a_minute_later()
    expect(notices).to_have_text([re.compile("Your home is full")])

    say(usage, 2)
    status.a_minute_later()
    expect(item).to_have_text("Home: 2.0 of 20.0 GB")
    expect(notices).to_have_count(0)
    assert status.colour() == plain

    (usage / "home.json").unlink()
    status.a_minute_later()
    expect(item).to_be_hidden()


def test_the_status_bar_speaks_chinese_and_names_who_shares(browser: Browser, quota_box: Box, usage: Path) -> None:
    say(usage, 19, shared="class-2026")
    status = Status(browser, quota_box, "zh-CN")
    expect(status.item).to_have_text(re.compile("^class-2026 的个人目录.已用 19.0 / 20.0 GB.快满了$"))
    expect(status.notices).to_have_text([re.compile("class-2026 的个人目录快满了.+tail$")])


def test_how_full_the_home_is_is_told_to_its_user_and_asking_is_no_use(quota_box: Box, usage: Path) -> None:
    say(usage, 19)

    def used() -> str:
        return str(json.loads(quota_box.get("/api/status").rpartition("\n\n")[2])["last_activity"])

    before = used()
    assert '"level": "nearly"' in quota_box.get("/jhok/home")
    assert used() == before
    quota_box.get("/api/contents")
    assert used() != before
    for options, status in ([], 403), (["-X", "POST", "-H", "Authorization: token t"], 405):
        answer = quota_box.run("curl", "-sSi", *options, f"{quota_box.base}/jhok/home")
        assert answer.startswith(f"HTTP/1.1 {status}"), answer
        assert "20.0" not in answer


# -------------------------------------------------------------------------------------------- a home that breaks things


def make_wheel(folder: Path, name: str, code: str = "raise SystemExit('broken on purpose')\n") -> str:
    """Make a wheel of a package, version 99.0; return its file's name."""
    path = folder / f"{name}-99.0-py3-none-any.whl"
    info = f"{name}-99.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", code)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path.name


@pytest.fixture(scope="module")
def broken_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which everything that a server reads there is broken."""
    home = make_home(tmp_path_factory.mktemp("broken") / "ada")
    share = home / ".local/share/jupyter"
    for path, text in {
        home / ".jupyter/jupyter_server_config.py": "raise RuntimeError('broken on purpose')",
        home / ".jupyter/jupyter_lab_config.py": "this is not Python",
        home / ".jupyter/jupyter_server_config.json": "{broken",
        share / "kernels/mine/kernel.json": "{broken",
        share / "labextensions/broken/package.json": "{broken",
        share / "labextensions/@half/package.json": "{",
        share / "labextensions/@half/done/package.json": '{"name": "@half/done"}',
        home / ".bashrc": "exit 3",
        home / ".zshenv": "exit 3",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("jupyter_server", "simpervisor"):
        make_wheel(home, name)
    return owned(home)


def test_a_users_version_of_a_package_comes_first_and_can_be_taken_back(box: Box) -> None:
    wheel = make_wheel(box.home, "comm", "print('mine')\n")
    box.sh(f"pip install --quiet --no-index --no-deps ./{wheel}")
    assert box.run("python", "-c", "import comm; print(comm.__file__)").startswith("mine\n/home/ada/.local/")
    box.sh("pip uninstall --quiet --yes comm")
    assert box.run("python", "-c", "import comm; print(comm.__file__)").startswith("/usr/local/lib/")


def test_a_broken_home_does_not_keep_the_server_from_starting(broken_home: Path) -> None:
    box = Box(broken_home)
    try:
        box.wait_until_ready()
        said = box.sh("pip install --quiet --no-index --no-deps ./*.whl 2>&1; ls ~/.local/lib/python3.13/site-packages")
        assert "simpervisor" in said  # a plain "pip install" goes into the home
        podman("restart", "--time=10", box.name)
        box.wait_until_ready()
        assert "jupyter-config-data" in box.get("/lab")
        assert '"python3"' in box.get("/api/kernelspecs")
        assert "workbench" in box.get("/vscode/?folder=/home/ada")
    finally:
        box.remove()


@pytest.fixture
def full_home(tmp_path: Path) -> Iterator[Path]:
    """A home in which not one more byte has room, as when a quota is used up; its disk is a small one in memory."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    home = make_home(tmp_path / "ada")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=2m,mode=0700,uid={UID},gid={GID}", "home", home], check=True)
    try:
        with (home / "data").open("wb", buffering=0) as data, contextlib.suppress(OSError):
            while data.write(bytes(4096)):
                pass
        assert os.statvfs(home).f_bavail == 0
        yield owned(home)
    finally:
        subprocess.run(["umount", home], check=True)


def test_whose_home_is_full_can_start_and_make_room(full_home: Path) -> None:
    box = Box(full_home)
    try:
        box.wait_until_ready()
        assert "jupyter-config-data" in box.get("/lab")
        assert "there is no room" in box.run("/opt/jupyter/bin/python", "-c", IN_A_KERNEL, FULL)
        shown = box.type(
            ["/bin/zsh"],
            ("", "The disk of your home is full"),
            ("ls -l\r", "data"),
            ("rm data; echo ro''om\r", "room"),
            ("exit\r", None),
        )
        assert "room" in shown
        assert not (full_home / "data").exists()
        assert "workbench" in box.get("/vscode/?folder=/home/ada")
    finally:
        box.remove()


FULL = """
try:
    open("more", "wb", buffering=0).write(bytes(4096))
except OSError as error:
    print("there is no room", error.errno)
"""
# With the server's environment, as the kernels that it starts.
IN_A_KERNEL = textwrap.dedent(
    """
    import os, pathlib, subprocess, sys
    server = subprocess.check_output(["pgrep", "-of", "^[^ ]*python3? [^ ]*jupyter-lab"], text=True).strip()
    environment = pathlib.Path(f"/proc/{server}/environ").read_text().rstrip("\\0").split("\\0")
    os.environ.update(entry.split("=", 1) for entry in environment)
    from jupyter_client.manager import start_new_kernel

    def shown(message):
        print(message["content"].get("text", ""), end="")

    manager, client = start_new_kernel(kernel_name="python3", cwd="/home/ada")
    try:
        client.execute_interactive(sys.argv[1], timeout=30, output_hook=shown)
    finally:
        manager.shutdown_kernel(now=True)
    """
)


# ---------------------------------------------------------------------------------------------- stopping

BUSY = textwrap.dedent(
    """
    import json, os, sys, urllib.request
    import websocket

    def post(path, **body):
        headers = {"Authorization": "token t", "Content-Type": "application/json"}
        request = urllib.request.Request(sys.argv[1] + path, json.dumps(body).encode(), headers)
        return json.load(urllib.request.urlopen(request))

    post("/api/kernels", name="python3")
    name = post("/api/terminals")["name"]
    address = sys.argv[1].replace("http", "ws") + f"/terminals/websocket/{name}"
    terminal = websocket.create_connection(address, header=["Authorization: token t"], timeout=30)
    for line in ("trap 'date > ~/terminal-ended; exit' TERM HUP", "echo rea''dy"):
        terminal.send(json.dumps(["stdin", line + "\\r"]))
    shown = ""
    while "ready" not in shown.replace("rea''dy", ""):
        kind, text = json.loads(terminal.recv())[:2]
        shown += text if kind == "stdout" else ""
    """
)


@pytest.mark.parametrize("vscode", [False, True])
def test_a_server_in_use_ends_when_it_is_asked(tmp_path: Path, vscode: bool) -> None:
    box = Box(owned(make_home(tmp_path / "ada")))
    try:
        box.wait_until_ready()
        if vscode:
            assert "workbench" in box.get("/vscode/?folder=/home/ada")
        box.run("/opt/jupyter/bin/python", "-c", BUSY, box.base)
        podman("stop", "--time=10", box.name)
        state = json.loads(podman("inspect", "--format={{json .State}}", box.name))
        assert state["ExitCode"] not in (137, -1), podman("logs", box.name)  # 137: it had to be killed
        assert (tmp_path / "ada/terminal-ended").exists()  # what ran in a terminal could put its things in order
        assert "Shutting down 1 kernel" in podman("logs", box.name)
    finally:
        box.remove()


def test_the_notice_before_the_greatest_age_reaches_the_page(tmp_path: Path) -> None:
    box = Box(owned(make_home(tmp_path / "ada")), "JHOK_STOP_AT=2026-11-24T12:00:00Z", "JHOK_STOP_WARNING=600")
    try:
        box.wait_until_ready()
        config = page_config(box.get("/lab"))
        assert (config["jhokStopAt"], config["jhokStopWarning"]) == ("2026-11-24T12:00:00Z", "600")
    finally:
        box.remove()
