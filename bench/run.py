#!/usr/bin/env python3
"""Measures Pollux side by side with what it is compared to, interleaved, and prints medians as a Markdown table.

    cargo build --release && bench/run.py [--rounds 3]

Boot: time from process start until init enters its runlevel, Pollux and qemu-system-riscv64 (TCG), same kernel, same image.
Protection: the same VM alone and with a backup on this host: redis-benchmark with 16 connections, one request or 16 at a
time on each, and a CPU-bound job.
Log: Mbit/s from primary to backup, idle and under that load.
"""
import argparse
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
POLLUX = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "pollux"
JOB = "busybox dd if=/dev/zero bs=1M count=24 2>/dev/null | busybox sha256sum"


def wait_for(what, ready, patience=180):
    begun = time.monotonic()
    while time.monotonic() - begun < patience:
        value = ready()
        if value:
            return value
        time.sleep(0.01)
    raise SystemExit(f"{what} does not come within {patience} s")


class Vm:
    """A guest with redis, alone or protected."""

    def __init__(self, image, protected):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pollux-bench"))
        self.env = dict(os.environ, POLLUX_RUN_DIR=str(self.folder), POLLUX_LOG="warn")
        self.processes = []
        net = f"switch=unix:{self.folder}/switch"
        for name in ("a.img", "b.img"):
            subprocess.run(["cp", "--sparse=always", image["disk"], self.folder / name], check=True)
        self.spawn("switch", "--listen", f"unix:{self.folder}/switch", "--forward", "tcp:127.0.0.1:0-:6379",
                   "--bound", self.folder / "bound")
        bound = self.folder / "bound"
        self.port = int(wait_for("the switch", lambda: bound.exists() and bound.read_text().split(":")[-1].strip()))
        words = ["run", "--name", "vm", "--kernel", image["kernel"], "--initrd", image["initrd"], "--append",
                 image["command_line"], "--disk", self.folder / "a.img", "--net", net,
                 "--console", f"socket={self.folder}/console"]
        if protected:
            arbiter = self.folder / "arbiter"
            subprocess.run([POLLUX, "arbiter", "init", arbiter], check=True, stdout=subprocess.DEVNULL)
            self.spawn("backup", "--listen", "127.0.0.1:0", "--instance", "backup", "--arbiter", arbiter,
                       "--disk", self.folder / "b.img", "--net", net)
            listen = wait_for("the backup", lambda: (self.status("backup") or {}).get("listen"))
            words += ["--backup", listen, "--arbiter", arbiter]
        self.begun = time.monotonic()
        self.spawn(*words)
        self.console = None

        def attach():
            try:
                self.console = socket.socket(socket.AF_UNIX)
                self.console.connect(f"{self.folder}/console")
                return True
            except OSError:
                return False

        wait_for("the console", attach)
        self.console.settimeout(0.1)

    def spawn(self, *words):
        log = open(self.folder / "log", "a")
        command = [str(POLLUX)] + [str(word) for word in words]
        self.processes.append(subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def status(self, instance):
        out = subprocess.run([POLLUX, "status", instance, "--json"], env=self.env, capture_output=True, text=True)
        return json.loads(out.stdout) if out.returncode == 0 and out.stdout.strip() else None

    def read_until(self, text, patience=180):
        seen = ""

        def ready():
            nonlocal seen
            try:
                seen += self.console.recv(65536).decode(errors="replace")
            except TimeoutError:
                pass
            return text in seen

        wait_for(text, ready, patience)
        return time.monotonic()

    def boot_s(self):
        return self.read_until("Entering runlevel") - self.begun

    def job_s(self):
        begun = time.monotonic()
        self.console.sendall(f"{JOB}; echo do''ne\n".encode())
        return self.read_until("done") - begun

    def redis(self, requests, at_a_time=1):
        out = subprocess.run(["redis-benchmark", "-p", str(self.port), "-t", "set,get", "-n", str(requests), "-c", "16",
                              "-P", str(at_a_time), "-q"], capture_output=True, text=True, check=True)
        rates = {}
        for line in out.stdout.replace("\r", "\n").splitlines():
            if "requests per second" in line:
                rates[line.split(":")[0]] = float(line.split(":")[1].split()[0])
        return rates

    def log_mbit_s(self, during):
        before, begun = self.status("vm")["log_bytes"], time.monotonic()
        during()
        time.sleep(0.15)
        return (self.status("vm")["log_bytes"] - before) * 8 / 1e6 / (time.monotonic() - begun)

    def end(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def qemu_boot_s(image):
    folder = tempfile.mkdtemp(prefix="pollux-bench")
    disk = f"{folder}/disk.img"
    subprocess.run(["cp", "--sparse=always", image["disk"], disk], check=True)
    begun = time.monotonic()
    process = subprocess.Popen(
        ["qemu-system-riscv64", "-machine", "virt", "-m", "512", "-nographic", "-kernel", image["kernel"], "-initrd",
         image["initrd"], "-append", image["command_line"], "-global", "virtio-mmio.force-legacy=false",
         "-drive", f"file={disk},format=raw,if=none,id=d", "-device", "virtio-blk-device,drive=d",
         "-netdev", "user,id=n", "-device", "virtio-net-device,netdev=n", "-device", "virtio-rng-device"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen = b""
    while b"Entering runlevel" not in seen:
        piece = process.stdout.read1(65536)
        if not piece:
            raise SystemExit("QEMU ended:\n" + seen.decode(errors="replace"))
        seen += piece
    took = time.monotonic() - begun
    process.kill()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    out = subprocess.run([POLLUX, "image", "build", "--json"], capture_output=True, text=True, check=True)
    image = json.loads(out.stdout)
    have_qemu = shutil.which("qemu-system-riscv64")
    rows = {}

    def note(name, value):
        rows.setdefault(name, []).append(value)
        print(f"  {name}: {value:.2f}", flush=True)

    for number in range(rounds):
        print(f"round {number + 1}", flush=True)
        if have_qemu:
            note("boot, qemu-system-riscv64 (s)", qemu_boot_s(image))
        for protected in (False, True):
            kind = "protected" if protected else "alone"
            vm = Vm(image, protected)
            note(f"boot, {kind} (s)", vm.boot_s())
            time.sleep(2)
            note(f"CPU-bound job, {kind} (s)", vm.job_s())
            if protected:
                note("log, idle (Mbit/s)", vm.log_mbit_s(lambda: time.sleep(5)))
                note("log, CPU-bound (Mbit/s)", vm.log_mbit_s(vm.job_s))
                note("log, redis-benchmark (Mbit/s)", vm.log_mbit_s(lambda: vm.redis(2000)))
            vm.redis(2000)
            for test, rate in vm.redis(20_000).items():
                note(f"redis {test}, {kind} (requests/s)", rate)
            for test, rate in vm.redis(100_000, 16).items():
                note(f"redis {test}, pipelined, {kind} (requests/s)", rate)
            if protected:
                note("largest execution lag (ms)", vm.status("vm")["lag_max_ns"] / 1e6)
            vm.end()
    print("\n| measure | median | runs |\n|---|---|---|")
    for name, values in rows.items():
        runs = ", ".join(f"{v:.2f}" for v in values)
        print(f"| {name} | {statistics.median(values):.2f} | {runs} |")


main()
