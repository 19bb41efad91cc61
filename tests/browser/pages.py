"""What a person does in the browser: the hub's pages, JupyterLab, its terminal, VS Code. Playwright waits by itself."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import BrowserContext, Locator, Page, WebSocket, expect

ROOT = Path(__file__).parents[2]
START_MS = 180_000  # from a press on Start to JupyterLab
COMMAND_MS = 60_000  # a command in a terminal
STOP_MS = 90_000


@dataclass(frozen=True)
class Site:
    """The site that is looked at; `variables` are those that it was made with."""

    url: str
    github: str  # where the OAuth server has to be
    kubeconfig: str
    namespace: str
    variables: dict[str, Any]


class Hub:
    """The hub's own pages, in one tab."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url

    def open(self, path: str = "/") -> None:
        """Open a page of the hub."""
        self.page.goto(f"{self.url}{path}")

    def sign_in(self, login: str, decision: str = "Authorize") -> None:
        """Press the button of the page shown, and answer GitHub's question."""
        self.page.get_by_role("button", name="Sign in with GitHub").click()
        self.page.get_by_role("radio", name=login, exact=True).check()
        self.page.get_by_role("button", name=decision).click()

    def chosen(self, field: str) -> list[str]:
        """Return which answers to a question of the options page are chosen."""
        self.page.get_by_role("button", name="Start").wait_for()  # the end of the page
        return [str(box.get_attribute("value")) for box in self.page.locator(f"input[name={field}]:checked").all()]

    def choose(self, field: str, value: str) -> None:
        """Answer a question of the options page."""
        self.page.locator(f"input[name={field}][value='{value}']").check()

    def start(self) -> None:
        """Press Start on the options page and follow the progress until JupyterLab is there."""
        self.page.get_by_role("button", name="Start").click()
        Lab(self.page).wait()

    def stop(self) -> None:
        """Press Stop My Server on the home page and wait until the server has stopped."""
        self.page.get_by_role("button", name="Stop My Server").click()
        expect(self.page.locator("#jhok-state")).to_contain_text("It is not running", timeout=STOP_MS)

    def stop_what_runs(self) -> None:
        """Have no server, whatever ran before."""
        self.open("/hub/home")
        stop = self.page.get_by_role("button", name="Stop My Server")
        if stop.is_visible():
            self.stop()


