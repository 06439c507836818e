"""What was measured, as a table and as pictures."""

import collections
import json
import math
import os
import statistics

from . import picture
from .case import CURES, FABRICS, GROUPS, MEMBERS, SCENARIOS, TENANTS, Case

NEVER = math.inf


class NoRecords(Exception):
    """There are none, or something else is in their place."""


def write(directory, records):
    """records.json, table.md and one picture of each case, of its worst run; of each scenario all its cures in one."""
    write_records(directory, records)
    (directory / "table.md").write_text(table(records))
    for case, runs in by_case(records).items():
        (directory / f"{case.slug}.svg").write_text(picture.of_case(worst(runs)))
    for number, case in SCENARIOS.items():
        shown = {of.cure: worst(runs) for of, runs in by_case(records).items() if of.is_scenario(case)}
        if len(shown) == len(case.shown_cures):
            drawing = picture.of_scenario(number, [shown[cure] for cure in case.shown_cures])
            (directory / f"scenario-{number}.svg").write_text(drawing)


def write_records(directory, records):
    """All that is known so far; a concurrent reader sees all of it, or the previous state."""
    unfinished = directory / "records.json.new"
    unfinished.write_text(json.dumps(records, indent=1))
    os.replace(unfinished, directory / "records.json")


def has_records(directory):
    """Whether `read_records` has something to read there."""
    return (directory / "records.json").exists()


def read_records(directory):
    """What `write_records` wrote there."""
    file = directory / "records.json"
    if not has_records(directory):
        raise NoRecords(f"{file} is not there: measure something first, or give another --output")
    try:
        records = json.loads(file.read_text())
    except ValueError as error:
        raise NoRecords(f"{file} is none of ours: {error}") from error
    # What the first version of the lab lacked. It also let QEMU stop the guest for longer.
    if not all("error" in record or "port" in record["timeline"] for record in records):
        raise NoRecords(f"{file} is an older lab's: measure anew, to another --output")
    return records


def by_case(records):
    """The runs of each case that were measured, in the order of the matrix."""
    cases = collections.defaultdict(list)
    for record in records:
        if "error" not in record:
            cases[Case(**record["case"])].append(record)
    return dict(sorted(cases.items(), key=lambda item: item[0].rank))


def worst(runs):
    """The run whose outages are the longest."""
    def outages(run):
        groups = [never_or(run["probes"][name]["outage_ms"]) for name in GROUPS if name in run["probes"]]
        return [*groups, *(slowest(run, name, "outage_ms") for name in reversed(TENANTS))]
    return max(runs, key=outages)


def slowest(run, tenant, what):
    """The larger one of what its probes have measured, if it pings by IPv6, too."""
    return max(never_or(probe[what]) for probe in of_tenant(run, tenant))


def of_tenant(run, tenant):
    """What its pings to VM1's own addresses have measured."""
    return [probe for name, probe in run["probes"].items() if name.split("-")[0] == tenant and name not in GROUPS]


def never_or(value):
    """A number that is larger than all others instead of `None`."""
    return NEVER if value is None else value


HEAD = ["attachment", "migration", "tag", "vendor", "announced by", "runs", "stood still", "VM2 out", "VM3 out",
        "first frame", "VM2 asks", "hears", "VM3 asks", "hears", "frames"]
NOTE = """
Median / worst, in ms. Stood still: how long the guest ran nowhere. Out: how long pings went unanswered; "never": to the end
of the window. First frame on host 3's uplink; asks: the first ping that was answered was sent; hears: its answer came; all
since the guest ran and its port had its VLAN. Frames: those of the run with the most.
"""


