"""The arithmetic of benches/floor: what a run gave, and the table of all runs.

watch COUNT            the established connections of this namespace, as time goes by
collect CASE TOOL N D  one line of JSON from what a run left in folder D
help PROGRAM           how long `PROGRAM --help` takes
report FD_LIMIT        the lines of JSON on stdin as Markdown
"""

import glob
import json
import os
import re
import statistics
import subprocess
import sys
import time

from shared import (
    compilers, goal, machine, pairs_established, reached, read, spread, status_kib,
    threads_cpu_s,
)


def watch(count):
    """Prints `seconds connections`, from the last look without any to the first with all."""
    began, pairs, deadline = 0.0, 0, time.monotonic() + 300
    while pairs < count and time.monotonic() < deadline:
        now, pairs = time.monotonic(), pairs_established()
        if not pairs:
            began = now
        print(f"{now - began:.3f} {pairs}", flush=True)
        time.sleep(0.02)


def tenths(curve, count):
    """Seconds for the first and for the last tenth of count."""
    first = reached(curve, count // 10)
    return first, reached(curve, count) - reached(curve, count - count // 10)


def collect(case, tool, count, folder):
    os.chdir(folder)
    run = {"case": case, "tool": tool, "count": count}
    run["server_kib"] = status_kib("server.status", "VmHWM")
    run["server_base_kib"] = status_kib("server.before.status", "VmHWM")
    run["server_cpu_us"] = threads_cpu_s(read("server.tasks")) / count * 1e6
    run["cpu_us"] = threads_cpu_s(read("client.tasks")) / count * 1e6
    said, curve = read("client.out"), []
    if tool == "sockscope":
        probe = json.loads(said)["result"]
        verdict = json.loads(said)["verdict"]["code"]
        held, level = probe["practical_max"], probe["level"]
        if (held, level, verdict) != (count, "accepted", "requested"):
            sys.exit(f"not all was held: {held} {level}, {verdict}")
        run["rate"] = probe["rate_per_s"]
        run["client_kib"] = probe["memory"]["client_rss_bytes"] / 1024
        run["dial_cpu_us"] = threads_cpu_s(read("client.tasks"), "dialer-") / count * 1e6
        lines = read(glob.glob("runs/*/timeline.ndjson")[0]).splitlines()
        samples = [s for s in map(json.loads, lines) if s["phase"] in ("ramp", "stalled")]
        curve = [(s["t_s"], s["established"]) for s in samples]
        # The last connection comes between two samples.
        curve.append((count / run["rate"], count))
    else:
        held, rate, rss = re.search(r"held (\d+) .* (\d+)/s, rss (\d+)", said).groups()
        if int(held) != count:
            sys.exit(f"not all was held: {held}")
        run["rate"], run["client_kib"] = float(rate), int(rss)
        run["dial_cpu_us"] = run["cpu_us"]
        if os.path.exists("curve"):
            curve = [tuple(map(float, line.split())) for line in open("curve")]
    if curve and count >= 60_000 and curve[-1][1] >= count:
        run["first_s"], run["last_s"] = tenths(curve, count)
    print(json.dumps(run))


def time_help(program):
    took = []
    for _ in range(300):
        began = time.perf_counter()
        subprocess.run([program, "--help"], stdout=subprocess.DEVNULL, check=True)
        took.append((time.perf_counter() - began) * 1e3)
    print(json.dumps({"case": "help", "tool": "sockscope", "ms": took}))


class Runs:
    def __init__(self, lines):
        self.all = [json.loads(line) for line in lines]
        self.failed = sum(1 for run in self.all if run.get("failed"))

    def of(self, case, tool, key):
        return [
            run[key]
            for run in self.all
            if (run["case"], run["tool"]) == (case, tool) and key in run
        ]


def report(fd_limit):
    runs = Runs(sys.stdin)
    names = {"18k": 18_000, "100k": 100_000, "1M": 1_000_000}
    cases = [name for name in names if runs.of(name, "sockscope", "rate")]
    median = lambda *key: statistics.median(runs.of(*key))
    ratio = lambda case, key: median(case, "sockscope", key) / median(case, "floor", key)
    base = median("base", "sockscope", "client_kib")
    per = lambda kib, case: (kib - base) * 1024 / names[case]

    goals = []
    for case, least in (("18k", 0.9), ("100k", 0.9), ("1M", 0.85)):
        if case in cases:
            r = ratio(case, "rate")
            goals.append((f"rate at {names[case]:,}, of the floor's", f"≥ {least}",
                          f"{r:.2f}", r >= least))
    if "1M" in cases:
        bytes_each = per(max(runs.of("1M", "sockscope", "client_kib")), "1M")
        goals.append(("client memory a connection over its base, at 1,000,000",
                      "≤ 100 bytes", f"{bytes_each:.0f} bytes", bytes_each <= 100))
        cost = statistics.median(tenth_costs(runs, "1M", "sockscope"))
        goals.append(("cost of the last tenth of 1,000,000, of the first's", "≤ 1.5",
                      f"{cost:.2f}", cost <= 1.5))
    steady = [1 / c for c in tenth_costs(runs, "one-source", "sockscope")]
    if steady:
        mid = statistics.median(steady)
        goals.append(("60,000 from one address to one listener: rate of the last tenth, "
                      "of the first's", "≥ 0.8", spread(steady, "{:.2f}"), mid >= 0.8))
    help_ms = runs.of("help", "sockscope", "ms")[0]
    mid = statistics.median(help_ms)
    goals.append(("`sockscope --help`, median of 300", "< 5 ms", f"{mid:.1f} ms", mid < 5))

    print("# sockscope against the floor\n")
    print("The floor is `benches/hold.c`, the least C code that holds so many loopback\n"
          "connections. Written by `benches/floor`; do not edit.\n")
    print("| what | goal | measured | |\n|---|---|---|---|")
    for what, wanted, measured, met in goals:
        print(f"| {what} | {wanted} | {measured} | {goal(met)} |")
    if runs.failed:
        print(f"\n{runs.failed} runs failed and are left out.")

    print("\n## Opening and holding\n")
    print("Median (least–most) of the runs. CPU is user and system time of all threads of\n"
          "the client, up to the peak; for sockscope that includes looking at the server\n"
          "while it dials, and counting its sockets at the end. Both dial the same server\n"
          "(`hold server`).\n")
    print("| connections | client | runs | connections/s | CPU µs each | of these dialing "
          "| peak memory | over base, bytes each |\n|--:|---|--:|--:|--:|--:|--:|--:|")
    for case in cases:
        for tool in ("floor", "sockscope"):
            of = lambda key: runs.of(case, tool, key)
            kib = of("client_kib")
            each = f"{per(statistics.median(kib), case):.0f}" if tool == "sockscope" else ""
            print(f"| {names[case]:,} | {tool} | {len(kib)} | {spread(of('rate'), '{:,.0f}')} | "
                  f"{spread(of('cpu_us'), '{:.1f}')} | {spread(of('dial_cpu_us'), '{:.1f}')} "
                  f"| {statistics.median(kib) / 1024:.1f} MiB | {each} |")
    print(f"\nThe base is a probe of one connection: {base / 1024:.1f} MiB.")
    print("\nsockscope / floor, of the medians; and of runs next to each other:\n")
    print("| connections | rate | CPU | CPU dialing | rate, run by run |"
          "\n|--:|--:|--:|--:|--:|")
    for case in cases:
        both = [runs.of(case, tool, "rate") for tool in ("sockscope", "floor")]
        by_run = spread([ours / floors for ours, floors in zip(*both)], "{:.2f}")
        print(f"| {names[case]:,} | {ratio(case, 'rate'):.2f} | {ratio(case, 'cpu_us'):.2f} | "
              f"{ratio(case, 'dial_cpu_us'):.2f} | {by_run} |")

    print("\n## Whether the last come as fast as the first\n")
    print("Seconds for a tenth of all connections; the cost is last over first.\n")
    print("| what | client | first tenth | last tenth | cost |\n|---|---|--:|--:|--:|")
    for case, what in (("one-source", "60,000, one source address"),
                       ("100k", "100,000"), ("1M", "1,000,000")):
        for tool in ("floor", "sockscope"):
            if costs := tenth_costs(runs, case, tool):
                first, last = runs.of(case, tool, "first_s"), runs.of(case, tool, "last_s")
                print(f"| {what} | {tool} | {spread(first, '{:.2f}')} s | "
                      f"{spread(last, '{:.2f}')} s | {spread(costs, '{:.2f}')} |")

    print("\n## Servers\n")
    print("Peak resident memory of the server's process, dialed by `hold client`.\n")
    print("| connections | server | before | with all | bytes each | CPU µs each |"
          "\n|--:|---|--:|--:|--:|--:|")
    for case in cases:
        for tool, name, where in (("floor", "hold server", case),
                                  ("serve", "sockscope serve", f"serve-{case}")):
            if full := runs.of(where, tool, "server_kib"):
                before = median(where, tool, "server_base_kib")
                with_all = statistics.median(full)
                each = (with_all - before) * 1024 / names[case]
                print(f"| {names[case]:,} | {name} | {before / 1024:.1f} MiB | "
                      f"{with_all / 1024:.1f} MiB | {each:.0f} | "
                      f"{spread(runs.of(where, tool, 'server_cpu_us'), '{:.1f}')} |")

    print("\n## How\n")
    print(f"- {machine()}")
    print(f"- {compilers()}")
    print(f"- RLIMIT_NOFILE {fd_limit:,}, hard, for every process; somaxconn "
          f"{read('/proc/sys/net/core/somaxconn').strip()}")
    print("- each run in a network namespace of its own; the sides by turns; before each "
          "run, the\n  memory of the one before is waited for")
    print("- floor: `hold server PORT N`, `hold client PORT N`; its own rate, N / time "
          "until its last\n  thread is done")
    print("- sockscope: `sockscope probe 127.0.0.1:PORT --max N --hold 3s --time-limit 5m "
          "--format json`;\n  the rate is `result.rate_per_s`: N / time from the start to "
          "the last connection.\n  A run counts if all N are accepted by "
          "the server's own table, and still after 3 s.\n  Tenths are from "
          "`timeline.ndjson`")
    print("- server memory: `sockscope serve --fd-tables auto`, VmHWM\n"
          "- tenths of the floor: CurrEstab in `/proc/net/snmp`, every 20 ms")


def tenth_costs(runs, case, tool):
    first, last = runs.of(case, tool, "first_s"), runs.of(case, tool, "last_s")
    return [after / before for before, after in zip(first, last)]


def main():
    what, *rest = sys.argv[1:]
    if what == "watch":
        watch(int(rest[0]))
    elif what == "collect":
        collect(rest[0], rest[1], int(rest[2]), rest[3])
    elif what == "help":
        time_help(rest[0])
    elif what == "report":
        report(int(rest[0]))
    else:
        sys.exit(__doc__)


main()