class Lab:
    """JupyterLab in one tab."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.directory: tuple[str, ...] = ()  # in the home

    def wait(self) -> None:
        """Wait until it can be used."""
        self.page.wait_for_url("**/user/*/lab**", timeout=START_MS)
        self.page.locator(".jp-DirListing-content").wait_for(timeout=START_MS)
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def card(self, name: str, category: str = "Other") -> Locator:
        """Return a card of the launcher on show."""
        cards = self.page.locator(f".jp-LauncherCard[data-category={category}]:visible")
        return cards.filter(has=self.page.get_by_text(name, exact=True))

    def launcher(self) -> None:
        """Show a launcher, which is for the current directory."""
        if not self.card("Terminal").is_visible():
            self.page.get_by_role("button", name="New Launcher").first.click()
        expect(self.page.locator(".jp-Launcher:visible .jp-Launcher-cwd")).to_have_text("/".join(self.directory))

    def menu(self, menu: str, item: str) -> None:
        """Choose an item of the menu bar."""
        self.open_menu(menu)
        self.choose(item)

    def open_menu(self, name: str) -> None:
        """Open a menu of the menu bar."""
        self.page.locator(".lm-MenuBar-item").get_by_text(name, exact=True).click()
        self.page.locator(".lm-Menu").wait_for()

    def choose(self, item: str) -> None:
        """Choose an item of the open menu."""
        self.page.locator(".lm-Menu-item").filter(has=self.page.get_by_text(item, exact=True)).click()

    def entry(self, name: str) -> Locator:
        """Return a file or directory of the file browser."""
        return self.page.locator(".jp-DirListing-item").filter(has=self.page.get_by_text(name, exact=True))

    def enter(self, *names: str) -> None:
        """Go from the home into a directory, one double click after the other."""
        crumbs = self.page.locator(".jp-BreadCrumbs-item")
        for last in (False, False, True):
            self.page.locator(".jp-BreadCrumbs-home").click()
            try:
                expect(crumbs).to_have_count(0, timeout=5000)
                break
            except AssertionError:  # JupyterLab loses a click while it looks at the directory again
                if last:
                    raise
        for name in names:
            self.refresh()
            self.entry(name).dblclick()
            expect(crumbs.last).to_have_text(name)
        self.directory = names

    def refresh(self) -> None:
        """Look at the directory again."""
        self.page.get_by_role("button", name="Refresh the file browser").click()

    def upload(self, *paths: Path) -> None:
        """Upload files by the button into the current directory."""
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name="Upload Files").click()
        chooser.value.set_files(paths)
        for path in paths:
            self.entry(path.name).wait_for()

    def drop(self, *paths: Path) -> None:
        """Drag files from outside the browser into the file browser."""
        box = self.page.locator(".jp-DirListing-content").bounding_box()
        assert box
        session = self.page.context.new_cdp_session(self.page)
        files = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for step in ("dragEnter", "dragOver", "drop"):
            place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] - 10}
            session.send("Input.dispatchDragEvent", {"type": step, **place, "data": files})
        session.detach()
        for path in paths:
            self.entry(path.name).wait_for()

    def notebook(self, code: str) -> Locator:
        """Run code in a new notebook; returns where its output appears."""
        self.card("Python 3", "Notebook").click()
        panel = self.page.locator(".jp-NotebookPanel:visible")
        # The panel's own sign says idle already when there is no kernel yet.
        self.page.locator("#jp-bottom-panel").get_by_text("Python 3 | Idle").wait_for(timeout=COMMAND_MS)
        panel.locator(".jp-Cell .cm-content").first.click()
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Shift+Enter")
        return panel.locator(".jp-OutputArea-output")

    def save(self) -> None:
        """Save the new notebook on show under the name that JupyterLab proposes."""
        self.menu("File", "Save Notebook")
        self.page.get_by_role("button", name="Rename and Save").click()
        expect(self.page.locator(".lm-TabBar-tab.jp-mod-dirty")).to_have_count(0)

    def terminal(self) -> Terminal:
        """Open a terminal from the launcher."""
        with self.page.expect_websocket(lambda socket: "/terminals/websocket/" in socket.url) as socket:
            self.card("Terminal").click()
        return Terminal(self.page, socket.value)

    def code(self) -> Code:
        """Open VS Code from the launcher, which is a tab of its own."""
        with self.page.context.expect_page() as tab:
            self.card("VS Code").click()
        code = Code(tab.value)
        code.wait()
        return code


class Terminal:
    """A terminal of JupyterLab: typed on the keyboard, read from its websocket, since it paints its text."""

    _numbers = itertools.count(1)

    def __init__(self, page: Page, socket: WebSocket) -> None:
        self.page, self.socket = page, socket
        self.shown = ""
        self.tab = f"Terminal {socket.url.rpartition('/')[2].partition('?')[0]}"
        socket.on("framereceived", self._show)

    def _show(self, frame: str | bytes) -> None:
        kind, *content = json.loads(frame)
        if kind == "stdout":
            self.shown += content[0]

    def show(self) -> None:
        """Bring its tab to the front and click into it."""
        self.page.locator("#jp-main-dock-panel .lm-TabBar-tab").filter(
            has=self.page.get_by_text(self.tab, exact=True)
        ).click()
        self.page.locator(".jp-Terminal:visible .xterm-screen").click()

    def type(self, command: str, until: Callable[[], object]) -> None:
        """Type a command and wait until what is shown is as it should."""
        with self.socket.expect_event("framereceived", lambda _frame: until(), timeout=COMMAND_MS):
            self.show()
            self.page.keyboard.insert_text(command)
            self.page.keyboard.press("Enter")

    def run(self, command: str, status: int = 0) -> str:
        """Type a command and return what it printed; fails unless it ends with `status`."""
        number = next(self._numbers)
        before = len(self.shown)
        # The quotes keep what is typed from looking like what is waited for.
        ended = re.compile(rf"BEGIN-{number}\r?\n(.*)END-{number}-(\d+)-", re.DOTALL)
        text = f"echo 'BEGIN'-{number}; {command}; echo 'END'-{number}-$?-"
        self.type(text, lambda: ended.search(self.shown, before))
        found = ended.search(self.shown, before)
        assert found
        printed = re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>])", "", found[1]).replace("\r", "")
        assert int(found[2]) == status, f"{command}: {printed}"
        return printed


class Code:
    """VS Code in one tab."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def wait(self) -> None:
        """Wait until its window shows the files of its directory."""
        self.page.locator(".monaco-workbench .explorer-folders-view .monaco-list").wait_for(timeout=COMMAND_MS)

    def file(self, name: str) -> Locator:
        """Return a file of the explorer."""
        return self.page.locator(".explorer-folders-view .monaco-list-row").filter(
            has=self.page.get_by_text(name, exact=True)
        )

    def window(self, theme: str) -> Locator:
        """Return the window when it has this colour theme."""
        return self.page.locator(f".monaco-workbench[class*='{theme}']")

    def edit(self, name: str, text: str) -> None:
        """Open a file, write `text` at its end and save it."""
        self.file(name).dblclick()
        self._write(name, "Control+End", text)
        tab = self.page.locator(".tabs-container .tab.active").filter(has_text=name)
        expect(tab).not_to_have_class(re.compile(r"\bdirty\b"))

    def replace(self, name: str, text: str) -> None:
        """Write `text` instead of what is in the file that is just opened, and save it."""
        self._write(name, "Control+a", text)

    def _write(self, name: str, where: str, text: str) -> None:
        editor = self.page.locator(f".monaco-editor.focused[data-uri$='/{name}']")
        editor.wait_for()
        self.page.keyboard.press(where)
        self.page.keyboard.insert_text(text)
        # What the editor has added by itself, such as closing brackets.
        self.page.keyboard.press("Control+Shift+End")
        self.page.keyboard.press("Delete")
        expect(editor.locator(".view-lines")).to_contain_text(text.strip())
        self.page.keyboard.press("Control+s")

    def command(self, name: str) -> None:
        """Choose a command of the palette."""
        self.page.keyboard.press("F1")
        self._pick(f">{name}", name)

    def choose_file(self, folder: str, name: str) -> None:
        """Choose a file in the dialog that a command has opened."""
        self.page.locator(".quick-input-list .monaco-list-row").filter(has_text=re.compile(r"^\.\.$")).wait_for()
        self._pick(f"{folder}/", name)

    def _pick(self, text: str, choice: str) -> None:
        """Type into the box on top and choose an entry below it."""
        self.page.locator(".quick-input-widget:visible input").fill(text)
        self.page.locator(".quick-input-list .monaco-list-row").filter(has_text=choice).first.click()


