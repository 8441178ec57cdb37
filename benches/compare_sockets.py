"""Part A of benches/compare: listing the sockets of a host with very many of them."""

import json
import os
import shlex
import statistics
import subprocess
import sys
from collections import namedtuple

import chart
import peers
from shared import ROOT, build, loopback_up, machine, namespace, say, spread, time_is_up

PROCESSES = 50
MANY, FEW = 200_000, 1_000
# What takes more CPU than this is run fewer times.
SLOW_S, SLOW_RUNS, LONGEST_S = 4.0, 2, 180

# who: the tool, or "floor"; json: its output is one JSON text.
Case = namedtuple("Case", "group who name words json", defaults=(False,))

GROUPS = ROWS, OWNERS, JSON, LISTENING, HOW_MANY, OF_FEW = (
    "all rows", "all rows with owners", "all rows with owners, as JSON",
    "listeners with owners", "how many there are", f"all rows with owners, {FEW:,} sockets",
)


def cases(count):
    own = os.environ["SOCKSCOPE"]
    work = os.environ["WORK"]
    ours = [own, "sockets"]
    dump, walk, iterate = (f"{work}/{name}" for name in ("diag", "fdwalk", "owners"))
    lines = lambda words: ["sh", "-c", f"{words} | wc -l"]
    if count == FEW:
        return [
            Case(OF_FEW, "sockscope", "sockscope", [*ours, "-tapH"]),
            Case(OF_FEW, "ss", "ss", ["ss", "-tanpH"]),
            Case(OF_FEW, "netstat", "netstat", ["netstat", "-tanp"]),
            Case(OF_FEW, "lsof", "lsof", ["lsof", "-nP", "-iTCP"]),
            Case(OF_FEW, "somo", "somo as a table", ["somo", "-t"]),
            Case(OF_FEW, "somo", "somo --json", ["somo", "-t", "--json"], True),
        ]
    found = [
        Case(ROWS, "floor", "floor: diag.c", [dump]),
        Case(ROWS, "sockscope", "sockscope", [*ours, "-taH"]),
        Case(ROWS, "ss", "ss", ["ss", "-tanH"]),
        Case(ROWS, "netstat", "netstat", ["netstat", "-tan"]),
        Case(OWNERS, "floor", "floor: fdwalk.c", [walk]),
        Case(OWNERS, "floor", "floor: owners.c (BPF)", [iterate]),
        Case(OWNERS, "sockscope", "sockscope", [*ours, "-tapH"]),
        Case(OWNERS, "ss", "ss", ["ss", "-tanpH"]),
        Case(OWNERS, "netstat", "netstat", ["netstat", "-tanp"]),
        Case(OWNERS, "lsof", "lsof", ["lsof", "-nP", "-iTCP"]),
        Case(JSON, "sockscope", "sockscope", [*ours, "-tap", "--format", "json"], True),
        Case(JSON, "somo", "somo", ["somo", "-t", "--json"], True),
        Case(LISTENING, "sockscope", "sockscope", [*ours, "-tlpH"]),
        Case(LISTENING, "sockscope", "sockscope, first owners",
             [*ours, "-tlpH", "--owners", "first"]),
        Case(LISTENING, "ss", "ss", ["ss", "-tlnpH"]),
        Case(LISTENING, "netstat", "netstat", ["netstat", "-tlnp"]),
        Case(LISTENING, "lsof", "lsof", ["lsof", "-nP", "-iTCP", "-sTCP:LISTEN"]),
        Case(LISTENING, "somo", "somo", ["somo", "-t", "-l", "--json"], True),
        Case(HOW_MANY, "floor", "floor: diag.c", [dump]),
        Case(HOW_MANY, "sockscope", "sockscope", [*ours, "-ta", "--count"]),
        Case(HOW_MANY, "ss", "ss", lines("ss -tanH")),
        Case(HOW_MANY, "netstat", "netstat", lines("netstat -tan")),
    ]
    return [case for case in found if case.words != [iterate] or os.path.exists(iterate)]


