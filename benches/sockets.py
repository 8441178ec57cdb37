"""The runs and the arithmetic of benches/sockets.

measure COUNT REPEAT SS_OWNERS  every case by turns, here and now; a line of JSON a run
report FD_LIMIT PROCESSES       those lines on stdin as Markdown
"""

import json
import os
import statistics
import subprocess
import sys

from shared import compilers, first_line, goal, machine, spread

WORK = os.environ.get("WORK", "")
OURS = [os.environ.get("SOCKSCOPE", "sockscope"), "sockets"]

# What is measured: its name, and its command.
CASES = {
    "dump": [f"{WORK}/diag"],
    "walk": [f"{WORK}/fdwalk"],
    "rows": [*OURS, "-taH"],
    "rows, ss": ["ss", "-tanH"],
    "owners": [*OURS, "-tapH"],
    "owners, ss": ["ss", "-tanpH"],
    "ndjson": [*OURS, "-ta", "--format", "ndjson"],
    "json": [*OURS, "-ta", "--format", "json"],
    "csv": [*OURS, "-ta", "--format", "csv"],
    "ndjson, owners": [*OURS, "-tap", "--format", "ndjson"],
    "tcp_info": [*OURS, "-taiHO"],
    "tcp_info, ss": ["ss", "-taniHO"],
    "count": [*OURS, "-ta", "--count"],
    "sorted": [*OURS, "-taH", "--sort", "-recv-q"],
    "by process": [*OURS, "-ta", "--by", "process"],
    "listeners": [*OURS, "-tlH"],
    "listeners, ss": ["ss", "-tlnH"],
    "listeners, first owners": [*OURS, "-tlpH", "--owners", "first"],
    "listeners, all owners": [*OURS, "-tlpH"],
}
SLOW = "owners, ss"
# What takes a few milliseconds is run so often each turn: what else runs is most of its time.
QUICK = {"listeners": 10, "listeners, ss": 10}


def run(case, count):
    timed = [f"{WORK}/timed", *CASES[case]]
    done = subprocess.run(timed, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"sockets: a run failed: {case}: {done.stderr.strip()}", file=sys.stderr)
        return {"case": case, "count": count, "failed": True}
    wall, cpu, rss, size, _ = done.stdout.split()
    measured = {"wall": float(wall), "cpu": float(cpu), "rss": int(rss), "bytes": int(size)}
    return {"case": case, "count": count, **measured}


def lines_of(case):
    said = subprocess.run(CASES[case], capture_output=True, check=True).stdout
    return said.count(b"\n")


def measure(count, repeat, ss_owners):
    # Nothing is measured of a tool that does not list all of them.
    for case in ("rows", "rows, ss", "owners"):
        if (rows := lines_of(case)) < count:
            sys.exit(f"{case}: {rows} rows of {count} sockets")
    cases = [case for case in CASES if case != SLOW]
    for turn in range(repeat):
        # Whatever disturbs comes to another each time.
        at = turn * 5 % len(cases)
        for case in cases[at:] + cases[:at]:
            for _ in range(QUICK.get(case, 1)):
                print(json.dumps(run(case, count)), flush=True)
        if turn < ss_owners:
            print(json.dumps(run(SLOW, count)), flush=True)


class Runs:
    def __init__(self, lines):
        self.all = [json.loads(line) for line in lines]
        self.failed = sum(1 for run in self.all if run.get("failed"))
        self.few, self.many = sorted({run["count"] for run in self.all})

    def of(self, case, key, count=None):
        count = count or self.many
        return [
            run[key]
            for run in self.all
            if (run["case"], run["count"]) == (case, count) and key in run
        ]

    def median(self, case, key, count=None):
        return statistics.median(self.of(case, key, count))

    def ratios(self, case, others, key):
        """Of runs of the same turn: what one took, of what others took together."""
        together = map(sum, zip(*(self.of(other, key) for other in others)))
        return [one / other for one, other in zip(self.of(case, key), together)]