def allowed(url: str, origins: list[str]) -> bool:
    """Tell whether a page may ask this address."""
    return url.startswith(("data:", "blob:", "about:")) or any(url.startswith(f"{origin}/") for origin in origins)


class Person:
    """One person's browser: its cookies and tabs, what pages asked for elsewhere, what the hub's complained about.

    origins: whom pages may ask. Whoever installs an extension lets VS Code look for newer versions of it.
    """

    def __init__(self, context: BrowserContext, url: str, origins: list[str]) -> None:
        self.context, self.url, self.origins = context, url, [*origins]
        self.foreign: list[str] = []
        self.errors: list[str] = []

        def watch(page: Page) -> None:
            page.on("websocket", lambda socket: self._note(socket.url.replace("ws", "http", 1)))
            page.on("console", lambda message: message.type == "error" and self._complain(page, message.text))
            page.on("pageerror", lambda error: self._complain(page, str(error)))

        context.on("request", lambda request: self._note(request.url))
        context.on("page", watch)
        self.page = context.new_page()
        self.hub = Hub(self.page, url)
        self.lab = Lab(self.page)

    def _note(self, url: str) -> None:
        if not allowed(url, self.origins):
            self.foreign.append(url)

    def _complain(self, page: Page, text: str) -> None:
        if page.url.startswith(f"{self.url}/hub/"):
            self.errors.append(f"{page.url}: {text}")

    def server(self, name: str, path: str = "") -> str:
        """Return an address in somebody's server."""
        return f"{self.url}/user/{quote(name)}/{path}"

    def ask(self, path: str) -> Any:  # noqa: ANN401 - whatever JSON says
        """Return the answer of an API to this browser."""
        return self.context.request.get(f"{self.url}{path}").json()
