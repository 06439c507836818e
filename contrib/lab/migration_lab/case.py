"""One case of the matrix: how the guest is announced, when its port gets its VLAN, and the surroundings."""

import dataclasses
import itertools

CURES = {
    "qemu": "QEMU alone",
    "nova": "nova's workaround",
    "announced": "announced",
    "hook": "the libvirt hook alone",
    "no-questions": "announced without questions",
    "handover": "announced, told by the source",
}
LATE = (0.0, 0.3, 3.0)
VENDORS = {
    "A": "an FDB move takes the ARP entry along",
    "B": "only ARP moves the ARP entry",
}
MODES = ("pre-copy", "post-copy")
TENANTS = ("vm2", "vm3")
# VM2's pings to the groups of which VM1 is a member.
GROUPS = {"vm2-group": "IPv4", "vm2-group6": "IPv6"}
MEMBERS = {"newer": "IGMPv3 and MLDv2", "older": "IGMPv2 and MLDv1"}
FAILURES = {"killed": "the destination's QEMU is killed", "cancelled": "the source cancels it"}
HANDOVER_CURES = ("qemu", "announced", "handover")
# Of FRR, in the place of the switch model: neither a vendor nor a VLAN.
FABRICS = {
    "evpn": "EVPN of FRR: symmetric IRB, ARP suppression",
    "evpn-asymmetric": "EVPN of FRR: asymmetric IRB, ARP suppression",
    "evpn-flooding": "EVPN of FRR: symmetric IRB, no ARP suppression",
    "evpn-leaf": "EVPN of FRR: symmetric IRB, ARP suppression, the hypervisor is the leaf",
}
ATTACHMENTS = {
    "ovs": "tap on br-int",
    "hybrid": "tap, qbr, qvb, qvo on br-int",
    "provider": "tap on br-int, VLAN translated on the way to br-ex",
    "ovn": "the real OVN, both hosts have the port, activation-strategy=rarp",
    "ovn-anew": "the real OVN, the port is bound anew after the migration",
    "neutron": "the real neutron agent, openvswitch firewall",
    **FABRICS,
}
# Before a switch that snoops: OVN's flows let VM1's IPv4 address pass only.
SNOOPED = ("ovs", "hybrid", "provider", "neutron")
# If no agent can delay the port's VLAN.
REAL = ("ovn", "ovn-anew", "neutron")
UNDELAYED = (*REAL, *FABRICS)
# What the matrix varies, the slowest first: an option's name and the values.
AXES = {
    "attachments": list(ATTACHMENTS), "modes": list(MODES), "lates": list(LATE),
    # Handover has a command of its own.
    "vendors": list(VENDORS), "cures": [cure for cure in CURES if cure != "handover"],
}


