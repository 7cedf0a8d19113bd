#!/usr/bin/env python3
"""The page at `/` as people use it, in headless Chromium.

    browse.py --badge target/release/badge --model runs/quickstart [--screenshots DIR]

A sentence is typed and each exit answers until the text leaves; the slider chooses a faster policy,
and the text leaves where that says; charts fill while others ask. No request goes elsewhere, the console
stays silent, and a narrow window needs no scrolling sideways. Where there is no Chromium with its
driver the exit code is 77.
"""
import argparse
import contextlib
import json
import pathlib
import sys
import threading
import time
import urllib.request

from webdriver import browser, find

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from serving import server

END, HOME, RIGHT = "\ue010", "\ue011", "\ue014"
TEXT = "a warm and funny film that says more than it seems to"


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def ask(url, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{path}", data), timeout=30) as answer:
        return json.load(answer)


@contextlib.contextmanager
def others(url):
    """Callers who ask all the while."""
    ended = threading.Event()

    def keep_asking():
        while not ended.wait(0.02):
            ask(url, "predict", {"inputs": [["a fine film"], ["the worst of all films that I have seen"]]})

    callers = [threading.Thread(target=keep_asking) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        ended.set()
        for caller in callers:
            caller.join()


ROWS = """return [...document.querySelectorAll('#exits li:not(.never)')].map((row) => ({
    exit: Number(row.querySelector('.layer').textContent.replace(/[^0-9]/g, '')),
    left: row.classList.contains('left'),
    whole: row.querySelector('.bar').getBoundingClientRect().width,
    parts: [...row.querySelectorAll('.bar i')].map((part) => ({
        score: Number(part.dataset.score), width: part.getBoundingClientRect().width, told: part.textContent })),
}))"""


def classify(page, url, text):
    """Asks the page about a text: the rows of its exits, once all have been told."""
    page.clear("#text")
    page.type("#text", text)
    page.run("document.querySelector('#verdict').textContent = ''")
    page.click("#form button")
    page.until("return document.querySelector('#verdict b') !== null", "a verdict")
    time.sleep(0.6)  # the bars grow
    rows = page.run(ROWS)
    check(rows and rows[-1]["left"] and not any(row["left"] for row in rows[:-1]), f"the last exit is where it left: {rows}")
    check([row["exit"] for row in rows] == sorted({row["exit"] for row in rows}), f"exits in their order: {rows}")
    for row in rows:
        check(abs(sum(part["score"] for part in row["parts"]) - 1) < 1e-3, f"a distribution: {row}")
        for part in row["parts"]:
            check(abs(part["width"] / row["whole"] - part["score"]) < 0.03, f"bars as wide as labels are likely: {row}")
        check(any(part["told"] for part in row["parts"]), f"the likeliest is told as a number: {row}")
    return rows


def agree(rows, told):
    """The page shows what the server says."""
    check([row["exit"] for row in rows] == [exit["layer"] for exit in told["exits"]], f"exits as the server says: {rows}, {told}")
    for row, exit in zip(rows, told["exits"]):
        shown = max(part["score"] for part in row["parts"])
        check(abs(shown - exit["predictions"][0]["score"]) < 1e-4, f"scores as the server says: {row}, {exit}")


def try_a_text(page, url):
    rows = classify(page, url, TEXT)
    told = ask(url, "predict", {"inputs": TEXT, "trace": True})
    agree(rows, told)
    check(told["predictions"][0]["label"] in page.text("#verdict"), "the verdict names the label")
    return rows


def move_the_slider(page, url):
    points = ask(url, "v1/policy/frontier")["points"]
    check(points, "the model is calibrated")
    page.run("document.querySelector('#speed').focus()")
    seen = set()
    for _ in points:
        page.type("#speed", RIGHT)
        seen.add(page.text("#choice"))
    check(len(seen) == len(points), f"each step of the slider is a policy: {seen}")
    page.type("#speed", END)
    check(points[-1]["policy"] in page.text("#choice"), f"the end is the fastest: {page.text('#choice')}")
    fastest = ask(url, "predict", {"inputs": TEXT, "trace": True, "policy": points[-1]["policy"]})
    agree(classify(page, url, TEXT), fastest)
    rest = page.run("return document.querySelectorAll('#exits li.never').length")
    check((rest == 1) == (fastest["exit"]["layer"] < fastest["exit"]["num_layers"]), "blocks that were never computed are told")
    page.type("#speed", HOME)


def watch_the_charts(page, url):
    with others(url):
        for chart in ("rates", "latencies", "depths", "waits"):
            line = f"return [...document.querySelectorAll('#{chart} path')].some((p) => (p.getAttribute('d').match(/L/g) || []).length >= 4)"
            page.until(line, f"a line in #{chart}")
        page.until("return [...document.querySelectorAll('#histogram text')].some((t) => /%$/.test(t.textContent))", "shares in the histogram")
        for figure in ("rate", "p50", "p99", "depth"):
            page.until(f"return Number(document.querySelector('#{figure}').textContent) > 0", f"a number in #{figure}")
        check("SLO" in page.text("#latencies"), "the SLO is drawn")


def fits(page):
    width = page.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    check(width[0] <= width[1], f"no scrolling sideways: {width}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--badge", required=True)
    parser.add_argument("--model", required=True, help="calibrated")
    parser.add_argument("--screenshots", type=pathlib.Path, help="folder for pictures, light and dark")
    args = parser.parse_args()
    if not (find("driver") and find("browser")):
        print("there is no Chromium with its driver here")
        sys.exit(77)
    with server(args.badge, "--model", args.model, "--slo-ms", "400") as said, browser() as page:
        url = f"http://{said['address']}"
        page.size(1200, 1000)
        page.open("about:blank")
        page.requested(), page.complaints()  # what the browser's own first page did
        page.open(url + "/")
        page.until("return document.querySelector('#state').textContent === 'ready'", "the page says that the server is ready")
        rows = try_a_text(page, url)
        move_the_slider(page, url)
        watch_the_charts(page, url)
        classify(page, url, TEXT)
        for width, name in ((1200, "wide"), (390, "narrow")):
            page.size(width, 1000)
            for scheme in ("light", "dark"):
                page.media(prefers_color_scheme=scheme)
                time.sleep(1.2)  # charts are drawn once a second, in the scheme's colours
                fits(page)
                if args.screenshots:
                    args.screenshots.mkdir(parents=True, exist_ok=True)
                    page.screenshot(args.screenshots / f"{name}-{scheme}.png")
        page.open(url + "/docs")
        page.until("return document.body.textContent.includes('/predict')", "the routes")
        elsewhere = [asked for asked in page.requested() if not asked.startswith((url, "data:"))]
        check(not elsewhere, f"asked elsewhere: {elsewhere[:5]}")
        complaints = page.complaints()
        check(not complaints, f"the console says: {complaints}")
    print(f"the page works: {len(rows)} exits told, charts filled, nothing asked elsewhere")


if __name__ == "__main__":
    main()
