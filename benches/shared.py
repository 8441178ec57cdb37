"""What the benches in Python have in common: reading /proc, namespaces, medians, the
lines that say on what machine it was."""

import datetime
import os
import re
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
FD_LIMIT = 20_000
TICKS = os.sysconf("SC_CLK_TCK")


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def status_kib(path, key):
    return int(re.search(rf"^{key}:\s+(\d+)", read(path), re.M)[1])


def threads_cpu_s(stats, only=""):
    """User and system time of threads by their lines of /proc/PID/task/TID/stat, of all or
    of those whose name begins so."""
    ticks = 0
    for line in stats.splitlines():
        name, fields = re.match(r"\d+ \((.*)\) (.*)", line).groups()
        if name.startswith(only):
            ticks += sum(map(int, fields.split()[11:13]))
    return ticks / TICKS


def reached(curve, count):
    """When the curve of (seconds, connections) came to count, between its points."""
    before = (0.0, 0)
    for point in curve:
        if point[1] >= count:
            (t0, n0), (t1, n1) = before, point
            return t1 if n1 == n0 else t0 + (t1 - t0) * (count - n0) / (n1 - n0)
        before = point
    raise ValueError("the curve ends too early")


def pairs_established():
    """Established connections of this namespace with both ends in it. What waits in an
    accept queue is one too; what is still being dialed is none."""
    names, values = (
        line.split() for line in read("/proc/net/snmp").splitlines() if line.startswith("Tcp:")
    )
    return int(values[names.index("CurrEstab")]) // 2


def wait_until(condition, seconds, every=0.02):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def time_is_up():
    """Whether the whole bench has had its time; its processes share the moment."""
    return time.time() > float(os.environ.get("UNTIL", "inf"))


def available_mib():
    return int(re.search(r"MemAvailable:\s+(\d+)", read("/proc/meminfo"))[1]) // 1024


def namespace(fd_limit=FD_LIMIT, alone=False):
    """The words that run a command in a network namespace of its own; alone: where /proc
    has its own processes only, so that nothing else of the machine is walked through."""
    words = ["prlimit", f"--nofile={fd_limit}:{fd_limit}", "unshare", "--net"]
    if os.geteuid():
        words.append("--map-root-user")
    return [*words, "--pid", "--fork", "--kill-child", "--mount-proc"] if alone else words


def loopback_up():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def build(name, libraries=(), folder=None):
    """A program of benches/*.c, or None where what it needs is missing."""
    program = os.path.join(folder or os.environ["WORK"], name)
    source = os.path.join(ROOT, "benches", f"{name}.c")
    words = ["gcc", "-O2", "-pthread", "-o", program, source, *(f"-l{lib}" for lib in libraries)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return program if done.returncode == 0 else None


def build_sockscope():
    # Low priority: builds disturb others of a shared machine.
    words = ["nice", "-n", "10", "cargo", "build", "--release", "--locked", "--quiet"]
    subprocess.run(words, cwd=ROOT, check=True)
    return os.path.realpath(os.path.join(target_dir(), "release", "sockscope"))


def target_dir():
    return os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))


def spread(values, form="{:,.2f}"):
    """The median, and (least–most) of several."""
    low, mid, high = min(values), statistics.median(values), max(values)
    show = form.format
    return show(mid) if len(values) == 1 else f"{show(mid)} ({show(low)}–{show(high)})"


def goal(met):
    return "pass" if met else "**fail**"


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    said = done.stdout.strip() or done.stderr.strip()
    return said.splitlines()[0].strip() if said else "unknown"


def machine():
    memory = int(re.search(r"MemTotal:\s+(\d+)", read("/proc/meminfo"))[1]) / 1048576
    model = re.search(r"model name\s*: (.*)", read("/proc/cpuinfo"))
    return (
        f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}; "
        f"{len(os.sched_getaffinity(0))} cores ({model[1] if model else 'unknown'}), "
        f"{memory:.0f} GiB, Linux {os.uname().release}"
    )


def compilers():
    return f"{first_line(['gcc', '--version'])}; {first_line(['rustc', '--version'])}"


def say(text):
    print(text, file=sys.stderr, flush=True)
