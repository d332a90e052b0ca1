"""JupyterLab as ``make lab`` starts it: who is let in, and what a reader does in a real browser."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import symtable
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
import requests
from browser_cases import Visit
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from process_cases import until
from traitlets.config import Config

from snrlib.notebooks.find import find_notebook, notebooks
from snrlib.notebooks.lab import SignIn
from snrlib.teach.copies import student_copy

slow, in_browser = pytest.mark.slow, pytest.mark.browser
REPOSITORY = Path(__file__).resolve().parents[2]
NO_TOKENS = (None, "", "0" * 48)
UNSAFE = """
for name, value in {
    "ip": "0.0.0.0", "token": "", "password": "", "allow_remote_access": True, "allow_origin": "*",
    "allow_origin_pat": ".*", "disable_check_xsrf": True, "allow_credentials": True, "authenticate_prometheus": False,
    "tornado_settings": {"headers": {"Access-Control-Allow-Origin": "*"}},
}.items():
    c.ServerApp[name] = value
c.KernelManager.ip = c.AsyncIOLoopKernelManager.ip = c.ServerKernelManager.ip = "0.0.0.0"
c.KernelManager.transport_encryption = c.ServerKernelManager.transport_encryption = "disabled"
c.IdentityProvider.token = c.PasswordIdentityProvider.token = ""
"""


@dataclass
class Lab:
    """A running JupyterLab: where it is, how to sign in, and the folder with its log and its copy of the study."""

    port: int
    token: str
    folder: Path

    def ask(self, path: str, method: str = "GET", token: str | None = None, **headers: str) -> requests.Response:
        """One request, without following redirects."""
        if token is not None:
            headers["Authorization"] = f"token {token}"
        with requests.Session() as session:
            session.trust_env = False  # a proxy would not reach this machine
            address = f"http://127.0.0.1:{self.port}{path}"
            return session.request(method, address, headers=headers, allow_redirects=False, timeout=30)


def lab_command() -> list[str]:
    """What `make lab` executes, with the programs of this Python."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    said = subprocess.check_output(["make", "-n", "lab"], cwd=REPOSITORY, env=clean, text=True)
    program, *arguments = shlex.split(said.strip().splitlines()[-1])
    return [str(Path(sys.executable).with_name(Path(program).name)), *arguments]


def _reached(address: str, port: int, family: socket.AddressFamily = socket.AF_INET) -> bool:
    with socket.socket(family) as one, suppress(OSError):  # refused, or no such address
        one.settimeout(5)
        one.connect((address, port))
        return True
    return False


