"""What the frames on the hosts' uplinks must be like, from where the guests ran, what their ports had, and which faults there were.

Everything here is a function of what was seen. All times are seconds since the epoch.
"""

import collections
import dataclasses
import statistics

# A frame may be on its way when its guest stops: announced hears of it from libvirt.
GRACE_S = 0.1
# A daemon that waits says so after [ports] wait, and has by then looked at everything that could wake it.
DEADLINE_S = 60
# The kinds of which each round of a NIC has one.
ONE_PER_ROUND = "rarp"
# What is lost is sent again, ever more slowly: so often in the first second, and each second after that.
RESENT_AT_FIRST, RESENT_PER_S = 45, 10
# What is in the queues of an ovs-vswitchd that stands still leaves when it goes on, within this time. No program can withdraw it. It is
# at most a packet-out, and one try by another way.
KEPT_ROUNDS, KEPT_S = 2, 4
# So long after a fault, Open vSwitch may be late for that: it tries to reach an ovsdb-server that was away ever more rarely.
LOSES_S = 4
# A handover's rounds before the guest runs.
EARLY_ROUNDS = 2


@dataclasses.dataclass(frozen=True)
class Frame:
    at: float
    host: str
    guest: str
    vlan: int | None
    kind: str


@dataclasses.dataclass
class Fault:
    """`begin` to `end`, None while it lasts; then what it has hit answers again. `where` is a host or a guest."""

    number: int
    kind: str
    where: str
    begin: float
    end: float | None = None

    def overlaps(self, begin, end):
        return self.begin <= end and (self.end is None or self.end >= begin)


@dataclasses.dataclass(frozen=True)
class Arrival:
    """What became of one stay."""

    guest: str
    host: str
    began: float
    # From when on it could be announced: it runs, its port has its VLAN, and all that a fault had hit answers.
    ready: float | None
    # The first frame.
    first: float | None
    # How long it was there and ready, as far as it is known.
    stayed: float
    faults: tuple

    @property
    def delay(self):
        """From `ready` to the first frame; 0 where that came in the middle of a fault."""
        return None if self.first is None or self.ready is None else max(0.0, self.first - self.ready)


@dataclasses.dataclass(frozen=True)
class Violation:
    at: float
    words: str
    # The last fault that had begun.
    fault: int


