"""What a run comes to, for people and as JSON."""

import collections
import dataclasses
import json
import shlex

from .faults import KINDS


def tell(order, audit, faults, hosts, guests, journal, output):
    """Prints it, and returns the exit status."""
    violations = complaints(order, audit, faults, journal)
    left = [arrival for arrival in audit.arrivals if arrival.first is None]
    told = {
        "seed": order.seed,
        "arrivals": len(audit.arrivals),
        "announced": len(audit.arrivals) - len(left),
        "left_before": [
            {"guest": arrival.guest, "host": arrival.host, "at": round(arrival.began - journal.began, 3),
             "ready_ms": 1e3 * arrival.stayed, "faults": arrival.faults} for arrival in left
        ],
        "frames": len(audit.frames),
        "latest_after_stop_ms": 1e3 * audit.latest,
        "kept_by_open_vswitch": audit.kept.total(),
        "migrations_failed": sum(guest.failed for guest in guests),
        "guests_lost": sum(guest.lost for guest in guests),
        "faults": dict(collections.Counter(fault.kind for fault in faults.had)),
        "first_frame_ms": audit.delays(),
        "daemons": {host.name: [dataclasses.asdict(instance) for instance in host.announced.instances] for host in hosts},
        "violations": violations,
    }
    (output / "summary.json").write_text(json.dumps(told, indent=1))
    print(json.dumps(told) if order.json else text(told))
    return int(bool(violations))


def complaints(order, audit, faults, journal):
    """Each with the command that has the same faults come again."""
    had = [(violation.at, violation.words, violation.fault) for violation in audit.violations]
    for at, words in journal.complaints:
        had.append((at, words, max([0, *(fault.number for fault in faults.had if fault.begin <= at)])))
    return [
        {"at": round(at - journal.began, 3), "what": words, "replay": replay(order, fault)} for at, words, fault in sorted(had)
    ]


def replay(order, fault):
    """The command with the same faults in the same order, up to that one."""
    command = ["contrib/lab/chaos", "--seed", order.seed, "--faults", fault, "--guests", order.guests, "--every", order.every]
    command += ["--seconds", 60] * (fault == 0) + ["--peers"] * order.peers
    command += ["--kinds", *order.kinds] * (order.kinds != list(KINDS))
    return shlex.join(map(str, command))


def text(told):
    lines = [
        f"seed {told['seed']}: {told['arrivals']} arrivals, {told['announced']} announced; {len(told['left_before'])} left before, of "
        f"which none was ready for more than {max((left['ready_ms'] for left in told['left_before']), default=0):.0f} ms",
        f"{told['frames']} frames, none later than {told['latest_after_stop_ms']:.1f} ms after its guest had stopped, but for "
        f"{told['kept_by_open_vswitch']} that Open vSwitch had kept while it stood still; {told['migrations_failed']} migrations failed, "
        f"{told['guests_lost']} guests were lost and made anew",
        "",
        f"{'first frame, ms, by fault':28}{'faults':>8}{'arrivals':>10}{'median':>10}{'p99':>10}{'max':>10}",
    ]
    for kind in dict.fromkeys(["none", *told["faults"], *told["first_frame_ms"]]):
        delays = told["first_frame_ms"].get(kind)
        faults = told["faults"].get(kind, "")
        numbers = f"{delays['count']:>10}{delays['median']:>10.1f}{delays['p99']:>10.1f}{delays['max']:>10.1f}" if delays else ""
        lines.append(f"{kind:28}{faults:>8}{numbers}")
    lines += ["", f"{'announced':28}{'for s':>8}{'private kB':>16}{'descriptors':>14}{'threads':>10}"]
    for host, instances in told["daemons"].items():
        for instance in (instance for instance in instances if instance["end"]):
            begin, end = instance["begin"], instance["end"]
            grew = [f"{begin[what]} → {end[what]}" for what in ("private_kb", "descriptors", "threads")]
            lines.append(f"{host:28}{instance['seconds']:>8.0f}{grew[0]:>16}{grew[1]:>14}{grew[2]:>10}")
    lines.append("")
    for violation in told["violations"]:
        lines += [f"violation at {violation['at']} s: {violation['what']}", f"    {violation['replay']}"]
    return "\n".join(lines + ["no violation"] * (not told["violations"]))