def goals(runs):
    few, many = runs.few, runs.many
    floor = lambda key: runs.median("dump", key) + runs.median("walk", key)
    wall = runs.median("rows", "wall") / runs.median("dump", "wall")
    yield f"all {many:,} rows to a pipe, of a raw dump's time", "≤ 1.3", f"{wall:.2f}", wall <= 1.3
    ss = runs.median("rows", "wall") / runs.median("rows, ss", "wall")
    yield "the same, of the time of `ss -tanH`", "< 1", f"{ss:.2f}", ss < 1
    cpu = runs.median("owners", "cpu") / floor("cpu")
    yield ("with all owners, of the CPU of a dump and a walk", "≤ 1.2", f"{cpu:.2f}",
           cpu <= 1.2)
    if runs.of(SLOW, "wall"):
        faster = runs.median(SLOW, "wall") / runs.median("owners", "wall")
        yield ("the same, faster than `ss -tanp`", "≥ 10 times", f"{faster:.0f} times",
               faster >= 10)
    rss = max(runs.of("owners", "rss")) / 1024
    yield "memory of the same", "≤ 40 MiB", f"{rss:.1f} MiB", rss <= 40
    for case, name in (("rows", "rows"), ("owners", "rows with owners")):
        grown = runs.median(case, "cpu") / runs.median(case, "cpu", few)
        yield (f"{name}: CPU on {many:,} sockets, of that on {few:,}", "≤ 12", f"{grown:.1f}",
               grown <= 12)
    ms = runs.median("listeners", "wall") * 1e3
    yield f"listeners without owners, among {many:,}", "< 5 ms", f"{ms:.1f} ms", ms < 5


def report(fd_limit, processes):
    runs = Runs(sys.stdin)
    print("# The socket table against the floor and against ss\n")
    print("The floors are `benches/diag.c`, a sock_diag dump whose rows are counted, and\n"
          "`benches/fdwalk.c`, a readlink of every descriptor in /proc; they keep and print\n"
          "nothing. Written by `benches/sockets`; do not edit.\n")
    print("| what | goal | measured | |\n|---|---|---|---|")
    for what, wanted, measured, met in goals(runs):
        print(f"| {what} | {wanted} | {measured} | {goal(met)} |")
    if runs.failed:
        print(f"\n{runs.failed} runs failed and are left out.")

    for count in (runs.many, runs.few):
        print(f"\n## {count:,} sockets in {processes} processes\n")
        if count == runs.many:
            print("Median (least–most) of the runs, each with its output to a pipe that another\n"
                  "process empties. CPU is user and system time of the tool. Times vary with what\n"
                  "else the machine does, CPU hardly.\n")
        print("| what | command | runs | time, s | CPU, s | peak memory | output |"
              "\n|---|---|--:|--:|--:|--:|--:|")
        for case, command in CASES.items():
            if not runs.of(case, "wall", count):
                continue
            words = " ".join(os.path.basename(word) for word in command)
            of = lambda key: runs.of(case, key, count)
            print(f"| {case} | `{words}` | {len(of('wall'))} | {spread(of('wall'), '{:.3f}')} | "
                  f"{spread(of('cpu'), '{:.3f}')} | {max(of('rss')) / 1024:.1f} MiB | "
                  f"{max(of('bytes')) / 1e6:.1f} MB |")

    print("\n## Side by side\n")
    print("Runs of the same turn, one by the other.\n")
    print("| what | of | time | CPU |\n|---|---|--:|--:|")
    for case, others in (
        ("rows", ["dump"]), ("rows", ["rows, ss"]), ("rows, ss", ["dump"]),
        ("owners", ["dump", "walk"]), ("ndjson", ["dump"]), ("csv", ["dump"]),
        ("tcp_info", ["tcp_info, ss"]), ("listeners", ["listeners, ss"]),
        ("listeners, first owners", ["listeners, all owners"]),
    ):
        wall, cpu = (spread(runs.ratios(case, others, key)) for key in ("wall", "cpu"))
        print(f"| {case} | {' + '.join(others)} | {wall} | {cpu} |")

    print("\n## How\n")
    print(f"- {machine()}")
    print(f"- {compilers()};\n  {first_line(['ss', '-V'])}")
    print(f"- `spread {runs.many // 2} {processes}`: {processes} processes, each with a "
          f"listener and both ends of {runs.many // 2 // processes:,}\n  loopback connections, "
          f"in a network namespace of their own; RLIMIT_NOFILE {fd_limit:,}")
    print("- all cases by turns, another first each time; `benches/timed.c` takes the times: from\n"
          "  fork to the tool's end, and what wait4(2) says of it")
    print("- the raw dump is of IPv4 alone; sockscope and ss list IPv6 too, which has no sockets\n"
          "  here. ss walks the kernel's hash table once for each, sockscope once for both")
    print("- the walk reads every process of the host, and so does whatever names owners; ss looks\n"
          "  owners up in lists as long as a 256th of all sockets, which is why it is run so seldom")


def main():
    what, *rest = sys.argv[1:] or [""]
    if what == "measure":
        measure(*map(int, rest))
    elif what == "report":
        report(*map(int, rest))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