class Audit:
    """`kinds` has for each kind of fault whether it `halts` what an announcement needs, `keeps` rounds for later, and so on;
    `rounds` is how many a schedule has, `now` when the audit is."""

    def __init__(self, stays, frames, faults, kinds, rounds, peers, now):
        self.stays, self.frames, self.faults = stays, sorted(frames, key=lambda frame: frame.at), faults
        self.kinds, self.rounds, self.peers, self.now = kinds, rounds, peers, now
        self.violations, self.latest = [], 0.0
        self.kept = collections.Counter()
        self.by_stay = collections.defaultdict(list)
        self._place()
        self.arrivals = [self._arrival(stay) for stay in stays]
        for stay in stays:
            self._count(stay)

    def _place(self):
        """Each frame belongs to a stay of its guest on its host."""
        of_guest = collections.defaultdict(list)
        for stay in self.stays:
            of_guest[stay.guest].append(stay)
        for frame in self.frames:
            stays = of_guest[frame.guest]
            stay = next((stay for stay in reversed(stays) if stay.host == frame.host and stay.began <= frame.at), None)
            late = _beyond(stay, frame.at) if stay else None
            if late != 0 and self.peers and _switches_over(stays, frame.at):
                stay = next((stay for stay in stays if stay.began > frame.at), None)
                if not stay or stay.host != frame.host:
                    continue # its migration has failed
            elif stay is None:
                self._complain(frame.at, f"{_words(frame)}, where it has never run")
                continue
            else:
                is_kept = late > GRACE_S and self._is_kept(stay, frame)
                self.latest = max(self.latest, 0 if is_kept else late)
                if late > GRACE_S and not is_kept:
                    self._complain(frame.at, f"{_words(frame)}, {late:.3f} s after it stopped there")
            self.by_stay[id(stay)].append(frame)
            self._in_vlan(stay, frame)

    def _is_kept(self, stay, frame):
        """Whether Open vSwitch stood still when the guest left, or until shortly before, and may have kept that frame; counts it then."""
        stood_still = any(self.kinds[fault.kind].keeps and frame.at <= (fault.end or self.now) + KEPT_S
                          for fault in self._faults_of(stay, stay.began, stay.stopped or self.now))
        is_kept = stood_still and self.kept[id(stay), frame.kind] < KEPT_ROUNDS
        self.kept[id(stay), frame.kind] += is_kept
        return is_kept

    def _in_vlan(self, stay, frame):
        """The VLAN is that of its port, from when it was asked for until its successor was committed."""
        have = set()
        for place, (sent, _, vlan) in enumerate(stay.bindings):
            later = stay.bindings[place + 1:]
            if sent <= frame.at and (not later or frame.at <= later[0][1] + GRACE_S):
                have.add(vlan)
        if frame.vlan not in have - {None}:
            words = f"VLAN {frame.vlan}" if frame.vlan is not None else "no VLAN"
            expected = ", ".join(str(vlan) for vlan in have if vlan is not None) or "none"
            self._complain(frame.at, f"{_words(frame)} in {words}; its port's is {expected}")

    def _arrival(self, stay):
        ready, end = self._ready(stay), stay.stopped or self.now
        frames = self.by_stay[id(stay)]
        first = frames[0].at if frames else None
        stayed = max(0.0, end - ready) if ready else 0.0
        hit = tuple(fault.kind for fault in self._faults_of(stay, stay.began - 1, first or end))
        if first is None and stayed > DEADLINE_S:
            self._complain(end, f"{stay.guest} was not announced on {stay.host}, where it was ready for {stayed:.1f} s")
        return Arrival(stay.guest, stay.host, stay.began, ready, first, stayed, hit)

    def _ready(self, stay):
        """When the stay's guest ran, its port had its VLAN, and announced and what it listens to had no fault any more."""
        bound = [known for _, known, vlan in stay.bindings if vlan is not None]
        if not bound:
            return None
        ready = max(stay.began, bound[-1])
        first = min((frame.at for frame in self.by_stay[id(stay)]), default=stay.stopped or self.now)
        while lasting := [fault.end or self.now for fault in self._faults_of(stay, ready, max(ready, first))
                          if self.kinds[fault.kind].halts and (fault.end or self.now) > ready]:
            ready = max(lasting)
        return ready

    def _faults_of(self, stay, begin, end):
        return [fault for fault in self.faults if fault.where in (stay.host, stay.guest) and fault.overlaps(begin, end)]

    def _count(self, stay):
        """No more rounds than the schedules that may have been begun, and what a queue of Open vSwitch may have kept for later."""
        end = stay.stopped or self.now
        sent = sum(frame.kind == ONE_PER_ROUND for frame in self.by_stay[id(stay)])
        kinds = [self.kinds[fault.kind] for fault in self._faults_of(stay, stay.began - 1, end)]
        most = self.rounds * (len(stay.runs) + sum(kind.anew for kind in kinds)) + EARLY_ROUNDS * self.peers
        if any(self.kinds[fault.kind].loses for fault in self._faults_of(stay, stay.began - LOSES_S, end)):
            most += RESENT_AT_FIRST + int(RESENT_PER_S * (end - stay.began))
        if sent > most:
            self._complain(self.by_stay[id(stay)][-1].at,
                           f"{stay.guest} was announced in {sent} rounds on {stay.host}, {most} at most are due")

    def _complain(self, at, words):
        begun = [fault.number for fault in self.faults if fault.begin <= at]
        self.violations.append(Violation(at, words, max([0, *begun])))

    def delays(self):
        """First-frame delays in ms by the kind of fault that hit the arrival: how many, median, p99 and the worst."""
        by_kind = collections.defaultdict(list)
        for arrival in self.arrivals:
            if arrival.delay is not None:
                for kind in set(arrival.faults) or {"none"}:
                    by_kind[kind].append(arrival.delay * 1e3)
        return {kind: spread(values) for kind, values in sorted(by_kind.items())}


def _beyond(stay, at):
    """How long after the last run of that stay that is; 0 in one."""
    begun = [run for run in stay.runs if run[0] <= at]
    return 0.0 if any(end is None or at <= end for _, end in begun) else at - max(end for _, end in begun)


def _switches_over(stays, at):
    """Whether the guest of these stays had run before, and stood still then."""
    last = next((stay for stay in reversed(stays) if stay.began <= at), None)
    return last is not None and _beyond(last, at) > 0


def _words(frame):
    return f"{frame.guest} sends {frame.kind} on {frame.host}"


def spread(values):
    """How many, the median, the 99th of a hundred, and the worst."""
    values = sorted(values)
    p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
    return {"count": len(values), "median": statistics.median(values), "p99": p99, "max": values[-1]}