def table(records):
    """In Markdown, one row per case: the median and the worst of its runs."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for case, runs in by_case(records).items():
        cells = [case.attachment, case.mode, case.tag_words, "FRR" if case.attachment in FABRICS else case.vendor, CURES[case.cure], str(len(runs))]
        cells.append(median_and_worst([still(run) for run in runs]))
        cells += [median_and_worst([slowest(run, name, "outage_ms") for run in runs]) for name in TENANTS]
        cells.append(median_and_worst([run["moments_ms"]["first_frame_after"] for run in runs]))
        for name in TENANTS:
            for what in ("asked_after_ms", "back_after_ms"):
                cells.append(median_and_worst([slowest(run, name, what) for run in runs]))
        cells.append(frames(runs))
        lines.append("| " + " | ".join(cells) + " |")
    lines += [f"\n{Case(**record['case']).slug} failed: {record['error']}" for record in records if "error" in record]
    return "\n".join(lines) + "\n" + NOTE + fabrics(records) + handovers(records) + multicasts(records)


FABRIC_HEAD = ["attachment", "announced by", "runs", "VM2 loses", "VM3 loses", "VM2 slow", "VM3 slow", "MAC-IP route back",
               "BGP UPDATEs per leaf", "load"]
FABRIC_NOTE = """
In a fabric, median / worst, in ms since the guest runs, of IPv4 and IPv6. Loses: when the last ping was sent that was never
answered; "never": to the end of the window. Slow: the last one that was not answered within 50 ms. MAC-IP route: VM1's IPv4 address,
as leaf 2 sees it. BGP UPDATEs: of the leaf that sends the most, from the migration to the end of the window. Load: the machine's, worst.
"""


def fabrics(records):
    """What counts in a fabric, and the switch model has nothing of; empty without any."""
    cases = [(case, runs) for case, runs in by_case(records).items() if case.attachment in FABRICS]
    if not cases:
        return ""
    lines = ["", "| " + " | ".join(FABRIC_HEAD) + " |", "|" + "---|" * len(FABRIC_HEAD)]
    for case, runs in cases:
        cells = [case.attachment, CURES[case.cure], str(len(runs))]
        for what in ("lost_until_ms", "slow_until_ms"):
            cells += [median_and_worst([until(run, name, what) for run in runs]) for name in TENANTS]
        cells.append(median_and_worst([run["moments_ms"]["switch_arp_moved"] for run in runs]))
        cells.append(median_and_worst([max(run["bgp_updates"].values()) for run in runs]))
        cells.append(f"{max(run['load'] for run in runs):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" + FABRIC_NOTE


HANDOVER_HEAD = ["attachment", "migration", "vendor", "switch-over", "announced by", "runs", "stood still", "first frame",
                 "VM2 lost", "VM3 lost", "VM2 back", "VM3 back", "VM2 TCP gap", "VM3 TCP gap", "VM2 RTOs", "VM3 RTOs", "load"]
HANDOVER_NOTE = """
Median / worst. Switch-over: for how many ms the guest stood still at least, and whether it then ran on at its source. First frame: ms from
its stop, on host 3's uplink. Lost: pings, one each 10 ms. Back: when the last ping of the outage was sent that was not answered, in ms since
the guest runs. TCP gap: the longest time without a line of the stream, in ms; RTOs: retransmission time-outs of its sender.
"""


def handovers(records):
    """What counts where the guest's stop is heard of; empty without any such case."""
    cases = [(case, runs) for case, runs in by_case(records).items() if case.stream]
    if not cases:
        return ""
    lines = ["", "| " + " | ".join(HANDOVER_HEAD) + " |", "|" + "---|" * len(HANDOVER_HEAD)]
    for case, runs in cases:
        over = (f"{case.switch_over}" if case.switch_over else "QEMU's") + (f", {case.fails}" if case.fails else "")
        cells = [case.attachment, case.mode, "FRR" if case.attachment in FABRICS else case.vendor, over + ", busy" * case.busy, CURES[case.cure], str(len(runs))]
        cells.append(median_and_worst([still(run) for run in runs]))
        cells.append(median_and_worst([run["moments_ms"]["first_frame_after_stop"] for run in runs]))
        for what in ("lost", "last_lost_ms"):
            cells += [median_and_worst([probe(run, name, what) for run in runs]) for name in TENANTS]
        for what in ("longest_gap_ms", "timeouts"):
            cells += [median_and_worst([run["streams"][name][what] for run in runs]) for name in TENANTS]
        cells.append(f"{max(run['load'] for run in runs):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" + HANDOVER_NOTE


MULTICAST_HEAD = ["attachment", "VM1 speaks", "announced by", "runs", *(f"{family} group out" for family in GROUPS.values()),
                  *(f"{family} again" for family in GROUPS.values()), "IGMP report", "MLD report", "reports", "queried", "load"]
MULTICAST_NOTE = """
Multicast, median / worst, in ms. Out: how long VM1 answered no ping to the group, or "never" again to the end of the window. Again: when the
first ping to the group that was answered was sent, and reports: when VM1's first one left, both since the first frame on host 3's uplink;
their number is that of the run with the most. Queried: by the switch itself in so many of the runs.
"""


def multicasts(records):
    """What counts for groups; empty without any."""
    cases = [(case, runs) for case, runs in by_case(records).items() if case.multicast]
    if not cases:
        return ""
    lines = ["", "| " + " | ".join(MULTICAST_HEAD) + " |", "|" + "---|" * len(MULTICAST_HEAD)]
    for case, runs in cases:
        cells = [case.attachment, MEMBERS[case.multicast], CURES[case.cure], str(len(runs))]
        cells += [median_and_worst([run["probes"][name]["outage_ms"] for run in runs]) for name in GROUPS]
        cells += [median_and_worst([after_first_frame(run, run["probes"][name]["first_answered_ms"]) for run in runs]) for name in GROUPS]
        cells += [median_and_worst([first_report(run, kind) for run in runs]) for kind in ("igmp", "mld")]
        cells.append(str(max(len(run["timeline"]["reports"]) for run in runs)))
        cells.append(str(sum(run["moments_ms"]["switch_queried"] is not None for run in runs)))
        cells.append(f"{max(run['load'] for run in runs):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" + MULTICAST_NOTE


def after_first_frame(run, at):
    """A moment, counted from the first frame on host 3's uplink; `None` without either."""
    first = run["moments_ms"]["first_frame"]
    return None if at is None or first is None else round(at - first, 1)


def first_report(run, kind):
    """When VM1's first report of that kind left host 3, counted from the first frame; `None`: none left."""
    return after_first_frame(run, next((at for at, of in run["timeline"]["reports"] if of == kind), None))


def probe(run, name, what):
    """Of one tenant's pings; `None`: they were not answered any more."""
    found = run["probes"][name]
    return None if found["outage_ms"] is None else found[what] or 0


def until(run, tenant, what):
    """The later one of what its probes have measured; 0 without any such ping, never if it goes on to the window's end."""
    probes = of_tenant(run, tenant)
    if any(probe["outage_ms"] is None for probe in probes):
        return NEVER
    return max(probe[what] or 0 for probe in probes)


def still(record):
    """For how many ms the guest ran on neither host; `None`: libvirt did not say when it stopped."""
    suspended = record["moments_ms"]["suspended"]
    return None if suspended is None else -suspended


def median_and_worst(values):
    """`90 / 120`, or `never`."""
    values = [never_or(value) for value in values]
    words = ["never" if value == NEVER else str(round(value)) for value in (statistics.median_high(values), max(values))]
    return words[0] if words[0] == words[1] else " / ".join(words)


def frames(runs):
    """How many frames of each kind left host 3 in the run with the most of them."""
    most = max((run["frames"] for run in runs), key=lambda frames: sum(frames.values()))
    return ", ".join(f"{count} {kind}" for kind, count in sorted(most.items())) or "none"


def words(record):
    """A run in a few words."""
    if "error" in record:
        return record["error"].splitlines()[-1]
    said = [f"{name} {median_and_worst([probe['outage_ms']])}" for name, probe in record["probes"].items()]
    return ", ".join(said) + f" ms; {frames([record])}"