@contextmanager
def serve(folder: Path, settings: str = "", **variables: str) -> Iterator[Lab]:
    """JupyterLab by the command of `make lab`; ``settings`` are the user's own ``jupyter_server_config.py``."""
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "share", "JUPYTER_RUNTIME_DIR": "runtime"}
    places |= {"IPYTHONDIR": "ipython", "SNR_RUNS": "runs", "SNR_CACHE": "cache"}
    env = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")} | variables
    env |= {name: str(folder / place) for name, place in places.items()}
    shutil.copytree(REPOSITORY / "notebooks", folder / "study" / "notebooks")
    (folder / "config").mkdir()
    (folder / "config" / "jupyter_server_config.py").write_text(settings)
    command = [*lab_command(), "--no-browser", "--ServerApp.port=0", "--LabApp.expose_app_in_browser=True"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # which `make lab` does not say: then Jupyter refuses
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=folder / "study", env=env, stdout=out, stderr=out)
    address = r"http://127\.0\.0\.1:(\d+)/lab/\S+\?token=(\w+)\n"
    try:
        found = until(lambda: re.search(address, log.read_text()), seconds=90)
        until(lambda: _reached("127.0.0.1", int(found[1])), seconds=30)  # it is written before it answers
        yield Lab(int(found[1]), found[2], folder)
    finally:
        print(log.read_text())
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """As a newcomer starts it."""
    with serve(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="module", params=["newcomer", "unsafe settings"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """As a newcomer starts it, or someone whose own settings turn every protection off."""
    if request.param == "newcomer":
        yield request.getfixturevalue("lab")
        return
    folder = tmp_path_factory.mktemp("unsafe")
    (folder / "token").touch()
    with serve(folder, UNSAFE, JUPYTER_TOKEN="", JUPYTER_TOKEN_FILE=str(folder / "token")) as running:
        yield running


@slow
def test_the_server_listens_on_loopback_alone(server: Lab) -> None:
    assert _reached("127.0.0.1", server.port)
    assert not _anyone_reaches(server.port)


def _anyone_reaches(port: int) -> bool:
    """Whether a port of this machine answers by another address than 127.0.0.1."""
    if _reached("127.0.0.2", port):
        return True
    for family, anyone in ((socket.AF_INET, "192.0.2.77"), (socket.AF_INET6, "2001:db8::77")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
            probe.connect((anyone, 9))  # asks for the route, which tells this machine's own address, and sends nothing
            if _reached(probe.getsockname()[0], port, family):
                return True
    return False


@slow
def test_nobody_is_let_in_without_the_token(server: Lab) -> None:
    for token in NO_TOKENS:
        for path in ("contents", "kernels", "sessions", "terminals", "kernelspecs"):
            for method in ("GET", "POST") if path != "kernelspecs" else ("GET",):
                assert server.ask(f"/api/{path}", method, token).status_code == 403, path
        for path in ("lab", "lab/tree/notebooks/01_signal_and_noise.ipynb", "files/notebooks/conftest.py"):
            answer = server.ask(f"/{path}?token={token or ''}", token=token)
            assert (answer.status_code, answer.headers.get("Location", "")[:7]) == (302, "/login?"), path


@slow
def test_the_token_opens_files_kernels_and_terminals(server: Lab) -> None:
    assert len(server.token) >= 40
    assert server.ask("/api/contents/notebooks", token=server.token).status_code == 200
    assert server.ask(f"/lab?token={server.token}").status_code == 200
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    kernel = server.ask("/api/kernels", "POST", server.token).json()["id"]
    terminal = server.ask("/api/terminals", "POST", server.token).json()["name"]
    for place in (f"/api/kernels/{kernel}/channels", f"/terminals/websocket/{terminal}"):
        for token in NO_TOKENS:
            assert server.ask(place, token=token, **upgrade).status_code == 403, place
        assert server.ask(place, token=server.token, **upgrade).status_code == 101, "the token is what was missing"
    connection = server.folder / "runtime" / f"kernel-{kernel}.json"
    about = json.loads(connection.read_text())
    assert about["curve_publickey"], "what passes to a kernel is encrypted"
    assert about["ip"] == "127.0.0.1"
    assert not _anyone_reaches(about["shell_port"]), "nor does a kernel listen to others"
    assert connection.stat().st_mode & 0o077 == 0, "and its key is the reader's alone"


@slow
def test_another_site_in_the_readers_browser_reaches_nothing(server: Lab) -> None:
    cookies = server.ask(f"/lab?token={server.token}").cookies
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    assert server.ask("/api/contents", Cookie=cookie).status_code == 200
    elsewhere = {"Cookie": cookie, "Origin": "http://elsewhere.example"}
    assert server.ask("/api/kernels", "POST", **elsewhere).status_code in (403, 404), "a request across sites"
    assert server.ask("/api/kernels", "POST", Cookie=cookie).status_code == 403, "a form without the page's own mark"
    assert server.ask("/api/contents", **elsewhere).headers.get("Access-Control-Allow-Origin") is None
    for path in ("/api/contents", "/login", "/metrics"):
        headers = server.ask(path, Origin="http://elsewhere.example").headers
        assert not [name for name in headers if name.lower().startswith("access-control-allow")], path
    assert server.ask("/metrics").status_code in (302, 403)
    rebound = server.ask("/api/contents", token=server.token, Host=f"elsewhere.example:{server.port}")
    assert rebound.status_code == 403, "a name that was made to point here"


@slow
def test_jupyterlab_asks_no_other_machine_for_news(lab: Lab) -> None:
    page = lab.ask("/lab", token=lab.token).text
    config = json.loads(re.findall(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.DOTALL)[0])
    assert config["news"] == {"disabled": True}
    assert config["extensionManager"]["name"] == "read-only"
    assert "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate" in lab_command()


@pytest.mark.parametrize("where", ["IdentityProvider", "PasswordIdentityProvider"])
def test_empty_tokens_become_random_without_a_password(where: str) -> None:
    first, second = (SignIn(config=Config({where: {"token": ""}})) for _ in range(2))
    assert len(first.token) == 48
    assert first.token != second.token
    assert first.token_generated, "so that Jupyter shows it"
    first.token = ""
    assert first.auth_enabled
    assert SignIn(config=Config({where: {"token": "chosen"}})).token == "chosen"
    by_password = SignIn(config=Config({where: {"token": ""}, "PasswordIdentityProvider": {"hashed_password": "x"}}))
    assert (by_password.token, by_password.auth_enabled) == ("", True)


def test_no_file_undoes_the_protection_of_jupyter() -> None:
    command = lab_command()
    protection = {"--ip=127.0.0.1", "--ServerApp.allow_remote_access=False", "--ServerApp.disable_check_xsrf=False"}
    assert protection | {"--ServerApp.identity_provider_class=snrlib.notebooks.lab.SignIn"} <= set(command)
    assert not [said for said in command if "token" in said or "root" in said], "others may read a command line"
    undone = re.compile(
        r"""token["']?\s*=\s*(''|""|["']?\s*$) | (App|Provider)\.(token|password|hashed_password)\b | \bJUPYTER_TOKEN\b
        | (xsrf|remote_access)=True | allow_origin(_pat)?["']?\s*[=:]\s*["']?[*.] | --no-auth
        | (--ip|App\.ip)["']?\s*=\s*(?!127\.0\.0\.1) | allow[-_](root|unauthenticated_access) | 0\.0\.0\.0""",
        re.VERBOSE | re.MULTILINE,
    )
    assert undone.search("jupyter lab --IdentityProvider.token=")
    files = [path for place in ("[!.]*", ".ci/*", "snrlib/**/*.py", "benchmarks/*") for path in REPOSITORY.glob(place)]
    for path in filter(Path.is_file, files):
        text = path.read_text(encoding="utf-8").replace('``c.ServerApp.token = ""``', "")  # which `SignIn` prevents
        assert not undone.search(text), path


# --- In the browser -------------------------------------------------------------------------------------------------

PANEL = ".jp-NotebookPanel:visible"
SAID = """() => ({
  dialogs: [...document.querySelectorAll('.jp-Dialog')].map(node => node.innerText),
  prompts: [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(node => node.textContent).join(' '),
  kernel: window.panel?.sessionContext.kernelDisplayStatus,
  outcome: window.outcome,
})"""
REDRAWN = "([widget, before]) => { const now = widget.querySelector('img'); return now && now.src !== before; }"


@dataclass
class Desk:
    """JupyterLab in a browser, with one notebook after another."""

    page: Any
    lab: Lab

    def do(self, work: str, seconds: float) -> None:
        """Await JavaScript. What goes wrong, or asks a question, or takes too long, fails with all that is said."""
        from playwright.sync_api import TimeoutError as TooLong

        begin = """work => {
          window.outcome = null;
          eval(`(async () => { ${work} })()`).then(() => { outcome = 'done'; }, error => { outcome = `${error}`; });
        }"""
        self.page.evaluate(begin, work)
        with suppress(TooLong):
            self.page.wait_for_function("outcome || document.querySelector('.jp-Dialog')", timeout=1000 * seconds)
        said = self.page.evaluate(SAID)
        assert (said["outcome"], said["dialogs"]) == ("done", []), f"{said}\n{(self.lab.folder / 'log').read_text()}"

    def open(self, name: str, cells: list[NotebookNode]) -> None:
        """These cells of a notebook, without outputs and with a kernel of their own that is ready to run."""
        notebook = nbformat.read(find_notebook(name), as_version=4)
        notebook.cells = cells
        for cell in cells:
            if cell.cell_type == "code":
                cell.update(outputs=[], execution_count=None)
        path = f"notebooks/{find_notebook(name).name}"
        nbformat.write(notebook, self.lab.folder / "study" / path)
        # JupyterLab shows an idle kernel before there is one, and "Run All Cells" then runs none.
        ready = f"""
          await window.panel?.sessionContext.shutdown();
          window.panel?.dispose();
          window.panel = await jupyterapp.commands.execute('docmanager:open', {{ path: '{path}' }});
          await panel.context.ready;
          await panel.sessionContext.ready;
          while (panel.sessionContext.session?.kernel?.connectionStatus !== 'connected') {{
            await new Promise(again => setTimeout(again, 50));
          }}
          await panel.sessionContext.session.kernel.info;
        """
        self.do(ready, 90)

    def run_all(self) -> NotebookNode:
        """Run every cell: none fails, and its figures are drawn; returns the notebook as JupyterLab saved it."""
        self.do("await jupyterapp.commands.execute('notebook:run-all-cells'); await panel.context.save();", 120)
        notebook = nbformat.read(self.lab.folder / "study" / self.page.evaluate("panel.context.path"), as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), self.page.evaluate(SAID)
        outputs = [output for cell in code for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
        drawn = self.page.locator(f"{PANEL} .jp-OutputArea-output.jp-RenderedImage:not(.widget-output *) img")
        widths = drawn.evaluate_all("all => Promise.all(all.map(one => one.decode().then(() => one.clientWidth)))")
        assert len(widths) == sum("image/png" in output.get("data", {}) for output in outputs)
        assert min(widths, default=1000) > 100
        return notebook

    def type(self, cell: Any, text: str) -> None:
        """Into a cell, in place of what is there."""
        cell.scroll_into_view_if_needed()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)


@pytest.fixture
def desk(lab: Lab, visit: Visit) -> Desk:
    """No error of JupyterLab's own on the console is excused: it writes none."""
    page = visit(f"http://127.0.0.1:{lab.port}/lab?token={lab.token}&reset")
    page.wait_for_function("window.jupyterapp", timeout=60_000)
    opened = Desk(page, lab)
    opened.do("await jupyterapp.restored;", 60)
    return opened


def _names(source: str) -> tuple[set[str], set[str]]:
    """Which a cell binds, and which it uses."""
    tables = [symtable.symtable(source, "cell", "exec")]
    for table in tables:
        tables += table.get_children()
    bound = {name.get_name() for name in tables[0].get_symbols() if name.is_assigned() or name.is_imported()}
    return bound, {name.get_name() for table in tables for name in table.get_symbols() if name.is_referenced()}


def _interactive(path: Path, draws: str) -> list[NotebookNode]:
    """The cells that draw something interactive, and those that they need: nbval runs the rest."""
    kept, wanted = list[NotebookNode](), set[str]()
    for cell in reversed([cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]):
        bound, used = _names(cell.source)
        if re.search(rf"^if interactive:.*{draws}", cell.source, re.MULTILINE | re.DOTALL) or bound & wanted:
            kept.insert(0, cell)
            wanted = (wanted | used) - bound
        cell.source = cell.source.replace("interactive: bool = False", "interactive: bool = True")
    return kept


@slow
@in_browser
def test_no_reader_is_asked_about_news(desk: Desk) -> None:
    plugin = "@jupyterlab/apputils-extension:notification"
    asks = f"(await jupyterapp.serviceManager.settings.fetch('{plugin}')).schema.properties.fetchNews.default"
    assert desk.page.evaluate(f"async () => {asks}") == "false", "the usual 'none' asks"
    assert desk.page.locator(".Toastify__toast").count() == 0


@slow
@in_browser
def test_every_slider_redraws_its_figure(desk: Desk) -> None:
    with_sliders = {path: cells for path in notebooks() if (cells := _interactive(path, r"\binteract\("))}
    assert len(with_sliders) == 6
    for path, cells in with_sliders.items():
        desk.open(path.stem, cells)
        desk.run_all()
        widgets = desk.page.locator(f"{PANEL} .widget-interact")
        assert widgets.count() == sum("interact(" in cell.source for cell in cells) > 0
        for widget in widgets.all():
            moves = [(choice, "End") for choice in widget.get_by_role("combobox").all()]  # with which no slider is idle
            moves += [(slider, "ArrowRight") for slider in widget.get_by_role("slider").all()]
            for control, key in moves:
                before = widget.locator("img").get_attribute("src")
                control.press(key)
                desk.page.wait_for_function(REDRAWN, arg=[widget.element_handle(), before], timeout=30_000)
        assert not desk.page.locator(f"{PANEL} [data-mime-type='application/vnd.jupyter.error']").count()


@slow
@in_browser
def test_the_inspector_links_its_maps_in_jupyterlab(desk: Desk) -> None:
    # How good the maps are is not asked here.
    fast = (
        "from functools import partial\nfrom snrlib.explore import maps\nmaps.TSNE = partial(maps.TSNE, max_iter=250)"
    )
    desk.open("10", [new_code_cell(fast), *_interactive(find_notebook("10"), "inspect")])
    desk.run_all()
    frame = desk.page.locator(f"{PANEL} iframe[title^='Inspector']")
    frame.scroll_into_view_if_needed()
    inside = frame.content_frame
    assert inside.locator("#maps section").count() == 4
    inside.locator("#error").press("Enter")
    lists = inside.locator("#lists ul")
    lists.nth(3).wait_for()
    assert lists.count() == 4
    assert inside.locator("#lists button.wrong").count() > 0
    for picture in (inside.locator("#chosen img"), inside.locator("#lists img").first):
        assert picture.evaluate("image => image.naturalWidth") > 0


@slow
@in_browser
def test_a_typed_prediction_and_answer_are_checked(desk: Desk) -> None:
    desk.open("01", student_copy(nbformat.read(find_notebook("01"), as_version=4), "01").cells)
    cells = desk.page.locator(f"{PANEL} .jp-CodeCell")
    desk.type(cells.filter(has_text="prediction = None").first, 'prediction = "a"')
    notebook = desk.run_all()
    assert desk.page.locator(f"{PANEL} .widget-interact").count() == 0, "no widgets without interactive"
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    told = [output.data["text/plain"] for output in outputs if "text/plain" in output.get("data", {})]
    verdicts = [text for text in told if re.match(r"Right\.|Not yet|Not attempted yet", text)]
    assert len(verdicts) > 4
    attempted = [text for text in verdicts if not text.startswith("Not attempted yet: ")]
    assert attempted in (["Right."], ["Not yet: is the variance of a sample the variance put in?"])
    checked = desk.page.locator(f"{PANEL} .jp-CodeCell:has-text('answer_3 =') + .jp-CodeCell")
    for answer, verdict in (("0.36", "Not yet: is the SNR distance symmetric?"), ("0.36 / 1.6**2", "Right.")):
        desk.type(cells.filter(has_text="answer_3 =").first, f"answer_3 = {answer}")
        for _ in range(2):
            desk.page.keyboard.press("Shift+Enter")
        checked.locator(".jp-OutputArea", has_text=verdict).wait_for(timeout=30_000)
