"""JupyterLab as ``make lab`` starts it: who is let in, and what a reader does in a real browser."""

import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import Visit
from nbformat import NotebookNode
from traitlets.config import Config

from snrlib.notebooks.find import find_notebook
from snrlib.notebooks.lab import SignIn
from snrlib.notebooks.parameters import parameters

REPOSITORY = Path(__file__).resolve().parents[2]
UNSAFE = """
for name, value in {
    "ip": "0.0.0.0", "token": "", "password": "", "allow_remote_access": True, "allow_origin": "*",
    "allow_origin_pat": ".*", "disable_check_xsrf": True,
}.items():
    c.ServerApp[name] = value
c.IdentityProvider.token = c.PasswordIdentityProvider.token = ""
"""


@dataclass
class Answer:
    """To one request."""

    status: int
    headers: Message
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


@dataclass
class Lab:
    """A running JupyterLab: where it is, how to sign in, and the folder that holds its copy of ``notebooks``."""

    port: int
    token: str
    folder: Path

    def ask(self, path: str, method: str = "GET", token: str | None = None, **headers: str) -> Answer:
        """One request, without following redirects."""
        if token is not None:
            headers["Authorization"] = f"token {token}"
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            with connection.getresponse() as said:
                return Answer(said.status, said.headers, said.read())

    def stop_kernels(self) -> None:
        for session in self.ask("/api/sessions", token=self.token).data:
            self.ask(f"/api/sessions/{session['id']}", "DELETE", self.token)


