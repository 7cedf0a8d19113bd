"""A server of one's own, for the scripts beside this file."""
import contextlib
import json
import subprocess
import threading


@contextlib.contextmanager
def server(badge, *flags):
    """What `badge serve` says when it is ready: its `address`, and `grpc` where it serves that too."""
    command = [badge, "serve", "--hostname", "127.0.0.1", "--port", "0", "--shutdown-delay-s", "0", "--json-output", *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        log = []
        for line in process.stderr:
            log.append(line)
            said = json.loads(line) if line.startswith("{") else {}
            if said.get("message") == "ready":
                break
        else:
            raise SystemExit("badge serve ended: " + "".join(log))
        # Nobody reads the rest, and a full pipe would stop the server.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield said
    finally:
        process.terminate()
        code = process.wait(40)
    if code != 0:
        raise SystemExit(f"badge serve ended with {code} when it was told to end")
