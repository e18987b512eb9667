"""The report in a real browser: what no reading of the file can show."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from analysis.frame import load_runs
from analysis.live import live_page, live_script
from analysis.objectives import best_under
from analysis.pareto import front_of
from analysis.report.page import write_report
from dnad_ray.config.run import RunConfig
from dnad_ray.run_folder.writing import write_status
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board
from dnad_ray.watch.live_page import LivePage

pytestmark = pytest.mark.slow

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture
def browser(tmp_path):
    """A browser without a window that logs its console and its requests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (BROWSER and DRIVER):
        pytest.skip("needs Chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    arguments = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
    for argument in (*arguments, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_window_size(1600, 1400)
    yield driver
    driver.quit()


def wait_for(browser, script, seconds=20):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds).until(lambda driver: driver.execute_script(f"return {script}"))


def click_marker(browser, row):
    """Click, with the mouse, where the marker of a row of the frame is drawn."""
    from selenium.webdriver import ActionChains

    x, y = browser.execute_script(
        """
        const chart = document.getElementById("chart-front");
        chart.scrollIntoView();
        for (const trace of chart.data) {
          const index = (trace.customdata || []).indexOf(arguments[0]);
          if (index < 0) continue;
          const {xaxis, yaxis} = chart._fullLayout, box = chart.getBoundingClientRect();
          return [box.x + xaxis._offset + xaxis.d2p(trace.x[index]), box.y + yaxis._offset + yaxis.d2p(trace.y[index])];
        }
        """,
        row,
    )
    actions = ActionChains(browser)
    actions.w3c_actions.pointer_action.move_to_location(round(x), round(y)).click()
    actions.perform()


@pytest.fixture
def report(make_run, tmp_path):
    folder = make_run(trials=[{"seed": seed, "shrink.rate": 0.1} for seed in (0, 1)], epochs=5)
    write_status(folder, "t1", "failed", reason="<script>alert(1)</script>")
    return write_report(folder, tmp_path / "report.html"), load_runs(folder)


def test_report_click_shows_the_network(browser, report):
    file, frame = report
    front = front_of(frame)
    browser.get(file.as_uri())
    wait_for(browser, "document.documentElement.dataset.readyAfter !== undefined")
    smallest = front["macs"].idxmin()
    for row, digest in ((smallest, front["digest"][smallest]), (0, frame["digest"][0])):
        click_marker(browser, int(row))
        wait_for(browser, f'document.getElementById("picked-title").textContent.includes("{digest}")')
        has_drawing = digest in set(front["digest"])
        wait_for(
            browser, f'(document.querySelectorAll("#picked-drawing svg").length > 0) === {str(has_drawing).lower()}'
        )
        hidden = browser.execute_script('return document.getElementById("picked-download").hidden')
        assert hidden != has_drawing
    best = front["error"].idxmin()
    browser.execute_script(f"document.querySelector('tr[data-row=\"{best}\"] button').click()")
    assert front["digest"][best] in browser.execute_script('return document.getElementById("picked-title").textContent')
    wait_for(browser, f'document.getElementById("picked-download").download === "{front["digest"][best]}.json"')
    command = browser.execute_script('return document.getElementById("picked-command").textContent')
    assert command == f"dnad-ray retrain {frame['run_path'][best]} --recipe quick --digest {front['digest'][best]}"
    said = browser.execute_script('return document.getElementById("picked-time").textContent')
    # An epoch of the made-up search takes a little less than 4 s: 30 of them on 1 / 0.8 of the images, below 150 s.
    assert said == "30 epochs, one seed: about 2 min on a machine like that of the search."


@pytest.fixture
def opened(browser, report):
    """A browser that shows the report."""
    browser.get(report[0].as_uri())
    wait_for(browser, "document.documentElement.dataset.readyAfter !== undefined")
    return browser


def type_budget(browser, name, text):
    browser.execute_script(
        """
        const input = document.querySelector(`input[data-budget="${arguments[0]}"]`);
        input.value = arguments[1];
        input.dispatchEvent(new Event("input"));
        """,
        name,
        text,
    )
    return browser.execute_script('return document.getElementById("budget-answer").textContent')


def test_report_budget_picks_the_best_that_fits(browser, report):
    file, frame = report
    browser.get(file.as_uri())
    wait_for(browser, "document.documentElement.dataset.readyAfter !== undefined")
    limit = int(frame["macs"].median())
    best = best_under(frame, {"macs": limit})
    words = type_budget(browser, "macs", f"{limit / 1e6!r}M")
    assert words.startswith(f"Best within it: proxy error {frame['error'][best]:.2%}, {frame['macs'][best]:,} MACs")
    wait_for(browser, f'document.getElementById("picked-title").textContent.includes("{frame["digest"][best]}")')
    assert type_budget(browser, "macs", "1") == "No network keeps this budget."
    assert type_budget(browser, "macs", "<b>many").startswith("\u201c<b>many\u201d is not a number:")
    assert (
        browser.execute_script("return document.querySelector('input[aria-invalid=\"true\"]').dataset.budget") == "macs"
    )
    assert type_budget(browser, "macs", "") == ""


TYPED = [
    ("error", "1.3M", "a count, but this is a share of images"),
    ("error", "5", "more than all images: write 5%."),
    ("error", "500%", "more than all images: write at most 100%."),
    ("macs", "5%", "a share, but this is a count"),
    ("macs", "1,5M", "not a number"),  # not 15M
    ("macs", "-3", "not a number"),
    ("macs", "1e999", "not a number"),
    ("params", "1_000", "not a number"),
    ("macs", "3 M", ""),
    ("macs", "1,000,000", ""),
    ("macs", "1.5m", ""),
    ("params", "2e6", ""),
    ("error", "99%", ""),
    ("error", "0.99", ""),
]


def test_report_budget_refuses_what_the_box_does_not_mean(opened):
    for name, text, refusal in TYPED:
        answer = type_budget(opened, name, text)
        assert f"is {refusal}" in answer if refusal else answer.startswith(("Best within it", "No network keeps")), text
        type_budget(opened, name, "")


def test_report_shows_one_chart_of_a_group_at_a_time(opened):
    def shown():
        return opened.execute_script(
            "return [...document.querySelectorAll('#searches .panel')].filter((p) => !p.hidden).map((p) => p.id)"
        )

    assert shown() == ["panel-paths"]
    opened.execute_script("document.querySelector('[data-view=weights]').click()")
    assert shown() == ["panel-weights"]
    opened.execute_script("document.getElementById('searches').scrollIntoView()")
    wait_for(opened, "document.querySelectorAll('#chart-weights .main-svg').length > 0")
    pressed = "return document.querySelectorAll('#searches [aria-pressed=true]').length"
    assert opened.execute_script(pressed) == 1


def test_report_contents_lead_to_every_section(opened):
    links = "return [...document.querySelectorAll('.contents a')].map((a) => a.getAttribute('href').slice(1))"
    found = opened.execute_script(links)
    assert found == ["summary", "front", "settings", "operations", "searches", "words", "configuration"]
    for name in found:
        assert opened.execute_script("return document.getElementById(arguments[0]) !== null", name)


def scroll_through(browser):
    """Show every chart of every group and scroll to it, so that it is drawn."""
    for chart in browser.execute_script("return [...document.querySelectorAll('.chart')].map((chart) => chart.id)"):
        browser.execute_script(
            "document.querySelector(`[data-view=${arguments[0]}]`)?.click()", chart.removeprefix("chart-")
        )
        browser.execute_script("document.getElementById(arguments[0]).scrollIntoView()", chart)
        wait_for(browser, f'document.querySelector("#{chart} .main-svg") !== null')


def complaints(browser):
    """What the console says; warnings of the renderer are about this machine, which has no graphics processor."""
    log = browser.get_log("browser")
    return [entry for entry in log if entry["level"] != "WARNING" or entry["source"] != "rendering"]


def test_report_draws_every_chart_logs_no_error_and_asks_for_nothing(browser, report):
    browser.get(report[0].as_uri())
    wait_for(browser, "document.documentElement.dataset.readyAfter !== undefined")
    scroll_through(browser)
    assert browser.execute_script('return document.querySelectorAll("#chart-paths .trace").length') > 0
    browser.find_element("id", "theme").click()
    wait_for(browser, "document.documentElement.dataset.theme === 'dark'")
    wait_for(browser, "document.querySelector('#chart-front .bg') !== null")
    paper = "return document.getElementById('chart-front')._fullLayout.paper_bgcolor"
    wait_for(browser, "document.getElementById('chart-front')._fullLayout.paper_bgcolor !== 'white'")
    assert browser.execute_script(paper) == "#14181d"
    wait_for(browser, "document.querySelector('#picked-drawing svg') !== null")
    # Of drawings and of the heat map too: no white paper, no black words.
    colours = browser.execute_script(
        """
        const parts = [...document.querySelectorAll("#picked-drawing *")];
        return [...new Set(parts.flatMap((part) => ["fill", "stroke"].map((name) => part.getAttribute(name))))];
        """
    )
    assert not {"white", "#000000", "#22272e", "#eef1f4"} & set(colours)
    paper = "return getComputedStyle(document.querySelector('#picked-drawing > div')).backgroundColor"
    assert browser.execute_script(paper) == "rgb(20, 24, 29)"
    scale = browser.execute_script("return document.getElementById('chart-operations').data[0].colorscale[0][1]")
    assert scale == "#1b2128"
    assert complaints(browser) == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    # The browser's own first page aside, and the images that it makes itself.
    own = ("chrome:", "chrome-untrusted:", "data:")
    assert {url for url in urls if not url.startswith(own)} == {report[0].as_uri()}


@pytest.mark.parametrize("width", [400, 1600])
def test_report_fits_the_window(browser, report, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(report[0].as_uri())
    wait_for(browser, "document.documentElement.dataset.readyAfter !== undefined")
    scroll_through(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_live_page_redraws_itself_and_shows_names_as_text(browser, tmp_path, snapshot, dense):
    evil = "<img src=x onerror=\"document.title='pwned'\"></script>"
    folder = tmp_path / "run"
    folder.mkdir()
    specs = [TrialSpec(name, {"data.root": evil}, RunConfig()) for name in ("t00", "t01")]
    board = Board([LivePage(live_page, live_script, seconds=0.0)])
    board.begin(specs, folder)
    browser.get((folder / "live.html").as_uri())
    wait_for(browser, 'document.querySelectorAll("#trials tr.waiting").length === 2')
    assert "No network has been recorded yet" in browser.execute_script("return document.body.textContent")
    browser.execute_script("window.isTheSamePage = true")

    def marks(name):
        return browser.execute_script(f'return document.querySelectorAll("#chart circle.{name}").length')

    board.trial_began("t00")
    for step, (macs, accuracy) in enumerate([(4_000_000, 0.9), (3_000_000, 0.8), (2_000_000, 0.85)], 1):
        record = snapshot(dense(), trial="t00", step=step, macs=macs, proxy_accuracy=accuracy, digest=f"{evil}{step}")
        board.report("t00", record)
    wait_for(browser, 'document.querySelectorAll("#chart circle.front").length === 2')
    assert marks("cloud") == 3
    row = browser.execute_script('return document.querySelector("#trials tr.running").textContent')
    assert row.startswith("t00root " + evil)
    assert "2M85.00%2" in row  # MACs, proxy accuracy, points on the front
    cheapest = browser.execute_script('return document.querySelector("#chart circle.front title").textContent')
    assert cheapest.splitlines()[0] == "Proxy error 15.00%, MACs 2,000,000"

    best = snapshot(dense(), trial="t01", step=1, macs=1_000_000, params=1, proxy_accuracy=0.99, digest="best")
    board.report("t01", best)
    board.end("interrupted", {})
    wait_for(browser, 'document.querySelectorAll("#chart circle.front").length === 1')
    wait_for(browser, 'document.getElementById("status").textContent.includes("interrupted")')
    assert browser.execute_script("return window.isTheSamePage") is True
    assert browser.title == "run - dnad-ray live"
    assert browser.execute_script('return document.querySelectorAll("img").length') == 0
    assert browser.get_log("browser") == []


@pytest.fixture
def jupyterlab(tmp_path):
    """A JupyterLab on a folder; its address."""
    for package in ("jupyterlab", "anywidget", "ipykernel", "nbformat"):
        pytest.importorskip(package, reason=f"needs a real JupyterLab (extra notebook); {package} is not installed")
    home, log = tmp_path / "home", tmp_path / "server.log"
    home.mkdir()
    names = ("CONFIG", "DATA", "RUNTIME")
    folders = {f"JUPYTER_{name}_DIR": home / name for name in names} | {"HOME": home, "IPYTHONDIR": home / "ipython"}
    environment = os.environ | {name: str(folder) for name, folder in folders.items()}
    options = ("--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token=t", "--expose-app-in-browser")
    call = [sys.executable, "-m", "jupyterlab", *options]
    with log.open("w") as stream:
        server = subprocess.Popen(call, cwd=tmp_path, env=environment, stdout=stream, stderr=stream)
    try:
        end = time.monotonic() + 120
        while not (found := re.search(r"http://(localhost|127\.0\.0\.1):\d+/", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield found[0]
    finally:
        server.terminate()
        server.wait(60)


SLOW = """
const make = URL.createObjectURL;
const late = "await new Promise((done) => setTimeout(done, 3000));";
URL.createObjectURL = (blob) => make(
  blob.type === "text/javascript" && blob.size > 1e6 ? new Blob([late, blob], { type: blob.type }) : blob);
"""
"""As on a busy machine: a long script is there after three seconds, and anywidget waits for two."""


def test_explorer_is_drawn_at_first_sight_in_jupyterlab(browser, jupyterlab, make_run, tmp_path, repository):
    import nbformat

    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SLOW})
    folder = make_run(trials=[{"seed": seed, "shrink.rate": 0.1} for seed in (0, 1)], epochs=5)
    front = front_of(load_runs(folder))
    lines = [f"import sys; sys.path.insert(0, {str(repository)!r})", "from analysis import load_runs"]
    lines += ["from analysis.explorer import FrontExplorer", f"FrontExplorer(load_runs({str(folder)!r})).widget"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(lines))])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(book, tmp_path / "first.ipynb")
    browser.get(f"{jupyterlab}lab/tree/first.ipynb?token=t")
    wait_for(browser, "document.querySelector('.jp-Notebook .jp-Cell') !== null", 120)
    # On a busy machine the launcher may come in front of the notebook.
    mine = "[...window.jupyterapp.shell.widgets('main')].find((widget) => widget.sessionContext)"
    wait_for(browser, f"{mine}?.sessionContext.session?.kernel?.status === 'idle'", 120)
    browser.execute_script(f"window.jupyterapp.shell.activateById({mine}.id)")
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    wait_for(browser, "document.querySelectorAll('.js-plotly-plot .point').length > 10", 120)
    plot = "document.querySelector('.js-plotly-plot')"
    rings = f"{plot}.data.slice(-2).map((trace) => trace.x[0])"
    assert browser.execute_script(f"return {rings}") == [front["macs"].iloc[0], front["macs"].iloc[-1]]
    assert browser.execute_script(f"return {plot}._fullLayout.width === {plot}.clientWidth")
    # A click goes to the kernel, and the ring comes back.
    place = browser.execute_script(
        f"""
        const plot = {plot}, curve = plot.data.findIndex((trace) => trace.customdata);
        const [x, y] = [plot.data[curve].x[0], plot.data[curve].y[0]];
        plot.emit("plotly_click", {{ points: [{{ curveNumber: curve, pointNumber: 0, x, y }}], event: {{}} }});
        return x;
        """
    )
    wait_for(browser, f"{rings}[0] === {place}", 60)
