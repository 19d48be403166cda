"""Starts each server in turn, drives it, and prints a table with ratios. Run by ./run."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

work = Path(sys.argv[1])
root = Path(__file__).resolve().parents[2]
load = root / "target/release/examples/load"
ROUNDS = 3

SERVERS = {
    "now-serving": (7961, [root / "target/release/examples/conformance", "--port", "7961"]),
    "bare actix-web": (7962, [work / "release/bare", "7962"]),
    "tower + axum": (7963, [work / "release/towers", "7963"]),
    "Gradio 6.31": (7964, [work / "venv/bin/python", root / "benches/versus/reference.py", "7964"]),
}


def start(name):
    port, command = SERVERS[name]
    environment = {**os.environ, "RUST_LOG": "error"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=5).read()
            return process
        except urllib.error.HTTPError:
            return process
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{name} does not start")


def drive(name, process, *options):
    port, _ = SERVERS[name]
    command = [load, "--host", f"127.0.0.1:{port}", "--pid", str(process.pid), "--json", *map(str, options)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900)
    return json.loads(ran.stdout)


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def measure(name, *options, rounds=ROUNDS):
    """The median round by events a second, each with a fresh server."""
    reports = []
    for _ in range(rounds):
        process = start(name)
        try:
            reports.append(drive(name, process, *options))
        finally:
            stop(process)
    reports.sort(key=lambda report: report["events_per_second"])
    return reports[len(reports) // 2]


def table(title, rows):
    print(f"\n{title}\n")
    ours = rows["now-serving"]
    print("| server | events/s | ours | p50 ms | p99 ms | server CPU s | peak MiB | estimations | errors |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        ratio = ours["events_per_second"] / row["events_per_second"]
        print(
            f"| {name} | {row['events_per_second']:,.0f} | {ratio:.2f}x | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} "
            f"| {row['server_cpu']:.2f} | {row['server_peak_mib']:.0f} | {row['estimations']:,} | {row['errors']} |"
        )


def main():
    # Gradio gets fewer events, or this would take an hour; it is warm after the first hundred.
    looping = {name: ("--clients", 500, "--events", 4 if "Gradio" in name else 40) for name in SERVERS}
    rows = {
        name: measure(name, *options, rounds=1 if "Gradio" in name else ROUNDS)
        for name, options in looping.items()
    }
    table("500 clients: join with an event, read its stream, again", rows)
    waiting = ("--waiting", "--clients", 1000, "--fn", 1)
    rows = {
        name: measure(name, *waiting, rounds=1 if "Gradio" in name else ROUNDS)
        for name in SERVERS
        if name != "bare actix-web"
    }
    table("1,000 clients wait together for one slot, jobs of 1 ms", rows)


main()
