"""Servers under measurement: how they are started, asked and loaded. What all steps here share.

The server has the processors of SERVER_CPUS and the generator those of CLIENT_CPUS (lists of
`taskset`, 0 and 1 where nothing is said), so that neither takes time from the other.
"""
import contextlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
BADGE = os.environ.get("BADGE", str(HERE / "../../target/release/badge"))
SERVER_CPUS = os.environ.get("SERVER_CPUS", "0")
CLIENT_CPUS = os.environ.get("CLIENT_CPUS", "1")
# A task's name, or the path of its file.
TASK = os.environ.get("TASK", "mrpc")
# More than the texts that a server lets in: what is refused must be seen to be refused.
CONNECTIONS = 1024


def threads():
    """How many processors SERVER_CPUS names."""
    count = 0
    for part in SERVER_CPUS.split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


def badge_serve(model, precision, port, *flags):
    """The command of our server."""
    return [BADGE, "serve", "--model", f"served={model}", "--precision", precision, "--threads", str(threads()),
            "--hostname", "127.0.0.1", "--port", str(port), "--shutdown-delay-s", "0", *map(str, flags)]


class Running:
    """A server that is ready."""

    def __init__(self, process, url, ready_seconds):
        self.process, self.url, self.ready_seconds = process, url, ready_seconds

    def get(self, path):
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=10) as answer:
            return json.load(answer)

    def resident_bytes(self):
        pages = int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def running(command, port, log, patience=120):
    """Starts a server on SERVER_CPUS, waits until `/health` says 200, and ends it."""
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "LOG_LEVEL": "warn"}
    start = time.perf_counter()
    with open(log, "ab") as file:
        process = subprocess.Popen(["taskset", "-c", SERVER_CPUS, *map(str, command)], stdout=file, stderr=file, env=environment)
        try:
            while not is_ready(url):
                if process.poll() is not None:
                    raise SystemExit(f"{command[0]} ended with {process.returncode}; its log is {log}")
                if time.perf_counter() - start > patience:
                    raise SystemExit(f"{command[0]} is not ready after {patience} s; its log is {log}")
                time.sleep(0.002)
            yield Running(process, url, time.perf_counter() - start)
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def is_ready(url):
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def replay(url, trace, data, *flags, slo_ms=1000.0, connections=CONNECTIONS, seed=1, out=None):
    """One run of `badge replay` over the test rows of TASK on CLIENT_CPUS: its whole report."""
    command = ["taskset", "-c", CLIENT_CPUS, BADGE, "replay", "--url", url, "--task", TASK, "--data", data,
               "--split", "test", "--trace", trace, "--slo-ms", slo_ms, "--connections", connections, "--seed", seed,
               "--json", "--quiet", *flags, *(["--out", out] if out else [])]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"badge replay ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def unloaded_p50(url, data, seconds=10.0, rate=10.0):
    """Median latency of requests that come one by one, in milliseconds."""
    report = replay(url, f"poisson:rate={rate},seconds={seconds},cv2=0", data, connections=8)
    return report["summary"]["latency_ms"]["p50"]


def capacity(url, data, p50_ms, seconds=10.0):
    """Answers a second while as many connections as a batch has places always wait for one."""
    count = max(100, int(seconds * 3e3 / p50_ms))
    # All are due at once: from then on each connection sends as soon as it has its answer.
    report = replay(url, f"poisson:rate={count * 10},seconds=0.1,cv2=0", data, connections=64)
    summary = report["summary"]
    assert summary["served"] == summary["offered"], f"a server that is not overloaded refused: {summary}"
    return summary["throughput"]


def columns(timeline):
    """A run second by second, as one list for each quantity."""
    windows = timeline["windows"]
    return {"window_seconds": timeline["window_seconds"], **{key: [w[key] for w in windows] for key in windows[0]}}


def outcome(report):
    """What is kept of a run."""
    return {"trace": report["trace"], "summary": report["summary"], "timeline": columns(report["timeline"])}


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def write_record(path, name, started, configuration, results):
    """Writes a record: what was measured, how, when, where, with which commit."""
    commit = subprocess.run(["git", "-C", str(HERE), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    record = {
        "experiment": f"serving {name}", "started": started, "finished": now(), "commit": commit,
        "machine": {"cpu": cpu_name(), "logical_cpus": os.cpu_count(), "system": platform.release(),
                    "server_cpus": SERVER_CPUS, "client_cpus": CLIENT_CPUS},
        "configuration": {"task": pathlib.Path(TASK).stem, **configuration}, "results": results,
    }
    path = pathlib.Path(path)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def spread(values):
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values), "values": values}
