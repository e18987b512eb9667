"""The report in a real browser: what no reading of the file can show."""

from __future__ import annotations

import json
import shutil

import pytest

from analysis.frame import load_runs
from analysis.pareto import front_of
from analysis.report import write_report
from dnad_ray.store import write_status

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


def wait_for(browser, script):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(f"return {script}"))


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
    wait_for(browser, 'document.getElementById("picked-title").textContent.length > 8')
    smallest = front["macs"].idxmin()
    for row, digest in ((smallest, front["digest"][smallest]), (0, frame["digest"][0])):
        click_marker(browser, int(row))
        wait_for(browser, f'document.getElementById("picked-title").textContent.includes("{digest}")')
        has_drawing = browser.execute_script('return document.querySelectorAll("#picked-drawing svg").length > 0')
        assert has_drawing == (digest in set(front["digest"]))
        hidden = browser.execute_script('return document.getElementById("picked-download").hidden')
        assert hidden != has_drawing
    best = front["error"].idxmin()
    browser.execute_script(f"document.querySelector('tr[data-row=\"{best}\"] button').click()")
    assert front["digest"][best] in browser.execute_script('return document.getElementById("picked-title").textContent')
    name = browser.execute_script('return document.getElementById("picked-download").download')
    assert name == f"{front['digest'][best]}.json"


def test_report_logs_no_error_and_asks_for_nothing(browser, report):
    browser.get(report[0].as_uri())
    wait_for(browser, 'document.querySelectorAll("#chart-paths .trace").length > 0')
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    # The browser's own first page aside, and the images that it makes itself.
    assert {url for url in urls if not url.startswith(("chrome:", "data:"))} == {report[0].as_uri()}


@pytest.mark.parametrize("width", [400, 1600])
def test_report_fits_the_window(browser, report, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(report[0].as_uri())
    wait_for(browser, 'document.querySelectorAll("#chart-paths .trace").length > 0')
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