def run(case):
    words = list(case.words)
    if case.who in peers.PEERS and words[0] == case.who:
        words[0] = peers.path(case.who)
    said = {"group": case.group, "name": case.name, "words": shown(case.words)}
    if case.who in peers.PEERS and not peers.path(case.who):
        return {**said, "missing": peers.missing()[case.who]}
    if time_is_up():
        return {**said, "missing": "the time for all was over"}
    try:
        done = subprocess.run([f"{os.environ['WORK']}/timed", *words], capture_output=True,
                              text=True, errors="replace", check=False, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        return {**said, "missing": f"not done after {LONGEST_S} s"}
    if done.returncode:
        return {**said, "missing": f"failed: {(done.stderr.strip() or 'no word')[-120:]}"}
    wall, cpu, rss, size, lines = done.stdout.split()
    return {**said, "wall": float(wall), "cpu": float(cpu), "rss": int(rss),
            "bytes": int(size), "lines": int(lines)}


def shown(words):
    return shlex.join([os.path.basename(word) if word.startswith("/") else word
                       for word in words])


def listed(case):
    """How many rows a JSON text has: the only case where lines do not tell."""
    words = [peers.path(case.words[0]) or case.words[0], *case.words[1:]]
    try:
        said = subprocess.run(words, capture_output=True, check=True, timeout=180).stdout
        found = json.loads(said)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return len(found if isinstance(found, list) else found.get("sockets", []))


def inside(count, repeat):
    """In a namespace of its own: all cases by turns, another first each time."""
    loopback_up()
    holder = subprocess.Popen([f"{os.environ['WORK']}/spread", str(count // 2),
                               str(PROCESSES)], stdout=subprocess.PIPE, text=True)
    try:
        if holder.stdout.readline().strip() != "ready":
            sys.exit(f"compare: {count:,} sockets could not be opened")
        these, runs = cases(count), []
        took, times = {}, {}
        for case in these:
            if case.json and (rows := listed(case)) is not None:
                runs.append({"group": case.group, "name": case.name, "rows": rows})
        for turn in range(repeat):
            at = turn * 5 % len(these)
            for case in these[at:] + these[:at]:
                key = case.group, case.name
                if took.get(key, 0) > SLOW_S and times[key] >= min(SLOW_RUNS, repeat):
                    continue
                one = run(case)
                took[key] = one.get("cpu", SLOW_S + 1)
                times[key] = times.get(key, 0) + 1
                runs.append(one)
                say(f"{case.group}, {case.name}: {one.get('wall', one.get('missing'))}")
        print(json.dumps(runs))
    finally:
        holder.terminate()
        holder.wait()


def collect(repeat):
    for name in ("spread", "diag", "fdwalk", "timed"):
        if not build(name):
            sys.exit(f"compare: benches/{name}.c does not compile")
    build("owners", ["bpf"])
    runs = []
    for count in (MANY, FEW):
        own = [sys.executable, os.path.join(ROOT, "benches", "compare"), "--inside",
               "sockets", json.dumps([count, repeat])]
        done = subprocess.run([*namespace(alone=True), *own], stdout=subprocess.PIPE, text=True,
                              check=True)
        runs += json.loads(done.stdout)
    reasons = peers.missing()
    return {
        "machine": machine(),
        "versions": peers.versions(("ss", "netstat", "lsof", "somo")),
        "runs": runs,
        "absent": {tool: reasons[tool] for tool in ("netstat2",) if tool in reasons},
        "bpf": os.path.exists(os.path.join(os.environ["WORK"], "owners")),
    }


# --- the page ----------------------------------------------------------------------


def grouped(runs):
    groups = {}
    for one in runs:
        groups.setdefault(one["group"], {}).setdefault(one["name"], []).append(one)
    return groups


def table(group, found):
    yield f"\n### {group[0].upper()}{group[1:]}\n"
    yield "| tool | command | runs | time, s | CPU, s | CPU, of sockscope's | peak memory | rows |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    median = lambda these, key: statistics.median(one[key] for one in these)
    done = {name: [one for one in these if "wall" in one] for name, these in found.items()}
    ours = median(done["sockscope"], "cpu") if done.get("sockscope") else None
    order = ["floor", "sockscope"]
    rank = lambda name: next((at for at, who in enumerate(order) if name.startswith(who)), 2)
    for name in sorted(found, key=rank):
        these = done[name]
        words = next((one["words"] for one in found[name] if "words" in one), "")
        if not these:
            why = next((one["missing"] for one in found[name] if "missing" in one), "")
            yield f"| {name} | `{words}` | 0 | not run: {why} | | | | |"
            continue
        of = lambda key: [one[key] for one in these]
        times = f"{median(these, 'cpu') / ours:.2f}" if ours else ""
        rows = next((one["rows"] for one in found[name] if "rows" in one), max(of("lines")))
        shown_rows = "" if name.startswith("floor") or group == HOW_MANY else f"{rows:,}"
        yield (f"| {name} | `{words.replace('|', chr(92) + '|')}` | {len(these)} | "
               f"{spread(of('wall'), '{:,.3f}')} | {spread(of('cpu'), '{:,.3f}')} | {times} | "
               f"{max(of('rss')) / 1024:,.1f} MiB | {shown_rows} |")


def pages(data, folder):
    """The lines of the page's section; its charts are written into the folder."""
    groups = grouped(data["runs"])
    yield "\n## The socket table\n"
    yield (f"{MANY:,} TCP sockets in {PROCESSES} processes (`benches/spread.c`), in a network "
           "namespace of their\nown, and every command by turns with its output to a pipe that "
           "another process empties.\nMedian (least–most). CPU is user and system time. What "
           f"takes more than {SLOW_S:.0f} s of it is run {SLOW_RUNS} times.\nRows are the lines of "
           "the output, headings included, or the entries of its JSON. The floors\nkeep and "
           "print nothing: `diag.c` is one dump of the kernel's table, `fdwalk.c` a readlink "
           "of every\ndescriptor in /proc, `owners.c` the kernel's own iterator of "
           "descriptors; rows with owners take a dump\nand one of the other two. lsof and somo "
           "have no rows without owners.")
    for group in (name for name in GROUPS if name in groups):
        found = groups[group]
        yield from table(group, found)
        if group == OWNERS:
            folder_name = os.path.basename(folder)
            yield f"\n![CPU seconds for all rows with owners]({folder_name}/owners.svg)"
            bars = []
            for name, these in found.items():
                if cpu := [one["cpu"] for one in these if "cpu" in one]:
                    bars.append((name, statistics.median(cpu)))
            title = f"All rows with owners, {MANY:,} sockets: CPU"
            with open(os.path.join(folder, "owners.svg"), "w", encoding="utf-8") as file:
                file.write(chart.bars(title, bars, "s"))
    yield "\nNot compared: " + "; ".join(f"{t}: {why}" for t, why in data["absent"].items()) + "."
    if not data["bpf"]:
        yield "The BPF floor was not built: its headers are missing."
    yield (f"\n`somo -t` draws its table only with {FEW:,} sockets here: it takes longer for "
           "each row the more there are.")
    yield f"\n- {data['machine']}"
    yield f"- {data['versions']}"
