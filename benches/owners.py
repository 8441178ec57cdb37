"""The runs and the arithmetic of benches/owners.

measure owners|table COUNT REPEAT SS  every case by turns, here and now; a line of JSON a run
report PROCESSES                      those lines on stdin as Markdown
"""

import datetime
import json
import os
import statistics
import subprocess
import sys

from sockets import OURS, WORK, first_line, goal, spread

# What is measured: its name, and its command.
OWNERS = {
    "dump": [f"{WORK}/diag"],
    "walk": [f"{WORK}/fdwalk"],
    "iterator": [f"{WORK}/owners"],
    "all rows": [*OURS, "-tapH"],
    "all rows, /proc": [*OURS, "-tapH", "--owners-by", "proc"],
    "ndjson": [*OURS, "-tap", "--format", "ndjson"],
    "listeners": [*OURS, "-tlnp"],
    "listeners, /proc": [*OURS, "-tlnp", "--owners-by", "proc"],
    "listeners, first owners": [*OURS, "-tlnp", "--owners", "first"],
    "all rows, ss": ["ss", "-tanpH"],
}
SLOW = "all rows, ss"
TABLE = {
    "dump": [f"{WORK}/diag"],
    "rows": [*OURS, "-tanH"],
    "ndjson": [*OURS, "-ta", "--format", "ndjson"],
    "csv": [*OURS, "-ta", "--format", "csv"],
}


def run(part, case, command, count):
    done = subprocess.run([f"{WORK}/timed", *command], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        sys.exit(f"owners: a run failed: {case}: {done.stderr.strip()}")
    wall, cpu, rss, size, _ = done.stdout.split()
    return {"part": part, "case": case, "count": count, "wall": float(wall),
            "cpu": float(cpu), "rss": int(rss), "bytes": int(size)}


def measure(part, count, repeat, ss):
    cases = dict(OWNERS if part == "owners" else TABLE)
    slow = cases.pop(SLOW, None)
    if part == "owners":
        # Nothing is measured of an answer that lacks an owner, or differs.
        answers = []
        for by in ("bpf", "proc"):
            asked = [*OURS, "-tapH", "--owners-by", by]
            rows = subprocess.run(asked, capture_output=True, check=True).stdout
            answers.append(sorted(rows.splitlines()))
        if len(answers[0]) < count or answers[0] != answers[1]:
            sys.exit(f"owners: {len(answers[0])} rows of {count} sockets, or not those of /proc")
        unowned = [row for row in answers[0] if b"[" not in row]
        if unowned:
            sys.exit(f"owners: a row without an owner: {unowned[0]}")
    names = list(cases)
    for turn in range(repeat):
        # Whatever disturbs comes to another each time.
        at = turn * 3 % len(names)
        for case in names[at:] + names[:at]:
            print(json.dumps(run(part, case, cases[case], count)), flush=True)
    for _ in range(ss if slow else 0):
        print(json.dumps(run(part, SLOW, slow, count)), flush=True)


def report(processes):
    all_runs = [json.loads(line) for line in sys.stdin]

    def of(part, case, key, count=None):
        return [one[key] for one in all_runs if (one["part"], one["case"]) == (part, case)
                and count in (None, one["count"])]

    mid = lambda *what: statistics.median(of(*what))
    print("# Owners by BPF, against the floor and against ss\n")
    print("The floors: `benches/owners.c` reads the kernel's `task_file` iterator and counts;\n"
          "`benches/fdwalk.c` reads every link of /proc/*/fd; `benches/diag.c` is a sock_diag dump.\n"
          "They keep and print nothing. Written by `benches/owners`; do not edit.\n")
    count = max(of("owners", "all rows", "count"))
    wall = mid("owners", "all rows", "wall")
    tight = mid("owners", "listeners", "wall") / mid("owners", "iterator", "wall")
    cpu = mid("owners", "all rows", "cpu")
    busy = mid("owners", "listeners", "cpu") / mid("owners", "iterator", "cpu")
    goals = [(f"all {count:,} rows with all owners", "≤ 0.8 s", f"{wall:.2f} s", wall <= 0.8),
             ("the same, CPU of all its threads", "≤ 0.8 s", f"{cpu:.2f} s", cpu <= 0.8),
             ("`ss -tlnp`, of the iterator's CPU", "≤ 1.5", f"{busy:.2f}", busy <= 1.5),
             ("`ss -tlnp`, of the iterator's time", "≤ 1.5", f"{tight:.2f}", tight <= 1.5)]
    if slow := of("owners", SLOW, "wall"):
        slow = statistics.median(slow)
        goals.append(("`ss -tanp` of iproute2 on the same", "over 20 s", f"{slow:.1f} s", slow > 20))
    counts = sorted({one["count"] for one in all_runs if one["part"] == "table"})
    for many in counts:
        for case in ("rows", "ndjson", "csv"):
            rss = max(of("table", case, "rss", many)) / 1024
            goals.append((f"{many:,} sockets, {case}: memory", "< 20 MiB", f"{rss:.1f} MiB", rss < 20))
        ratio = mid("table", "rows", "wall", many) / mid("table", "dump", "wall", many)
        goals.append((f"{many:,} sockets, rows: of a raw dump's time", "≤ 1.2", f"{ratio:.2f}",
                      ratio <= 1.2))
    print("| what | goal | measured | |\n|---|---|---|---|")
    for what, wanted, measured, met in goals:
        print(f"| {what} | {wanted} | {measured} | {goal(met)} |")

    if not slow:
        print("\nNot run: `ss -tanp`.")
    if not counts:
        print("\nNot run: the table without owners on a million sockets (`--many`).")

    def table(part, cases, many):
        print("| what | command | runs | time, s | CPU, s | peak memory | output |"
              "\n|---|---|--:|--:|--:|--:|--:|")
        for case, command in cases.items():
            if not of(part, case, "wall", many):
                continue
            words = " ".join(os.path.basename(word) for word in command)
            values = lambda key: of(part, case, key, many)
            print(f"| {case} | `{words}` | {len(values('wall'))} | {spread(values('wall'), '{:.3f}')}"
                  f" | {spread(values('cpu'), '{:.3f}')} | {max(values('rss')) / 1024:.1f} MiB | "
                  f"{max(values('bytes')) / 1e6:.1f} MB |")

    print(f"\n## Owners of {count:,} sockets in {processes} processes\n")
    print("Median (least–most). The rows by BPF and through /proc were the same, before anything\n"
          "was measured, and each had an owner.\n")
    table("owners", OWNERS, count)
    for many in counts:
        print(f"\n## The table of {many:,} sockets, without owners\n")
        table("table", TABLE, many)
    print("\n## How\n")
    print(f"- {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}; "
          f"{len(os.sched_getaffinity(0))} cores, Linux {os.uname().release}; load average "
          f"{os.getloadavg()[1]:.1f} at the end")
    print(f"- {first_line(['gcc', '--version'])}; {first_line(['rustc', '--version'])};\n"
          f"  {first_line(['ss', '-V'])}")
    print("- where the load is far above the number of cores, the times are those of waiting; CPU\n"
          "  hardly changes")
    print("- all cases by turns, another first each time; the output goes to a pipe that another\n"
          "  process empties; `benches/timed.c` takes the times, from fork to the tool's end")


def main():
    what, *rest = sys.argv[1:] or [""]
    if what == "measure":
        measure(rest[0], *map(int, rest[1:]))
    elif what == "report":
        report(*rest)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
