"""Timelines as SVG: what happened to VM1, to the frames, to the switch and to the pings, on one time axis."""

import collections
from xml.sax.saxutils import escape

from .case import ATTACHMENTS, CURES, FABRICS, GROUPS, MEMBERS, VENDORS, Case

WIDTH, LEFT, RIGHT = 1000, 150, 180
PLOT = WIDTH - LEFT - RIGHT
LANE, BAR, TICK = 30, 16, 4
FROM_MS = -1000

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
  .title { font-size: 18px; font-weight: 600 } .heading { font-size: 15px; font-weight: 600 } .small { font-size: 11px }
  .muted { fill: #59636e } .inside { font-size: 11px; fill: #ffffff }
  .paper { fill: #ffffff } .panel { fill: #f6f8fa } .grid { stroke: #d1d9e0 }
  .mark { stroke: #59636e; stroke-dasharray: 3 3 }
  .host { fill: #59636e } .new { fill: #0969da } .dead { fill: #afb8c1 } .well { fill: #2da44e } .lost { fill: #cf222e }
  .good { fill: #1a7f37; font-weight: 600 } .bad { fill: #cf222e; font-weight: 600 }
  .rarp { fill: #bc4c00 } .arp-request { fill: #0b7285 } .arp-reply { fill: #8250df } .na { fill: #bf3989 }
  .ask { fill: #0969da } .solicit { fill: #6f4e00 } .igmp { fill: #0550ae } .mld { fill: #953800 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .muted { fill: #9198a1 } .inside { fill: #ffffff }
    .paper { fill: #0d1117 } .panel { fill: #161b22 } .grid { stroke: #30363d } .mark { stroke: #9198a1 }
    .host { fill: #656c76 } .new { fill: #1f6feb } .dead { fill: #484f58 } .well { fill: #238636 } .lost { fill: #da3633 }
    .good { fill: #3fb950 } .bad { fill: #ff7b72 }
    .rarp { fill: #f0883e } .arp-request { fill: #39c5cf } .arp-reply { fill: #bc8cff } .na { fill: #f778ba }
    .ask { fill: #58a6ff } .solicit { fill: #d29922 } .igmp { fill: #79c0ff } .mld { fill: #ffa657 }
  }
"""

FRAMES = {"rarp": "RARP (a MAC, no IP address)", "arp-request": "gratuitous ARP request",
          "arp-reply": "gratuitous ARP reply", "na": "neighbour advertisement",
          "ask": "ARP request for the gateway", "solicit": "neighbour solicitation for the router",
          "igmp": "the guest's IGMP report", "mld": "its MLD report"}

TITLES = {
    1: ("Scenario 1: after a live migration, the other subnet still sends to the old host",
        "The port has its VLAN in time. QEMU's RARPs move the switch's FDB; its ARP entry follows only ARP (vendor B)."),
    2: ("Scenario 2: the guest was announced before its port had a VLAN, and no host received it",
        "Neutron's agent binds the port 3 s late. Until then it is in the dead VLAN, and there QEMU's RARPs end."),
    3: ("The real OVN: the other subnet waits until OVN itself announces the port",
        "OVN 23.03, both hosts have the port, activation-strategy=rarp. Only ARP moves the switch's ARP entry (vendor B)."),
    4: ("Neutron's real agent: its firewall drops RARP, and no host learns of the guest",
        "Neutron 21, openvswitch firewall. The port gets its VLAN when the agent looks the next time, up to 2 s after the plug."),
    5: ("An EVPN fabric: other subnets come back when the new leaf is asked",
        "FRR, symmetric IRB, ARP suppression, Linux's own settings on the leaves: an announcement makes no neighbour entry there."),
    6: ("Handover: the destination announces when the source stops, and packets wait for the guest",
        "The guest stands still for 300 ms. Its port has its VLAN in time; only ARP moves the switch's ARP entry (vendor B)."),
    7: ("Multicast: the switch sends the guest's groups to its old host, until the guest is asked for them",
        "The switch snoops IGMP and MLD, and asks its hosts every 125 s. An FDB move takes the ARP entry along (vendor A)."),
}


def of_scenario(number, records):
    """All cures of a scenario, one above the other."""
    return _document(*TITLES[number], records)


def of_case(record):
    """One run."""
    case = Case(**record["case"])
    if case.attachment in FABRICS:
        return _document(f"{_who(case)}, {case.mode}", ATTACHMENTS[case.attachment], [record])
    title = f"{_who(case)}, tag {case.tag_words}, vendor {case.vendor}, {case.mode}"
    title += f", {MEMBERS[case.multicast]}" if case.multicast else ""
    below = f"{ATTACHMENTS[case.attachment]}; vendor {case.vendor}: {VENDORS[case.vendor]}"
    return _document(title, below, [record])


def _document(title, below, records):
    end = max(_end(record) for record in records)
    drawn, top = [], 62
    for record in records:
        drawn.append(_Panel(record, top, end))
        top = drawn[-1].bottom + 10
    # Older records have no reports.
    lanes = [record["timeline"].get(lane, []) for record in records for lane in ("port", "frames", "reports")]
    frames = [frame for lane in lanes for frame in lane]
    legend, bottom = _legend(top + 14, _kinds(frames))
    height = bottom + 16
    drawing = "".join(panel.draw() for panel in drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>\n'
        + _text(16, 28, title, "title") + _text(16, 49, below, "muted") + drawing + legend + "</svg>\n"
    )


def _end(record):
    moments = record["moments_ms"]
    return max(0, moments["tag"]) + record["case"]["window"] * 1000


# The words in a bar: white, but on light grey.
INSIDE = collections.defaultdict(lambda: "inside", dead="small")


class _Panel:
    """One run: a heading, the lanes, the axis."""

    def __init__(self, record, top, end):
        self.record, self.top, self.end = record, top, end
        self.moments = record["moments_ms"]
        self.lanes_top = top + 34
        self.lanes = (self._runs, self._tag, self._at_port, self._leaves, self._fdb, self._arp, *self._tenants())
        if Case(**record["case"]).attachment in FABRICS:
            self.lanes = (self._runs, self._at_port, self._leaves, self._mac, self._mac_ip, *self._tenants())
        if Case(**record["case"]).multicast:
            self.lanes = (self._runs, self._tag, self._leaves, self._reports, self._fdb, self._groups, *self._tenants())
        self.axis = self.lanes_top + len(self.lanes) * LANE
        self.bottom = self.axis + 34

    def draw(self):
        height = self.bottom - self.top
        parts = [f'<rect class="panel" x="8" y="{self.top}" width="{WIDTH - 16}" height="{height}" rx="6"/>\n']
        parts.append(_text(16, self.top + 22, self._heading(), "heading"))
        parts += self._axis()
        for number, lane in enumerate(self.lanes):
            self.y = self.lanes_top + number * LANE + LANE // 2
            parts += lane()
        return "".join(parts)

    def _heading(self):
        case = Case(**self.record["case"])
        probes = {name: probe["asked_after_ms"] for name, probe in self.record["probes"].items()}
        groups = [probes.pop(name) for name in GROUPS if name in probes]
        away = {name.split("-")[0].upper() for name, after in probes.items() if after is None}
        if not away:
            since = "its port has its VLAN" if self.moments["tag"] > 0 else "it runs"
            back = max(0, *probes.values())
            what = f"both reach VM1 again {back:.0f} ms after {since}"
        elif len(away) == 2:
            what = "no host reaches VM1 any more"
        else:
            lucky, other = ("VM2", "VM3") if "VM3" in away else ("VM3", "VM2")
            what = f"{lucky} reaches VM1 again, {other} does not"
        if groups:
            what += ", its groups do not" if None in groups else f", its groups {max(0, *groups):.0f} ms after that"
        return f"{_who(case)}: {what}"

    def _axis(self):
        parts = []
        for second in range(FROM_MS // 1000, int(self.end // 1000) + 1):
            x = self._x(second * 1000)
            parts.append(f'<line class="grid" x1="{x}" y1="{self.lanes_top}" x2="{x}" y2="{self.axis}"/>\n')
            parts.append(_text(x, self.axis + 14, f"{second} s", "small muted", "middle"))
        marks = [(0, "runs on host 3")] + [(self.moments["tag"], "VLAN set")] * (self.moments["tag"] > 100)
        for at, words in marks:
            x = self._x(at)
            parts.append(f'<line class="mark" x1="{x}" y1="{self.lanes_top}" x2="{x}" y2="{self.axis}"/>\n')
            # Beside each other where they are near.
            anchor = "end" if at == 0 and 0 < self.moments["tag"] < 900 else "start"
            parts.append(_text(x, self.axis + 28, words, "small", anchor))
        return parts

    def _runs(self):
        left = self.moments["suspended"] if self.moments["suspended"] is not None else 0
        bars = [self._bar(FROM_MS, left, "host", "host 1"), self._bar(0, self.end, "new", "host 3")]
        return [self._label("VM1 runs"), *bars]

    def _tag(self):
        dead, tag = self.moments["dead_tag"], self.moments["tag"]
        parts = [self._label("its port's VLAN")]
        if dead is not None:
            parts.append(self._bar(dead, tag, "dead", "dead VLAN" if tag - dead > 1500 else ""))
        return parts + [self._bar(tag, self.end, "new", "100")]

    def _at_port(self):
        return [self._label("RARPs at its port"), *self._frames(self.record["timeline"]["port"])]

    def _leaves(self):
        return [self._label("leaves host 3"), *self._frames(self.record["timeline"]["frames"])]

    def _reports(self):
        return [self._label("its groups' reports"), *self._frames(self.record["timeline"]["reports"])]

    def _frames(self, frames):
        # Each kind has its height, or those of a round would hide each other.
        kinds = _kinds(frames)
        height = BAR / max(2, len(kinds))
        parts = []
        for at, kind in frames:
            if kind in kinds and at <= self.end:
                x, y = self._x(at) - TICK / 2, self.y + height * (kinds.index(kind) - len(kinds) / 2)
                parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{TICK}" height="{height:g}"/>\n')
        return parts or [_text(self._x(0) + 6, self.y + 4, "nothing", "small muted")]

    def _fdb(self):
        return [self._label("switch: FDB"), *self._port(self.moments["switch_fdb_moved"])]

    def _arp(self):
        return [self._label("switch: ARP entry"), *self._port(self.moments["switch_arp_moved"])]

    def _groups(self):
        moved = self.moments["switch_groups_moved"].values()
        label, everywhere = self._label("switch: groups"), len(moved) == len(GROUPS)
        if not everywhere:
            return [label, *self._port(None)]
        return [label, self._bar(FROM_MS, max(moved), "host", "to host 1"), self._bar(max(moved), self.end, "new", "to host 3, too")]

    def _port(self, moved):
        if moved is None:
            return [self._bar(FROM_MS, self.end, "host", "to host 1")]
        return [self._bar(FROM_MS, moved, "host", "to host 1"), self._bar(moved, self.end, "new", "to host 3")]

    def _mac(self):
        return [self._label("leaf 2: VM1's MAC"), *self._port(self.moments["switch_fdb_moved"])]

    def _mac_ip(self):
        gone, back = self.moments["switch_arp_withdrawn"], self.moments["switch_arp_moved"]
        label = self._label("leaf 2: VM1's IPv4")
        if gone is None:
            return [label, *self._port(back)]
        bars = [self._bar(FROM_MS, gone, "host", "to host 1"),
                self._bar(gone, self.end if back is None else back, "dead", "withdrawn")]
        return [label, *bars, *([] if back is None else [self._bar(back, self.end, "new", "to host 3")])]

    def _tenants(self):
        """The lanes of the pings."""
        subnets = {"vm2": "same subnet", "vm3": "other subnet"}

        def lane(name):
            tenant, _, family = name.partition("-")
            words = f"{tenant.upper()}, {'IPv6' if family else subnets[tenant]}"
            if name in GROUPS:
                words = f"{tenant.upper()}, {GROUPS[name]} group"
            return lambda: [self._label(words), *self._pings(name)]
        return [lane(name) for name in sorted(self.record["probes"])]

    def _pings(self, name):
        parts = []
        for since, to, well in self.record["timeline"][name]:
            if to >= FROM_MS:
                words = "" if well or to - since < 1500 else "no answer"
                parts.append(self._bar(since, to, "well" if well else "lost", words, BAR if well else BAR + 6))
        probe = self.record["probes"][name]
        x = LEFT + PLOT + 12
        if probe["outage_ms"] is None:
            return parts + [_text(x, self.y + 4, "does not come back", "bad")]
        out = probe["outage_ms"]
        words = f"{out / 1000:.2f} s" if out >= 1000 else f"{out:.0f} ms"
        return parts + [_text(x, self.y + 4, f"back after {words}", "good")]

    def _label(self, words):
        return _text(LEFT - 12, self.y + 4, words, "", "end")

    def _bar(self, since, to, kind, words="", height=BAR):
        left, right = self._x(since), self._x(to)
        y = self.y - height / 2
        bar = f'<rect class="{kind}" x="{left}" y="{y}" width="{max(1, round(right - left, 1))}" height="{height}"/>\n'
        fits = words and right - left > 6 + 5.5 * len(words)
        return bar + (_text(left + 6, self.y + 4, words, INSIDE[kind]) if fits else "")

    def _x(self, ms):
        ms = min(max(ms, FROM_MS), self.end)
        return round(LEFT + PLOT * (ms - FROM_MS) / (self.end - FROM_MS), 1)


def _kinds(frames):
    """Which kinds of announcements there are, in the order of the legend."""
    return [kind for kind in FRAMES if any(kind == seen for _, seen in frames)]


def _legend(y, kinds):
    entries = [("well", "ping answered"), ("lost", "ping lost")] + [(kind, FRAMES[kind]) for kind in kinds]
    parts, x = [], LEFT
    for kind, words in entries:
        width = 36 + 6.2 * len(words)
        if x + width > WIDTH:
            x, y = LEFT, y + 18
        parts.append(f'<rect class="{kind}" x="{x:g}" y="{y - 9}" width="10" height="10"/>\n')
        parts.append(_text(x + 15, y, words, "small"))
        x += width
    return "".join(parts), y


def _who(case):
    return CURES["qemu"] if case.cure == "qemu" else f"With {CURES[case.cure]}"


def _text(x, y, words, kind, anchor="start"):
    return f'<text class="{kind}" x="{x:g}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>\n'
