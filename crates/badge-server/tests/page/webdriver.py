"""As much of WebDriver as the page's test needs, over the standard library."""
import base64
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"]
NAMES = {"driver": ("chromedriver",), "browser": ("chromium", "chromium-browser", "google-chrome")}


def find(what):
    """The path of the driver or the browser; none where there is none."""
    return next((path for path in map(shutil.which, NAMES[what]) if path), None)


def call(method, url, body=None, timeout=60):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {json.load(error)['value']['message']}") from None


class Browser:
    """One window."""

    def __init__(self, session):
        self.session = session

    def do(self, path, body=None, method="POST"):
        return call(method, f"{self.session}/{path}", body if body is not None or method == "GET" else {})

    def open(self, url):
        self.do("url", {"url": url})

    def element(self, selector):
        return self.do("element", {"using": "css selector", "value": selector})[ELEMENT]

    def type(self, selector, text):
        self.do(f"element/{self.element(selector)}/value", {"text": text})

    def clear(self, selector):
        self.do(f"element/{self.element(selector)}/clear")

    def click(self, selector):
        self.do(f"element/{self.element(selector)}/click")

    def run(self, script, *arguments):
        """What a script of the page returns."""
        return self.do("execute/sync", {"script": script, "args": arguments})

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def until(self, script, what, patience=30.0):
        """Waits until a script of the page returns something true, and gives that."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            found = self.run(script)
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited {patience:g} s in vain: {what}")

    def media(self, **features):
        """What the page is told of the reader's wishes, such as prefers_color_scheme."""
        told = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.command("Emulation.setEmulatedMedia", {"features": told})

    def size(self, width, height):
        self.command("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})

    def command(self, name, parameters):
        return self.do("goog/cdp/execute", {"cmd": name, "params": parameters})

    def screenshot(self, path):
        """The whole page, however long."""
        shot = self.command("Page.captureScreenshot", {"captureBeyondViewport": True})
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))

    def complaints(self):
        """What the console says since the last time, of warnings and errors."""
        return [entry["message"] for entry in self.do("se/log", {"type": "browser"}) if entry["level"] in ("WARNING", "SEVERE")]

    def requested(self):
        """The addresses that were asked since the last time."""
        entries = (json.loads(entry["message"])["message"] for entry in self.do("se/log", {"type": "performance"}))
        return [entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]


@contextlib.contextmanager
def browser():
    """A new browser without a past."""
    driver = subprocess.Popen([find("driver"), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              env={**os.environ, "LANGUAGE": "en"})
    try:
        port = next(found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            options = {"args": [*FLAGS, f"--user-data-dir={profile}"], "binary": find("browser")}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options,
                      "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
            root = f"http://127.0.0.1:{port}/session"
            session = call("POST", root, {"capabilities": {"alwaysMatch": wanted}}, timeout=120)["sessionId"]
            try:
                yield Browser(f"{root}/{session}")
            finally:
                call("DELETE", f"{root}/{session}")
    finally:
        driver.terminate()
        driver.wait(20)
