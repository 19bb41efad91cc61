"""A person's way through the site, step by step in one browser: each step goes on where the one before it ended."""

from __future__ import annotations

import json
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.jhok.lab.plugins.module_utils.k8s import connect
from ansible_collections.jhok.lab.plugins.plugin_utils.guide import commands
from extension import write_extension
from pages import ROOT, Code, Hub, Lab, Person, Site, Terminal
from playwright.sync_api import Page, expect

NAME = "ada-lovelace"  # who signs in as Ada-Lovelace
RUN = secrets.token_hex(4)  # in the names of this run's files, so that an earlier run's are not taken for them
# As in the user guide, when its pictures are made.
PROJECT = ("Projects", "data 2026" if os.environ.get("JHOK_SCREENSHOTS") else f"数据 {RUN}")
THEME = f"lab-{RUN}"
FOLDER = f"/home/{NAME}/{'/'.join(PROJECT)}"
SETTINGS = "~/.local/share/code-server/User/settings.json"
ZSHRC = f"MINE={RUN}\n"

PLOT = """\
import os
import numpy, matplotlib.pyplot as plt
print(os.getcwd())
x = numpy.linspace(0, 10, 200)
plt.plot(x, numpy.sin(x));
"""

Picture = Callable[[Page, str], None]


class Nodes:
    """On which node the server runs, and a way to have the next one run elsewhere."""

    def __init__(self, site: Site) -> None:
        self.cluster, self.namespace = connect(site.kubeconfig), site.namespace
        self.closed = ""

    def of_server(self) -> str:
        """Return the node of the server."""
        label = f"hub.jupyter.org/username={NAME}"
        (pod,) = self.cluster.list("v1", "Pod", self.namespace, label_selector=label)
        return str(pod["spec"]["nodeName"])

    def close(self, name: str) -> None:
        """Let no new pod start on a node."""
        self.closed = name
        self._set(name, True)

    def open(self) -> None:
        """Take the closed node back into use."""
        if self.closed:
            self._set(self.closed, False)

    def _set(self, name: str, unschedulable: bool) -> None:
        spec = {"unschedulable": unschedulable}
        self.cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})


class Journey:
    """What the steps hand on."""

    def __init__(self, person: Person, nodes: Nodes) -> None:
        self.person, self.nodes = person, nodes
        self.first_node = ""
        self._terminal: Terminal | None = None
        self._code: Code | None = None

    @property
    def lab(self) -> Lab:
        return self.person.lab

    @property
    def terminal(self) -> Terminal:
        """The terminal of the server that runs."""
        if self._terminal is None:
            self.lab.launcher()
            self._terminal = self.lab.terminal()
        return self._terminal

    @property
    def code(self) -> Code:
        assert self._code, "the step that opens VS Code failed"
        return self._code

    @code.setter
    def code(self, code: Code) -> None:
        self._code = code

    def wait_for_line(self, line: str, path: str) -> None:
        """Wait until a file of the folder has a line: VS Code saves by itself, and shows no sign when it has."""
        self.terminal.run(f"until grep -qxF '{line}' '{FOLDER}/{path}'; do sleep 0.1; done")

    def stopped(self) -> None:
        """Forget what ended with the server."""
        for page in self.person.context.pages:
            if page != self.person.page:
                page.close()
        self._terminal = self._code = None


@pytest.fixture(scope="module")
def journey(new_person: Callable[[], Person], site: Site) -> Iterator[Journey]:
    nodes = Nodes(site)
    yield Journey(new_person(), nodes)
    nodes.open()


def test_signs_in_with_github(journey: Journey, site: Site, picture: Picture) -> None:
    person = journey.person
    person.hub.open()
    expect(person.page).to_have_url(re.compile("/hub/login"))
    expect(person.page).to_have_title(re.compile(re.escape(site.variables["jupyterhub_site_name"])))
    expect(person.page.locator("#jhok-notice")).to_have_text(site.variables["jupyterhub_notice"])
    picture(person.page, "sign-in")
    person.hub.sign_in("Ada-Lovelace")
    person.page.wait_for_url(f"{site.url}/**")
    person.hub.stop_what_runs()
    expect(person.page.get_by_text(NAME).first).to_be_visible()


