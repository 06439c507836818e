"""What the audit complains of, and what it lets pass."""

import unittest

from .audit import DEADLINE_S, Audit, Fault, Frame
from .faults import KINDS
from .life import Stay

ROUNDS = 2
# From 100 to 110 it runs on h1 in VLAN 101, from 111 on h2 in VLAN 201.
LEAVES, COMES, NOW = 110.0, 111.0, 120.0


def stays():
    return [
        Stay("g1", "h1", [[100.0, LEAVES]], 110.5, [(99.0, 99.1, 101)]),
        Stay("g1", "h2", [[COMES, None]], None, [(110.2, 110.3, None), (111.9, 112.0, 201)]),
    ]


def rarp(at, host="h2", vlan=201):
    return Frame(at, host, "g1", vlan, "rarp")


AT_HOME = [rarp(100.1, "h1", 101)]


class AuditTest(unittest.TestCase):
    def audit(self, *frames, faults=(), peers=False, of=None, now=NOW):
        return Audit(of or stays(), [*AT_HOME, *frames], list(faults), KINDS, ROUNDS, peers, now)

    def complains(self, words, *frames, **more):
        said = [violation.words for violation in self.audit(*frames, **more).violations]
        self.assertEqual(len(said), 1, said)
        self.assertIn(words, said[0])

    def passes(self, *frames, **more):
        self.assertEqual(self.audit(*frames, **more).violations, [])

    def test_frames_of_a_guest_where_it_runs_in_the_vlan_of_its_port(self):
        self.passes(rarp(112.001), rarp(112.1))

    def test_a_frame_may_be_on_its_way_when_the_guest_stops_and_no_longer(self):
        self.passes(rarp(LEAVES + 0.05, "h1", 101))
        self.complains("0.300 s after it stopped there", rarp(LEAVES + 0.3, "h1", 101))

    def test_two_rounds_may_be_in_an_open_vswitch_that_stands_still(self):
        late = [rarp(LEAVES + 0.5 + number / 1000, "h1", 101) for number in range(3)]
        stands_still = Fault(1, "stop-ovs-vswitchd", "h1", LEAVES - 0.5, LEAVES + 0.4)
        self.passes(*late[:2], faults=[stands_still])
        self.passes(*late[:2], faults=[Fault(1, "kill-ovsdb-server", "h1", LEAVES - 0.5, LEAVES - 0.1)])
        self.complains("0.502 s after it stopped there", *late, faults=[stands_still])
        self.complains("0.500 s", late[0], faults=[Fault(1, "stop-ovs-vswitchd", "h2", LEAVES - 0.5, LEAVES + 0.4)])
        self.complains("0.500 s", late[0], faults=[Fault(1, "stop-announced", "h1", LEAVES - 0.5, LEAVES + 0.4)])
        self.complains("5.000 s", rarp(LEAVES + 5, "h1", 101), faults=[stands_still])
        self.complains("0.500 s", late[0], faults=[Fault(1, "kill-ovs-vswitchd", "h1", LEAVES - 0.5, LEAVES + 0.4)])
        self.complains("0.500 s", late[0], faults=[Fault(1, "stop-ovs-vswitchd", "h1", LEAVES - 8, LEAVES - 5)])

    def test_a_frame_from_a_host_where_the_guest_has_never_run(self):
        self.complains("g1 sends rarp on h3, where it has never run", rarp(112.5, "h3"))

    def test_a_frame_before_the_guest_runs(self):
        self.complains("where it has never run", rarp(COMES - 0.2))

    def test_with_peers_it_may_leave_when_the_source_has_stopped(self):
        of = stays()
        of[1].bindings = [(109.0, 109.1, 201)]
        self.passes(rarp(COMES - 0.2), peers=True, of=of)
        self.complains("where it has never run", rarp(LEAVES - 0.2), peers=True, of=of)

    def test_a_frame_without_its_vlan_in_another_one_and_before_it_has_one(self):
        self.complains("in no VLAN; its port's is 201", rarp(112.5, vlan=None))
        self.complains("in VLAN 101; its port's is 201", rarp(112.5, vlan=101))
        self.complains("in VLAN 201; its port's is none", rarp(111.5))

    def test_more_rounds_than_are_due(self):
        rounds = [rarp(112.1 + number / 10) for number in range(2 * ROUNDS)]
        self.complains("in 4 rounds on h2, 2 at most", *rounds)
        self.passes(*rounds, faults=[Fault(1, "kill-announced", "h2", 112.15, 112.2)])
        self.complains("in 4 rounds", *rounds, faults=[Fault(1, "kill-announced", "h1", 112.15, 112.2)])
        self.passes(*rounds, faults=[Fault(1, "kill-ovsdb-server", "h2", COMES - 3, COMES - 2)])
        self.complains("in 4 rounds", *rounds, faults=[Fault(1, "kill-ovsdb-server", "h2", COMES - 6, COMES - 5)])

    def test_a_guest_that_is_not_announced(self):
        now = 112 + DEADLINE_S
        self.passes(now=now - 1)
        self.complains("was not announced on h2, where it was ready for 61.0 s", now=now + 1)
        self.passes(now=now + 1, faults=[Fault(1, "stop-libvirtd", "h2", 111.0, 115.0)])
        self.complains("was not announced", now=now + 1, faults=[Fault(1, "full-disk", "h2", 111.0, 115.0)])

    def test_delays_count_from_when_all_that_is_needed_answers(self):
        def delays(*faults):
            return {kind: round(told["max"]) for kind, told in self.audit(rarp(112.25), faults=faults).delays().items()}

        self.assertEqual(delays(), {"none": 250})
        self.assertEqual(delays(Fault(1, "stop-announced", "h2", 111.5, 112.2)), {"none": 100, "stop-announced": 50})
        self.assertEqual(delays(Fault(1, "clock", "h2", 111.5, 112.2)), {"none": 100, "clock": 250})
        self.assertEqual(delays(Fault(1, "stop-announced", "h2", 111.5, 113.0)), {"none": 100, "stop-announced": 0})

    def test_a_complaint_has_the_last_fault_before_it(self):
        faults = [Fault(number, "reload", "h3", 100.0 + number) for number in (1, 12, 15)]
        violations = self.audit(rarp(113.0, vlan=7), faults=faults).violations
        self.assertEqual([violation.fault for violation in violations], [12])


if __name__ == "__main__":
    unittest.main()
