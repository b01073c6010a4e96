"""Puts the pieces of a comparison together: report.py NAME DIRECTORY, Markdown on standard output."""
import json
import os
import sys

name, directory = sys.argv[1:]


def read(file):
    with open(os.path.join(directory, file), encoding="utf-8") as text:
        return text.read()


about = json.loads(read("result.json"))["about"]
get = os.environ.get
print(f"""# Haven and NFS-Ganesha

{get("HAVEN")} against NFS-Ganesha {get("GANESHA")} with its VFS back end, {get("RUNS")} runs of each, taking turns, of
{get("SECONDS_EACH")} s each (write-seq: {get("SIZE")} and one COMMIT); medians. Made by `benches/peers/run`.

- Machine: {about["processors"]} processors ({about["processor"]}), Linux {about["kernel"]}; both servers and the load
  generator share them. Both servers keep their data on the same {get("DISK")} file system.
- Both: NFSv3 over TCP on loopback, AUTH_SYS as root, no root squashing. Haven is a single node.
- Ganesha: `benches/peers/ganesha.conf.in`, else its defaults.
- Both answer a durable request only when it is on disk; how often they flush for it is counted below.
- small-file is CREATE, WRITE UNSTABLE of 4 KiB and, unless the server answers that the data are on disk already, COMMIT;
  each connection works in a directory of its own. Clients skip the COMMIT in this way too; hence Haven's 2 calls and Ganesha's 3.
- "server µs/op" is processor time of the server's process, user and system. The work of the kernel's flushing and of
  the receiving side of the network is partly charged to others, for both alike.

![Throughput and latency]({name}.svg)

{read("table.md")}
In brackets: connections, or connections × calls in flight on each. Ratios: throughput above 1, latency and cost below 1 are
in Haven's favour.

## Flushes

Counted with strace while each server made 2,000 durable small files at 16 connections:

| server | flushes | per file | calls |
| --- | ---: | ---: | --- |
{read("flushes.md")}""")