def test_chooses_environment_and_size(journey: Journey, picture: Picture) -> None:
    person = journey.person
    person.hub.open()
    expect(person.page).to_have_url(re.compile("/hub/spawn"))
    assert len(person.hub.chosen("environment")) == len(person.hub.chosen("size")) == 1
    person.hub.choose("environment", "science")
    person.hub.choose("size", "medium")
    picture(person.page, "options")
    person.hub.start()
    expect(person.page).to_have_url(re.compile(f"/user/{NAME}/lab"))
    journey.first_node = journey.nodes.of_server()


def test_sees_the_launcher(journey: Journey) -> None:
    lab = journey.lab
    lab.enter()  # JupyterLab opens as it was left
    lab.launcher()
    for name, category in (
        ("Python 3", "Notebook"),
        ("Python 3", "Console"),
        ("Terminal", "Other"),
        ("VS Code", "Other"),
    ):
        expect(lab.card(name, category)).to_be_visible()


def test_types_commands_in_a_terminal(journey: Journey) -> None:
    terminal = journey.terminal
    assert terminal.run("echo $ZSH_VERSION").strip(), "the terminal's shell is not zsh"
    assert terminal.run("pwd").strip() == f"/home/{NAME}"
    for command in ("git", "zip", "unzip", "curl", "vim", "less", "tmux"):
        terminal.run(f"command -v {command}")
    terminal.run(f"mkdir -p '{FOLDER}'")
    terminal.run(f"printf 'MINE=%s\\n' {RUN} > ~/.zshrc")


def test_uploads_by_button(journey: Journey, tmp_path: Path, picture: Picture) -> None:
    archive = tmp_path / "measurements.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("measurements/first.csv", "time,value\n0,1.5\n1,2.25\n")
        content.writestr("measurements/notes.txt", "uploaded\n")
    lab = journey.lab
    lab.enter(*PROJECT)
    lab.launcher()
    lab.upload(archive)
    expect(lab.page.get_by_text(f"Uploaded {archive.name}")).to_be_in_viewport(ratio=1)
    picture(lab.page, "upload")
    journey.terminal.run(f"cd '{FOLDER}' && unzip -o {archive.name}")
    assert journey.terminal.run("cat measurements/notes.txt") == "uploaded\n"


def test_uploads_by_dragging(journey: Journey, tmp_path: Path) -> None:
    dragged = tmp_path / "拖放 dragged.txt"
    dragged.write_text("dragged\n")
    journey.lab.drop(dragged)
    assert journey.terminal.run(f"cat '{FOLDER}/{dragged.name}'") == "dragged\n"


def test_runs_a_notebook(journey: Journey, picture: Picture) -> None:
    lab = journey.lab
    lab.launcher()
    output = lab.notebook(PLOT)
    expect(output.first).to_have_text(FOLDER)
    expect(output.locator("img")).to_be_visible()
    lab.save()
    picture(lab.page, "jupyterlab")


def test_follows_the_user_guide(journey: Journey, tmp_path: Path, picture: Picture) -> None:
    guide = ROOT / "docs/user-guide/guide.en.md"
    program = ROOT / "tests/lab/guide_check.py"
    (tmp_path / "commands.json").write_text(json.dumps(commands(guide.read_text())))
    lab = journey.lab
    lab.upload(program, tmp_path / "commands.json")
    terminal = journey.terminal
    assert "0 of" not in terminal.run(f"cd '{FOLDER}' && python3 {program.name} < commands.json")
    # Among them is one that writes to ~/.zshrc; from here on the file is what this person has.
    terminal.run(f"rm {program.name} commands.json; printf 'MINE=%s\\n' {RUN} > ~/.zshrc")
    lab.refresh()
    lab.launcher()
    terminal = lab.terminal()
    terminal.type("echo $MINE", lambda: re.search(rf"^{RUN}", terminal.shown, re.MULTILINE))
    terminal.type("git init -q -b main repository; cd repository", lambda: "main" in terminal.shown.rpartition("cd")[2])
    terminal.type("git status", lambda: "No commits yet" in terminal.shown)
    picture(lab.page, "terminal")


def test_edits_a_file_of_the_current_directory_in_vscode(journey: Journey, picture: Picture) -> None:
    lab = journey.lab
    lab.enter(*PROJECT, "measurements")
    lab.launcher()
    journey.code = code = lab.code()
    assert f"/user/{NAME}/vscode/" in code.page.url
    code.edit("notes.txt", "edited in VS Code\n")
    journey.wait_for_line("edited in VS Code", "measurements/notes.txt")
    assert journey.terminal.run(f"cat '{FOLDER}/measurements/notes.txt'") == "uploaded\nedited in VS Code\n"
    picture(code.page, "vscode")