def lab_command() -> list[str]:
    """What `make lab` executes, with the programs of this Python."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    said = subprocess.run(["make", "-n", "lab"], cwd=REPOSITORY, env=clean, check=True, capture_output=True, text=True)
    program, *arguments = shlex.split(said.stdout.strip().splitlines()[-1])
    assert Path(program).name == "jupyter"
    return [str(Path(sys.executable).with_name("jupyter")), *arguments]


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


@contextmanager
def serve(folder: Path, settings: str = "", **variables: str) -> Iterator[Lab]:
    """JupyterLab by the command of `make lab`, with settings and a copy of the notebooks of its own.

    Args:
        folder: where all this is put.
        settings: the user's own ``jupyter_server_config.py``.
        variables: of the environment.
    """
    kinds = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "share", "JUPYTER_RUNTIME_DIR": "runtime"}
    kinds |= {"IPYTHONDIR": "ipython", "SNR_RUNS": "runs", "SNR_CACHE": "cache"}
    env = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")} | variables
    env |= {name: str(folder / kind) for name, kind in kinds.items()}
    shutil.copytree(REPOSITORY / "notebooks", folder / "study" / "notebooks")
    (folder / "config").mkdir()
    (folder / "config" / "jupyter_server_config.py").write_text(settings)
    more = ["--no-browser", "--ServerApp.port=0"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        more.append("--allow-root")  # which `make lab` does not say: then Jupyter refuses
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen([*lab_command(), *more], cwd=folder / "study", env=env, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 90
        address = re.compile(r"http://127\.0\.0\.1:(\d+)/lab/\S+\?token=(\w+)\n")
        while not ((found := address.search(log.read_text())) and _answers(int(found[1]))):  # written before it answers
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Lab(int(found[1]), found[2], folder / "study")
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """As a newcomer starts it."""
    with serve(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="module")
def unsafe_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """As someone starts it whose own settings turn every protection off."""
    folder = tmp_path_factory.mktemp("unsafe")
    (folder / "token").touch()
    with serve(folder, UNSAFE, JUPYTER_TOKEN="", JUPYTER_TOKEN_FILE=str(folder / "token")) as running:
        yield running


@pytest.fixture(params=["lab", "unsafe_lab"], ids=["newcomer", "unsafe settings"])
def server(request: pytest.FixtureRequest) -> Lab:
    running: Lab = request.getfixturevalue(request.param)
    return running


def _other_addresses() -> Iterator[tuple[socket.AddressFamily, str]]:
    """Of this machine, beside 127.0.0.1."""
    yield socket.AF_INET, "127.0.0.2"
    for family, anyone in ((socket.AF_INET, "192.0.2.77"), (socket.AF_INET6, "2001:db8::77")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # asks for the route and sends nothing
            try:
                probe.connect((anyone, 9))
            except OSError:
                continue
            yield family, probe.getsockname()[0]


@pytest.mark.slow
def test_the_server_listens_on_loopback_alone(server: Lab) -> None:
    socket.create_connection(("127.0.0.1", server.port), 5).close()
    for family, address in _other_addresses():
        with socket.socket(family) as outside:
            outside.settimeout(2)
            with pytest.raises(OSError):  # noqa: PT011 (refused, or no such address)
                outside.connect((address, server.port))


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, "", "0" * 48], ids=["no token", "an empty token", "a wrong token"])
def test_nobody_is_let_in_without_the_token(server: Lab, token: str | None) -> None:
    for path in ("/api/contents", "/api/kernels", "/api/sessions", "/api/terminals", "/api/kernelspecs"):
        assert server.ask(path, token=token).status == 403, path
    for path in ("/api/kernels", "/api/sessions", "/api/terminals", "/api/contents"):
        assert server.ask(path, "POST", token).status == 403, path
    for path in ("/lab", "/lab/tree/notebooks/01_signal_and_noise.ipynb", "/files/notebooks/conftest.py"):
        answer = server.ask(path, token=token)
        assert (answer.status, answer.headers.get("Location", "")[:7]) == (302, "/login?"), path
    if token is not None:
        assert server.ask(f"/lab?token={token}").status == 302


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.slow
def test_the_token_opens_the_files_and_the_kernels_and_nothing_else_does(server: Lab) -> None:
    assert len(server.token) >= 40
    assert server.ask("/api/contents/notebooks", token=server.token).status == 200
    assert server.ask(f"/lab?token={server.token}").status == 200
    kernel = server.ask("/api/kernels", "POST", server.token).data["id"]
    terminal = server.ask("/api/terminals", "POST", server.token).data["name"]
    try:
        for socket_path in (f"/api/kernels/{kernel}/channels", f"/terminals/websocket/{terminal}"):
            for token in (None, "", "0" * 48):
                assert server.ask(socket_path, token=token, **UPGRADE).status == 403, socket_path
            assert server.ask(socket_path, token=server.token, **UPGRADE).status == 101, "the token is what was missing"
    finally:
        server.ask(f"/api/kernels/{kernel}", "DELETE", server.token)
        server.ask(f"/api/terminals/{terminal}", "DELETE", server.token)


@pytest.mark.slow
def test_what_passes_to_a_kernel_is_encrypted_and_its_key_is_the_readers_alone(server: Lab) -> None:
    kernel = server.ask("/api/kernels", "POST", server.token).data["id"]
    try:
        connection = server.folder.parent / "runtime" / f"kernel-{kernel}.json"
        assert json.loads(connection.read_text())["curve_publickey"]
        assert connection.stat().st_mode & 0o077 == 0
    finally:
        server.ask(f"/api/kernels/{kernel}", "DELETE", server.token)


@pytest.mark.slow
def test_another_site_in_the_readers_browser_reaches_nothing(server: Lab) -> None:
    cookies = server.ask(f"/lab?token={server.token}").headers.get_all("Set-Cookie", [])
    cookie = "; ".join(sorted(text.partition(";")[0] for text in cookies))
    assert server.ask("/api/contents", Cookie=cookie).status == 200
    elsewhere = {"Cookie": cookie, "Origin": "http://elsewhere.example"}
    assert server.ask("/api/kernels", "POST", **elsewhere).status in (403, 404), "a request across sites"
    assert server.ask("/api/kernels", "POST", Cookie=cookie).status == 403, "a form without the page's own mark"
    assert server.ask("/api/contents", **elsewhere).headers.get("Access-Control-Allow-Origin") is None
    rebound = server.ask("/api/contents", token=server.token, Host=f"elsewhere.example:{server.port}")
    assert rebound.status == 403, "a name that was made to point here"


@pytest.mark.slow
def test_jupyterlab_asks_no_other_machine_for_news_updates_or_extensions(lab: Lab) -> None:
    page = lab.ask("/lab", token=lab.token).body.decode()
    config = json.loads(re.findall(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.DOTALL)[0])
    assert config["news"] == {"disabled": True}
    assert config["extensionManager"]["name"] == "read-only"
    assert "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate" in lab_command()


@pytest.mark.parametrize("where", ["IdentityProvider", "PasswordIdentityProvider"])
def test_an_empty_token_is_replaced_by_a_random_one_unless_a_password_is_set(where: str) -> None:
    first, second = (SignIn(config=Config({where: {"token": ""}})) for _ in range(2))
    assert len(first.token) == 48
    assert first.token != second.token
    assert first.token_generated, "so that Jupyter shows it"
    first.token = ""
    assert first.auth_enabled
    assert SignIn(config=Config({where: {"token": "chosen"}})).token == "chosen"
    with_password = SignIn(config=Config({where: {"token": ""}, "PasswordIdentityProvider": {"hashed_password": "x"}}))
    assert with_password.token == ""
    assert with_password.auth_enabled


def test_make_lab_says_what_protects_it_and_runs_as_no_root() -> None:
    command = lab_command()
    for said in ("--ip=127.0.0.1", "--ServerApp.allow_remote_access=False", "--ServerApp.disable_check_xsrf=False"):
        assert said in command
    assert "--ServerApp.identity_provider_class=snrlib.notebooks.lab.SignIn" in command
    assert not [said for said in command if "token" in said or "root" in said], "others may read a command line"


SWITCHED_OFF = re.compile(
    r"""token["']?\s*=\s*(''|""|["']?\s*$)
    | (NotebookApp|ServerApp|IdentityProvider)\.(token|password|hashed_password)\b
    | \b(JUPYTER_TOKEN|disable_check_xsrf|allow_remote_access)\b(?!=False)
    | allow_origin(_pat)?["']?\s*[=:]\s*["']?[*.]
    | (--ip|ServerApp\.ip|LabApp\.ip)["']?\s*=\s*(?!127\.0\.0\.1)
    | allow[-_](root|unauthenticated_access)
    | --no-auth | 0\.0\.0\.0""",
    re.VERBOSE | re.MULTILINE,
)


@pytest.mark.parametrize(
    "text",
    [
        "jupyter lab --IdentityProvider.token=",
        "c.ServerApp.token = ''",
        "--ServerApp.disable_check_xsrf=True",
        "--ServerApp.allow_origin='*'",
        "--ip=0.0.0.0",
        "--ip=*",
        "jupyter lab --allow-root",
        "JUPYTER_TOKEN= jupyter lab",
        "--NotebookApp.password=''",
    ],
)
def test_the_search_for_switched_off_protection_finds_it(text: str) -> None:
    assert SWITCHED_OFF.search(text)


def test_no_file_turns_the_protection_off(repository: Path) -> None:
    found = []
    for path in repository.rglob("*"):
        inside = path.relative_to(repository).parts
        hidden = any(part.startswith(".") and part != ".ci" for part in inside)
        if hidden or inside[:1] == ("data",) or path == Path(__file__).resolve() or not path.is_file():
            continue
        if path.suffix in (".pyc", ".png") or path.parent.name == "__pycache__":
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":  # without the figures
            text = "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
        if path.name == "lab.py":  # whose words name what it prevents
            text = text.replace('c.ServerApp.token = ""', "")
        found += [f"{path.name}: {match[0]}" for match in SWITCHED_OFF.finditer(text)]
    assert not found


# --- In the browser -------------------------------------------------------------------------------------------------

IDLE = ".jp-NotebookPanel:visible .jp-Notebook-ExecutionIndicator[data-status=idle]"
PANEL = ".jp-NotebookPanel:visible"
DONE = """() => {
  const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(node => node.textContent.trim());
  return prompts.some(text => /\\d/.test(text)) && !prompts.includes('[*]:');
}"""
Opened = Callable[..., Any]


@pytest.fixture
def opened(lab: Lab, visit: Visit) -> Iterator[Opened]:
    """``opened(name, interactive=False)``: a fresh copy of a notebook, in JupyterLab, its kernel ready.

    No error of JupyterLab's own on the console is excused: it writes none.
    """

    def open_it(name: str, interactive: bool = False) -> Any:
        source = find_notebook(name)
        notebook = nbformat.read(source, as_version=4)
        if interactive:
            (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
            assert "interactive: bool = False" in cell.source
            cell.source = cell.source.replace("interactive: bool = False", "interactive: bool = True")
        nbformat.write(notebook, lab.folder / "notebooks" / source.name)
        page = visit(f"http://127.0.0.1:{lab.port}/lab/tree/notebooks/{source.name}?token={lab.token}&reset", 1440, 900)
        page.locator(IDLE).wait_for(timeout=60_000)
        return page

    yield open_it
    lab.stop_kernels()


def menu(page: Any, name: str, entry: str) -> None:
    page.get_by_role("menuitem", name=name, exact=True).click()
    page.get_by_role("menuitem", name=entry, exact=True).click()


def run_all(page: Any, lab: Lab, limit: float = 180) -> NotebookNode:
    """Clear what is stored, run every cell, and save.

    Returns:
        The notebook as JupyterLab saved it.

    Raises:
        playwright.sync_api.TimeoutError: it did not end within ``limit`` seconds.
    """
    menu(page, "Edit", "Clear Outputs of All Cells")
    menu(page, "Run", "Run All Cells")
    page.wait_for_function(DONE, timeout=1000 * limit)
    page.locator(IDLE).wait_for(timeout=1000 * limit)
    page.keyboard.press("Control+s")
    page.locator(".jp-NotebookPanel:visible").wait_for()
    page.wait_for_function("!document.querySelector('.lm-TabBar-tab.jp-mod-dirty')")
    return nbformat.read(lab.folder / "notebooks" / page.url.partition("?")[0].rpartition("/")[2], as_version=4)


def assert_no_error_and_every_figure_visible(page: Any, notebook: NotebookNode) -> None:
    """Of a notebook after `run_all`: every cell ran, none failed, and its figures are drawn on the page."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert not ["\n".join(output.traceback) for output in outputs if output.output_type == "error"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert all(len(output.metadata["image/png"]["alt"].split()) >= 5 for output in pictures)
    shown = page.locator(f"{PANEL} .jp-OutputArea-output.jp-RenderedImage:not(.widget-output *) img")
    assert shown.count() == len(pictures)
    for number in range(len(pictures)):
        shown.nth(number).scroll_into_view_if_needed()
        assert shown.nth(number).is_visible()
        assert shown.nth(number).evaluate("image => image.complete && image.naturalWidth") > 100


@pytest.mark.slow
@pytest.mark.browser
def test_notebook_01_runs_in_jupyterlab_and_every_figure_is_seen(opened: Opened, lab: Lab) -> None:
    page = opened("01")
    notebook = run_all(page, lab)
    assert_no_error_and_every_figure_visible(page, notebook)
    assert page.locator(f"{PANEL} .widget-interact").count() == 0, "no widgets without interactive"


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("name", ["01", "02", "03", "04", "10"])
def test_every_slider_moved_by_the_keyboard_redraws_its_figure(name: str, opened: Opened, lab: Lab) -> None:
    page = opened(name, interactive=True)
    notebook = run_all(page, lab)
    assert_no_error_and_every_figure_visible(page, notebook)
    widgets = page.locator(f"{PANEL} .widget-interact")
    asked = [cell for cell in notebook.cells if re.search(r"\binteract\(", _code(cell))]
    assert widgets.count() == len(asked) > 0
    for number in range(len(asked)):
        widget = widgets.nth(number)
        for choice in widget.get_by_role("combobox").all():  # its last entry, with which no slider is idle
            _redraws(page, widget, choice, "End")
        for slider in widget.get_by_role("slider").all():
            _redraws(page, widget, slider, "ArrowRight")
    assert not page.locator(f"{PANEL} [data-mime-type='application/vnd.jupyter.error']").count()


def _redraws(page: Any, widget: Any, control: Any, key: str) -> None:
    """Assert that a key on a control of the widget leads to another figure."""
    before = widget.locator("img").get_attribute("src")
    control.focus()
    page.keyboard.press(key)
    another = "([widget, before]) => { const now = widget.querySelector('img'); return now && now.src !== before; }"
    page.wait_for_function(another, arg=[widget.element_handle(), before], timeout=30_000)
    page.locator(IDLE).wait_for(timeout=30_000)


@pytest.mark.slow
@pytest.mark.browser
def test_the_inspector_of_notebook_08_links_its_maps_in_jupyterlab(opened: Opened, lab: Lab) -> None:
    page = opened("08", interactive=True)
    notebook = run_all(page, lab)
    assert_no_error_and_every_figure_visible(page, notebook)
    frame = page.locator(f"{PANEL} iframe[title^='Inspector']")
    frame.scroll_into_view_if_needed()
    inside = frame.content_frame
    assert inside.locator("#maps section").count() == 4
    inside.locator("#error").press("Enter")
    lists = inside.locator("#lists ul")
    lists.nth(3).wait_for()
    assert lists.count() == 4
    assert inside.locator("#lists button.wrong").count() > 0
    assert inside.locator("#chosen img").evaluate("image => image.naturalWidth") > 0
    assert inside.locator("#lists img").first.evaluate("image => image.naturalWidth") > 0


@pytest.mark.slow
@pytest.mark.browser
def test_a_typed_prediction_and_answer_are_checked(opened: Opened, lab: Lab) -> None:
    page = opened("01")
    first = page.locator(f"{PANEL} .jp-CodeCell", has_text=re.compile(r"prediction = None")).first
    _type(page, first, 'prediction = "a"')
    notebook = run_all(page, lab)
    verdicts = [cell.outputs[0].data["text/plain"] for cell in notebook.cells if "check(" in _code(cell)]
    assert verdicts[0] in ("Right.", "Not yet: is the variance of a sample the variance put in?")
    assert verdicts[1:] == ["Not attempted yet: replace None by your answer."] * (len(verdicts) - 1)
    for answer, verdict in (("0.36", "Not yet: is the SNR distance symmetric?"), ("0.36 / 1.6**2", "Right.")):
        exercise = page.locator(f"{PANEL} .jp-CodeCell", has_text="answer_4 =").first
        _type(page, exercise, f"answer_4 = {answer}")
        page.keyboard.press("Shift+Enter")
        page.keyboard.press("Shift+Enter")
        checked = page.locator(f"{PANEL} .jp-CodeCell", has_text="answer_4,")
        checked.locator(".jp-OutputArea", has_text=verdict).wait_for(timeout=30_000)


def _code(cell: NotebookNode) -> str:
    return cell.source if cell.cell_type == "code" and "def check(" not in cell.source else ""


def _type(page: Any, cell: Any, text: str) -> None:
    cell.scroll_into_view_if_needed()
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)


def test_the_notebooks_with_sliders_are_those_that_are_tried(repository: Path) -> None:
    """So that a new one is not forgotten here."""
    (marks,) = [
        mark.args[1]
        for mark in test_every_slider_moved_by_the_keyboard_redraws_its_figure.pytestmark  # type: ignore[attr-defined]
        if mark.name == "parametrize"
    ]
    sliders = [path.stem[:2] for path in sorted((repository / "notebooks").glob("*.ipynb")) if _has_sliders(path)]
    assert marks == sliders


def _has_sliders(path: Path) -> bool:
    cells = nbformat.read(path, as_version=4).cells
    return "interactive" in parameters(path.stem) and any(re.search(r"\binteract\(", _code(cell)) for cell in cells)
