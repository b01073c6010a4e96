"""Tells a failover from a packet capture at the client: packets.py FILE SECONDS

FILE is a capture (pcap, Ethernet); SECONDS since 1970 is when the leader was killed. Prints a table, in ms from
then: the last calls and replies before, every ARP packet, and all of TCP until the client's work goes on."""
import struct
import sys

BEFORE, AFTER = 4, 8  # calls and replies shown before the kill and after the new connection
PROCEDURES = {3: {1: "GETATTR", 2: "SETATTR", 3: "LOOKUP", 4: "ACCESS", 7: "WRITE", 8: "CREATE", 21: "COMMIT"}}


def packets(path):
    with open(path, "rb") as capture:
        magic = struct.unpack("<I", capture.read(4))[0]
        assert magic in (0xA1B2C3D4, 0xA1B23C4D), "not a capture of this machine"
        fraction = 1e-9 if magic == 0xA1B23C4D else 1e-6
        capture.read(20)
        while len(head := capture.read(16)) == 16:
            seconds, part, kept, length = struct.unpack("<IIII", head)
            yield seconds + part * fraction, capture.read(kept), length


def address(octets):
    return ".".join(map(str, octets))


def mac(octets):
    return ":".join(f"{octet:02x}" for octet in octets)


def arp(frame):
    kind, sender, of, target = frame[20:22], frame[22:28], frame[28:32], frame[38:42]
    if of == target:
        return f"ARP announcement: {address(of)} is at {mac(sender)}"
    if kind == b"\0\1":
        return f"ARP: who has {address(target)}? (asks {address(of)})"
    return f"ARP: {address(of)} is at {mac(sender)}"


class Stream:
    """What TCP packets say, calls and replies named by their xid."""

    def __init__(self):
        self.names = {}
        self.unanswered = {}

    def rpc(self, body):
        if len(body) < 12:
            return None
        xid, kind = struct.unpack(">II", body[4:12])
        if kind == 1 and xid in self.names:
            self.unanswered.pop(xid, None)
            return f"reply to {self.names[xid]}, xid {xid:08x}"
        if kind == 0 and len(body) >= 28:
            program, version, procedure = struct.unpack(">III", body[16:28])
            if program != 100003:
                return None
            again = " again" if xid in self.unanswered else ""
            name = PROCEDURES.get(version, {}).get(procedure, f"procedure {procedure}")
            self.names[xid] = name
            self.unanswered[xid] = True
            return f"call {name}, xid {xid:08x}{again}"
        return None

    def tell(self, frame):
        ip = frame[14:]
        head = (ip[0] & 15) * 4
        total = struct.unpack(">H", ip[2:4])[0]
        tcp = ip[head:total]
        offset = (tcp[12] >> 4) * 4
        ports = struct.unpack(">HH", tcp[:4])
        flags, body = tcp[13], tcp[offset:]
        length = total - head - offset
        words = [name for bit, name in ((2, "SYN"), (4, "RST"), (1, "FIN"), (16, "ACK")) if flags & bit]
        ends = f"{address(ip[12:16])}:{ports[0]} to {address(ip[16:20])}:{ports[1]}"
        said = self.rpc(body) if length else None
        if said is None:
            sequence, acknowledged = struct.unpack(">II", tcp[4:12])
            said = f"TCP {' '.join(words)}, seq {sequence}, ack {acknowledged}" + (f", {length} bytes" if length else "")
        return ends, said, 2049 in ports


def main():
    path, killed = sys.argv[1], float(sys.argv[2])
    stream, rows = Stream(), []
    for at, frame, _ in packets(path):
        kind = frame[12:14]
        if kind == b"\x08\x06":
            rows.append((at - killed, mac(frame[6:12]), arp(frame)))
        elif kind == b"\x08\x00" and frame[23] == 6:
            ends, said, nfs = stream.tell(frame)
            if nfs:
                rows.append((at - killed, mac(frame[6:12]), f"{ends}: {said}"))
    calls = [at for at, row in enumerate(rows) if "call " in row[2] or "reply " in row[2]]
    old = [at for at in calls if rows[at][0] < 0]
    new = [at for at in calls if rows[at][0] > 0]
    first = old[-BEFORE] if len(old) >= BEFORE else 0
    last = new[min(AFTER, len(new)) - 1] if new else len(rows) - 1
    # Plain acknowledgements of what went well say nothing.
    settled = next((at for at, (_, _, said) in enumerate(rows) if "SYN ACK" in said), last)
    print("\n| ms | sender | packet |\n|---:|---|---|")
    for number, (at, sender, said) in enumerate(rows[first : last + 1], first):
        if "TCP ACK" not in said or 0 < at and number < settled:
            print(f"| {at * 1000:.1f} | {sender} | {said} |")
    print()


main()