def test_opens_vscode_in_a_second_tab(journey: Journey) -> None:
    tab = journey.person.context.new_page()
    tab.goto(journey.code.page.url)
    second = Code(tab)
    second.wait()
    second.edit("first.csv", "2,3.5\n")
    journey.code.edit("notes.txt", "and again\n")
    journey.wait_for_line("2,3.5", "measurements/first.csv")
    journey.wait_for_line("and again", "measurements/notes.txt")
    tab.close()


@pytest.mark.usefixtures("journey")
def test_nobody_else_gets_in(new_person: Callable[[], Person], site: Site) -> None:
    grace = new_person()
    for path in ("lab", "vscode/", "api/contents"):
        answer = grace.context.request.get(f"{site.url}/user/{NAME}/{path}", max_redirects=0)
        assert answer.status in (302, 403), f"{path} answers {answer.status} to somebody who is not signed in"
    grace.hub.open()
    grace.hub.sign_in("4Grace")
    expect(grace.page).to_have_url(f"{site.url}/hub/spawn")
    for path in ("lab", "vscode/", "api/contents"):
        answer = grace.page.goto(f"{site.url}/user/{NAME}/{path}")
        assert answer
        assert answer.status == 403, answer.url
    grace.errors.clear()  # Chromium's own words on a page of status 403


def test_installs_an_extension_and_changes_settings(journey: Journey, tmp_path: Path) -> None:
    lab, code, terminal = journey.lab, journey.code, journey.terminal
    journey.person.origins.append("https://open-vsx.org")
    settings = json.loads(terminal.run(f"cat {SETTINGS}"))
    assert settings["telemetry.telemetryLevel"] == "off"
    lab.enter(*PROJECT)
    lab.upload(write_extension(tmp_path, THEME))
    code.command("Extensions: Install from VSIX")
    code.choose_file(FOLDER, f"{THEME}.vsix")
    expect(code.page.get_by_text("Completed installing extension").first).to_be_visible()
    code.command("Preferences: Open User Settings (JSON)")
    code.replace("settings.json", json.dumps({**settings, "workbench.colorTheme": THEME, "editor.fontSize": 15}))
    expect(code.window(THEME)).to_be_visible()


def test_returns_from_vscode_by_the_address(journey: Journey) -> None:
    page = journey.code.page
    page.goto(page.url.partition("vscode")[0])
    Lab(page).wait()
    page.close()


def test_stops_by_the_hub_control_panel(journey: Journey, picture: Picture) -> None:
    lab = journey.lab
    lab.launcher()
    lab.open_menu("File")
    picture(lab.page, "control-panel")
    with journey.person.context.expect_page() as tab:
        lab.choose("Hub Control Panel")
    hub = Hub(tab.value, journey.person.url)
    expect(tab.value).to_have_url(re.compile("/hub/home$"))
    expect(tab.value.locator("#jhok-environment")).to_have_text("Science")
    picture(tab.value, "home")
    hub.stop()
    journey.stopped()


def test_starts_on_another_node(journey: Journey) -> None:
    person = journey.person
    journey.nodes.close(journey.first_node)
    person.hub.open()
    expect(person.page).to_have_url(re.compile("/hub/spawn"))
    assert (person.hub.chosen("environment"), person.hub.chosen("size")) == (["science"], ["medium"])
    person.hub.choose("environment", "standard")
    person.hub.start()
    assert journey.nodes.of_server() != journey.first_node
    journey.nodes.open()


def test_finds_files_extension_and_settings(journey: Journey) -> None:
    lab = journey.lab
    lab.enter(*PROJECT, "measurements")
    terminal = journey.terminal
    assert terminal.run(f"cat '{FOLDER}/measurements/notes.txt'") == "uploaded\nedited in VS Code\nand again\n"
    assert terminal.run("cat ~/.zshrc") == ZSHRC
    assert json.loads(terminal.run(f"cat {SETTINGS}"))["editor.fontSize"] == 15
    terminal.run(f"test -d ~/.local/share/code-server/extensions/lab.{THEME}-1.0.0")
    lab.launcher()
    journey.code = code = lab.code()
    expect(code.window(THEME)).to_be_visible()
    expect(code.file("notes.txt")).to_be_visible()


def test_stops_at_the_end(journey: Journey) -> None:
    journey.stopped()
    journey.person.hub.stop_what_runs()
