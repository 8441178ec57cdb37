"""Part B of benches/compare: opening and holding connections to one listener."""

import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time

import chart
import peers
from shared import (
    FD_LIMIT, ROOT, TICKS, available_mib, build, loopback_up, machine, namespace,
    pairs_established, read, say, spread, status_kib, time_is_up,
    wait_until,
)

PORT = 17_000
# A run that has gained nothing for so long has met its limit.
STALLED_S, LONGEST_S = 5.0, 30.0
SLOW_S, SLOW_RUNS = 15.0, 2
# case: connections asked for, the host's local ports, what is tried
CASES = {
    "18k": (18_000, None, "18,000 connections"),
    "100k": (100_000, None, f"100,000 connections, {FD_LIMIT:,} descriptors for each fd table"),
    "ports": (18_000, (32_768, 42_767), "18,000 connections on a host of 10,000 local ports"),
}
SILENT = lambda count: [f"{os.environ['WORK']}/hold", "server", str(PORT), str(count)]
# ab opens no second connection before the first is answered.
SERVERS = {
    "ab": lambda count: [os.environ["SOCKSCOPE"], "serve", "--speak", "http", "--fd-tables",
                         "auto", "--listen", f"127.0.0.1:{PORT}"],
}
# What is not tried, and why.
SKIPPED = {
    ("100k", "siege"): "it starts a thread for each connection; 100,000 starve the machine",
}
LOADERS = ("wrk", "ab", "h2load", "siege", "hey", "oha", "vegeta", "tcpkali")


def loader(tool, count, port, seconds):
    """The words that make a load generator open so many connections, and hold them by
    requests for so many seconds."""
    url = f"http://127.0.0.1:{port}/"
    return {
        "wrk": ["wrk", "-t2", f"-c{count}", f"-d{seconds}s", url],
        "ab": ["ab", "-k", "-c", str(count), "-t", str(seconds), "-n", "1000000", "-s",
               str(seconds), url],
        "h2load": ["h2load", "--h1", "-t2", f"-c{count}", "-D", str(seconds), url],
        "siege": ["siege", "-R", "siegerc", "-b", "-c", str(count), "-t", f"{seconds}S", url],
        "hey": ["hey", "-c", str(count), "-z", f"{seconds}s", url],
        "oha": ["oha", "--no-tui", "-c", str(count), "-z", f"{seconds}s", url],
        "vegeta": ["vegeta", "attack", "-connections", str(count), "-duration", f"{seconds}s"],
        "tcpkali": ["tcpkali", "-c", str(count), "-T", f"{seconds}s", f"127.0.0.1:{port}"],
    }[tool]


def words_for(tool, count, port):
    if tool == "floor":
        return [f"{os.environ['WORK']}/hold", "client", str(port), str(count)]
    if tool == "sockscope":
        return [os.environ["SOCKSCOPE"], "probe", f"127.0.0.1:{port}", "--max", str(count),
                "--hold", "1s", "--time-limit", "2m", "--no-record", "--quiet"]
    return loader(tool, count, port, int(LONGEST_S))


def start(words, said):
    """Starts a client in a folder of its own, in which siege may leave its settings."""
    folder = os.getcwd()
    with open("siegerc", "w", encoding="utf-8") as file:
        # Its own limit is 255 users.
        file.write("limit = 200000\nconnection = keep-alive\nverbose = false\n"
                   "logging = false\njson_output = false\n")
    own = peers.path(words[0]) if words[0] in peers.PEERS else words[0]
    environment = {**os.environ, "HOME": folder}
    # Where this bench is in the background, its shell had SIGINT ignored, and all inherit that.
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([own, *words[1:]], stdin=subprocess.DEVNULL, stdout=said,
                            stderr=subprocess.STDOUT, env=environment, preexec_fn=heed)


def stop(client, patience=6):
    """As Ctrl-C does, so that it still reports; then as is needed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if client.poll() is not None:
            break
        client.send_signal(number)
        try:
            client.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    return client.wait()


def cpu_s(pid):
    """User and system time of a process, its ended threads included."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / TICKS