@dataclasses.dataclass(frozen=True)
class Case:
    """`late`: seconds from `since` ("resumed" or "port") to the tag; 0: the port comes with it."""

    cure: str = "qemu"
    late: float = 0.0
    vendor: str = "B"
    mode: str = "pre-copy"
    attachment: str = "ovs"
    since: str = "resumed"
    # The guest's own driver speaks, too: not so with e1000, vmxnet3, Windows without that driver.
    guest_announce: bool = False
    # Milliseconds for which the guest stands still at least: the destination's QEMU is held for so long. 0: as long as it takes.
    switch_over: int = 0
    # How the migration fails then, one of `FAILURES`, so that the guest runs on at its source; empty: it does not.
    fails: str = ""
    # The guest writes to its memory all the time.
    busy: bool = False
    # A tenant has a TCP stream with the guest, too.
    stream: bool = False
    # VM1 is a member of two groups, by which versions, one of `MEMBERS`, and the switch snoops; empty: it is not, and the switch floods.
    multicast: str = ""
    # Seconds to watch from the moment when the guest runs and its port has its tag; a case is the same with another.
    window: float = dataclasses.field(default=8.0, compare=False)
    # And until these tenants are answered again, or a minute has passed.
    until_back: list = dataclasses.field(default_factory=list, compare=False)

    @property
    def slug(self):
        """A file name."""
        words = [self.cure, f"late-{self.late:g}", f"vendor-{self.vendor}", self.mode, self.attachment]
        if self.attachment in FABRICS:
            words = [self.cure, self.mode, self.attachment]
        words += [f"switch-over-{self.switch_over}"] * (self.switch_over > 0) + [self.fails] * bool(self.fails) + ["busy"] * self.busy
        words += [f"multicast-{self.multicast}"] * bool(self.multicast)
        words += ["since-port"] * (self.since == "port") + ["guest-announce"] * self.guest_announce
        return "_".join(words)

    def is_scenario(self, other):
        """The same, and with one of the cures that scenarios are shown with."""
        return dataclasses.replace(self, cure=other.cure) == other and self.cure in other.shown_cures

    @property
    def shown_cures(self):
        """Those that it is shown with as a scenario."""
        if self.switch_over:
            return HANDOVER_CURES
        return ("qemu", "no-questions", "announced") if self.attachment in FABRICS else ("qemu", "announced")

    @property
    def rank(self):
        """Its place in a table."""
        values = (self.attachment, self.mode, self.late, self.vendor, self.cure)
        places = [axis.index(value) if value in axis else len(axis) for axis, value in zip(AXES.values(), values)]
        return *places, self.late, self.since, self.guest_announce, self.switch_over, self.fails, self.busy, self.multicast

    @property
    def tag_words(self):
        """When the tag comes, in words."""
        if self.attachment in FABRICS:
            return "none"
        if self.attachment in REAL:
            return "when it comes"
        if not self.late:
            return "in time"
        return f"{self.late:g} s late" + (", from the port's creation" if self.since == "port" else "")


# Scenario 1 and 2 of the analysis, what a real cloud does, what a real fabric does, what the source can tell, and multicast.
SCENARIOS = {
    1: Case(vendor="B", late=0.0),
    2: Case(vendor="A", late=3.0),
    3: Case(vendor="B", attachment="ovn"),
    4: Case(vendor="A", attachment="neutron"),
    5: Case(attachment="evpn"),
    6: Case(switch_over=300, stream=True),
    7: Case(vendor="A", multicast="newer"),
}


def scenarios(numbers, window):
    """Each with QEMU alone and with announced; where questions matter, without them, too."""
    return [
        dataclasses.replace(SCENARIOS[number], cure=cure, window=window)
        for number in numbers
        for cure in SCENARIOS[number].shown_cures
    ]


def handovers(attachments, modes, switch_overs, vendors, cures, guests, fails, window):
    """With QEMU alone, with announced, and with it on both hosts."""
    product = itertools.product(attachments, modes, vendors, guests, switch_overs, cures)
    return [
        Case(cure, 0.0, vendor, mode, attachment, window=window, switch_over=switch_over, fails=fails, busy=guest == "busy",
             stream=True)
        for attachment, mode, vendor, guest, switch_over, cure in product
    ]


def multicasts(attachments, versions, cures, window):
    """A member of two groups, with QEMU alone and with announced."""
    product = itertools.product(attachments, versions, cures)
    return [Case(cure, 0.0, "A", attachment=attachment, multicast=of, window=window) for attachment, of, cure in product]


def matrix(attachments, modes, lates, vendors, cures, window):
    """All combinations that make a difference, in the order of the table."""
    product = itertools.product(attachments, modes, lates, vendors, cures)
    chosen = []
    for attachment, mode, late, vendor, cure in product:
        if attachment in UNDELAYED:
            late = 0.0
        if attachment in FABRICS:
            vendor = Case.vendor
        elif cure == "no-questions": # the switch model answers none
            continue
        chosen.append(Case(cure, late, vendor, mode, attachment, window=window))
    return list(dict.fromkeys(chosen))