def watch(client, count):
    """How many are established as time goes by, until all are, or no more come."""
    began = gained = time.monotonic()
    most, took, used = 0, 0.0, {}
    while client.poll() is None:
        now, pairs = time.monotonic(), pairs_established()
        if pairs > most:
            most, took, gained = pairs, now - began, now
            try:
                used = {"cpu": cpu_s(client.pid),
                        "kib": status_kib(f"/proc/{client.pid}/status", "VmHWM")}
            except (OSError, TypeError):
                pass
        if most >= count or now - gained > STALLED_S or now - began > LONGEST_S:
            break
        time.sleep(0.01)
    return {"held": most, "took": took, **used}


def inside(case, tool):
    """One run, in the namespace of this process and in an empty folder."""
    if why := SKIPPED.get((case, tool)):
        print(json.dumps({"missing": why}))
        return
    loopback_up()
    count, ports, _ = CASES[case]
    if ports:
        with open("/proc/sys/net/ipv4/ip_local_port_range", "w", encoding="ascii") as file:
            file.write(f"{ports[0]} {ports[1]}")
    server = subprocess.Popen(SERVERS.get(tool, SILENT)(count), stdout=subprocess.PIPE,
                              text=True)
    client = None
    try:
        if not re.match("ready|listening", server.stdout.readline()):
            sys.exit("compare: the server did not start")
        words = words_for(tool, count, PORT)
        with open("said", "w+", encoding="utf-8", errors="replace") as said:
            client = start(words, said)
            run = watch(client, count)
            if tool == "sockscope":
                # It ends by itself, and says only then what it found.
                wait_until(lambda: client.poll() is not None, 60)
            elif client.poll() is None and tool != "floor":
                time.sleep(1)
            run["ended"] = client.poll() is not None
            run["code"] = stop(client)
        run["said"] = words_said(read("said"))
    finally:
        if client and client.poll() is None:
            client.kill()
        server.kill()
        server.wait()
    run["words"] = shlex.join([os.path.basename(w) if w.startswith("/") else w for w in words])
    print(json.dumps(run))


# What a tool says of connections, errors and limits; the rest is of requests.
TELLING = re.compile(
    r"connections|errors?\b|fail|cannot|can't|unable|too many|limit|open files|descriptor"
    r"|timeout|timed out|established|availab|concurren|practical maximum|stopped by"
    r"|success rate|completed|held |address|queue|refused|reset", re.I)
NOISE = re.compile(r"^(Licensed|Copyright|This is ApacheBench|Benchmarking|target |then "
                   r"|.*distribution:$|-\w )")


def words_said(text, longest=260):
    """The telling lines of a report, each once, numbers of the same sentence folded."""
    seen, kept = set(), []
    text = text.replace("\r", "\n").replace("|", "/").replace("`", "'")
    for line in text.splitlines():
        line = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).split())
        key = re.sub(r"\d+", "#", line)
        if not line or key in seen or not TELLING.search(line) or NOISE.search(line):
            continue
        seen.add(key)
        kept.append(line)
    said = " / ".join(kept[:8])
    return said if len(said) <= longest else said[: longest - 1] + "…"


def measure(case, tool):
    count = CASES[case][0]
    if tool in peers.PEERS and not peers.path(tool):
        return {"missing": peers.missing()[tool]}
    if time_is_up():
        return {"missing": "the time for all was over"}
    if not wait_until(lambda: available_mib() > 1024 + count * 13 // 1000, 60, 0.2):
        return {"missing": "not enough memory was free"}
    folder = os.path.join(os.environ["WORK"], "run")
    subprocess.run(["rm", "-rf", folder], check=True)
    os.mkdir(folder)
    own = [sys.executable, os.path.join(ROOT, "benches", "compare"), "--inside", "hold",
           json.dumps([case, tool])]
    try:
        done = subprocess.run([*namespace(alone=True), *own], cwd=folder, stdout=subprocess.PIPE,
                              text=True, check=True, timeout=180)
    except subprocess.SubprocessError as error:
        return {"missing": f"the run failed: {type(error).__name__}"}
    return json.loads(done.stdout)


def collect(repeat):
    if not build("hold"):
        sys.exit("compare: benches/hold.c does not compile")
    tools = ("floor", "sockscope", *LOADERS)
    runs = []
    for case, times in (("18k", repeat), ("100k", repeat), ("ports", repeat)):
        slow = {}
        for turn in range(times):
            at = turn * 3 % len(tools)
            for tool in tools[at:] + tools[:at]:
                if slow.get(tool, 0) >= SLOW_RUNS:
                    continue
                one = measure(case, tool)
                count = CASES[case][0]
                if one.get("took", SLOW_S + 1) > SLOW_S or one.get("held", 0) < count:
                    slow[tool] = slow.get(tool, 0) + 1
                runs.append({"case": case, "tool": tool, **one})
                say(f"{case} {tool}: {one.get('missing') or one['held']} "
                    f"{one.get('took', 0):.2f} s; {one.get('said', '')[:90]}")
    return {"machine": machine(), "versions": peers.versions(LOADERS), "runs": runs}


# --- the page ----------------------------------------------------------------------


def pages(data, folder):
    yield "\n## Opening and holding connections\n"
    yield ("To one listener on loopback that takes every connection and never says a word "
           "(`hold server`; ab's server\nanswers, as ab waits for a first answer before it "
           "opens more), each run in a network namespace of its own,\nthe tools by turns. The "
           "time is from the start of the tool to the moment when all are established, by "
           "the\nkernel's own count (CurrEstab), looked at every 10 ms; CPU and memory are "
           "the tool's at that moment. On\nloopback the tool's CPU includes most of what the "
           f"kernel does for the server. A run ends after {LONGEST_S:.0f} s,\nor when no "
           f"connection has come for {STALLED_S:.0f} s; then the tool gets SIGINT, and its "
           f"telling lines are quoted.\nWhat takes longer than {SLOW_S:.0f} s, or does not "
           f"get there, is run {SLOW_RUNS} times. Load generators are made for requests,\nnot "
           "for this; the table says how far they go.")
    for case, (count, _, title) in CASES.items():
        these = [one for one in data["runs"] if one["case"] == case]
        if not these:
            continue
        yield f"\n### {title[0].upper()}{title[1:]}\n"
        yield ("| tool | command | runs | held | time, s | CPU µs each | peak memory | exit "
               "| what it said |\n|---|---|--:|--:|--:|--:|--:|--:|---|")
        bars = []
        for tool in ("floor", "sockscope", *LOADERS):
            runs = [one for one in these if one["tool"] == tool]
            done = [one for one in runs if "held" in one]
            if not done:
                why = runs[-1]["missing"] if runs else "not tried"
                yield f"| {tool} | | 0 | not run: {why} | | | | | |"
                continue
            of = lambda key: [one[key] for one in done if key in one]
            all_held = min(of("held")) >= count
            each = [one["cpu"] / one["held"] * 1e6 for one in done if one.get("cpu")]
            memory = f"{max(of('kib')) / 1024:,.1f} MiB" if of("kib") else ""
            name = "floor: hold.c" if tool == "floor" else tool
            yield (f"| {name} | `{done[0]['words']}` | {len(done)} | "
                   f"{spread(of('held'), '{:,.0f}') if not all_held else f'{count:,}'} | "
                   f"{'' if all_held else 'never all; '}{spread(of('took'))} | "
                   f"{spread(each, '{:,.0f}') if each else ''} | "
                   f"{memory} | {done[-1]['code']} | "
                   f"{done[-1]['said'] or 'nothing'} |")
            bars.append((name, statistics.median(of("took" if case == "18k" else "held"))))
        if case == "18k":
            what, unit, form = "seconds until all that it got were established", "s", "{:,.2f}"
        else:
            what, unit, form = "connections held", "", "{:,.0f}"
        yield f"\n![{title}: {what}]({os.path.basename(folder)}/hold-{case}.svg)"
        with open(os.path.join(folder, f"hold-{case}.svg"), "w", encoding="utf-8") as file:
            file.write(chart.bars(f"{title}: {what}", bars, unit, form))
    yield ("\nExit codes below 0 are signals. Loopback has 28,232 local ports by default; with "
           f"{FD_LIMIT:,} descriptors a\nsingle process meets that limit first, so the limit of "
           "ports is shown on a host of 10,000.\nsockscope chooses source ports and addresses "
           "itself, and opens a further fd table for each\n20,000 descriptors.")
    yield f"\n- {data['machine']}"
    yield f"- {data['versions']}"
