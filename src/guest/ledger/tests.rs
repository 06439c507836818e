//! Random and chosen histories of guests: what is announced, what stays owed, what the next daemon takes over.

use super::*;
use crate::guest::Known;
use crate::guest::domain::{Domain, Interface};
use crate::guest::event::lifecycle;
use crate::guest::target;
use pnet_base::MacAddr;

const CAUSES: [Cause; 4] = [Cause::Migrated, Cause::Restored, Cause::Plugged, Cause::Kept];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A guest "u" with a NIC for each alias, all of one MAC.
fn known(aliases: &[&str]) -> Vec<Nic> {
    let nic = |alias: &&str| Interface {
        kind: "bridge".into(),
        mac: Some(MacAddr(0x52, 0x54, 0, 0, 0, 1)),
        alias: Some((*alias).into()),
        device: Some(format!("tap-{alias}")),
        ..Interface::default()
    };
    let interfaces = aliases.iter().map(nic).collect();
    let domain = Domain { name: "web1".into(), uuid: "u".into(), interfaces, ..Domain::default() };
    target::nics(Known { addresses: vec![Vec::new(); aliases.len()], gateways: Vec::new(), domain }, |_| None)
}

/// A ledger that returns its actions as text.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) ledger: Ledger,
    now: u64,
    /// The number of the most recent reading.
    reading: u64,
    /// The numbers of the announcements begun, by alias.
    runs: BTreeMap<String, u64>,
    /// The guests, as they were shown guest by guest.
    shown: BTreeMap<Arc<str>, (String, bool)>,
}

impl Desk {
    fn told(&mut self, actions: Vec<Action>) -> Vec<String> {
        self.show();
        let words = actions.into_iter().filter_map(|action| match action {
            Action::State { state: LEFT, .. } => Some("left".into()),
            Action::State { .. } => None,
            Action::Read { reading, .. } => {
                self.reading = reading;
                Some("read".into())
            }
            Action::Event(cause) => Some(format!("event {}", cause.word())),
            Action::Announce { run, target, cause, at, .. } => {
                let alias = target.plug.device.unwrap().replace("tap-", "");
                let words = format!("{} {alias} since {}", cause.word(), at.as_millis());
                self.runs.insert(alias, run);
                Some(words)
            }
            Action::Supersede(_) => Some("supersede".into()),
            Action::Early { target, at, .. } => {
                let alias = target.plug.device.unwrap().replace("tap-", "");
                Some(format!("early {alias} since {}", at.as_millis()))
            }
            Action::EndEarly { runs_here, .. } => Some(if runs_here { "relieve" } else { "abandon" }.into()),
            Action::Tell { word, .. } => Some(format!("tell {word:?}")),
            Action::CannotSpeakFor(nic) => Some(nic.reason),
        });
        words.collect()
    }

    fn show(&mut self) {
        for uuid in self.ledger.take_renewed() {
            match self.ledger.here(&uuid).map(|(name, runs)| (name.to_owned(), runs)) {
                Some(here) => drop(self.shown.insert(uuid, here)),
                None => drop(self.shown.remove(&uuid)),
            }
        }
        let is_shown = |uuid: &Arc<str>| {
            let shown = self.shown.get(uuid).map(|(name, runs)| (name.as_str(), *runs));
            shown == self.ledger.here(uuid)
        };
        assert!(self.ledger.guests.keys().all(is_shown) && self.shown.len() == self.ledger.len());
    }

    pub(super) fn change(&mut self, change: &Change) -> Vec<String> {
        self.now += 1;
        let actions = self.ledger.change("u", Some(1), change, &CAUSES, ms(self.now));
        self.told(actions)
    }

    /// libvirt's event and its detail.
    pub(super) fn event(&mut self, event: i32, detail: i32) -> Vec<String> {
        self.change(&lifecycle(event, detail).unwrap())
    }

    fn plug(&mut self, alias: &str) -> Vec<String> {
        self.change(&Change::Plugged(alias.into()))
    }

    pub(super) fn list(&mut self, guests: &[(u32, bool, Option<Cause>)], strangers: bool) -> Vec<String> {
        self.now += 1;
        let present = |(id, runs, cause): &(u32, bool, Option<Cause>)| Present {
            uuid: "u".into(),
            name: "web1".into(),
            id: Some(*id),
            runs: *runs,
            cause: *cause,
        };
        let present: Vec<_> = guests.iter().map(present).collect();
        let actions = self.ledger.reconcile(&present, strangers, &CAUSES, ms(self.now));
        self.told(actions)
    }

    /// The guest was read and has these NICs.
    pub(super) fn read(&mut self, aliases: &[&str]) -> Vec<String> {
        self.now += 1;
        let actions = self.ledger.read("u", self.reading, Some(known(aliases)), ms(self.now));
        self.told(actions)
    }

    /// The source's daemon says that it has stopped there.
    pub(super) fn source_stopped(&mut self) -> (handover::Heed, Vec<String>) {
        self.now += 1;
        let (heed, actions) = self.ledger.source_stopped("u", ms(self.now));
        (heed, self.told(actions))
    }

    pub(super) fn source_kept(&mut self) -> Vec<String> {
        let actions = self.ledger.source_kept("u");
        self.told(actions)
    }

    fn read_again(&mut self) -> Vec<String> {
        self.now += 1;
        let actions = self.ledger.read_again(ms(self.now));
        self.told(actions)
    }

    pub(super) fn ended(&mut self, alias: &str, how: Ended) -> Vec<String> {
        self.now += 1;
        let actions = self.ledger.ended("u", self.runs[alias], how, ms(self.now));
        self.told(actions)
    }

    /// The same guests, as the next daemon finds them.
    pub(super) fn restarted(self) -> Desk {
        let kept = serde_json::to_string(&self.ledger).unwrap();
        let ledger: Ledger = serde_json::from_str(&kept).unwrap();
        let here = |uuid: &Arc<str>| ledger.here(uuid).map(|(name, runs)| (name.to_owned(), runs)).unwrap();
        let shown = ledger.guests.keys().map(|uuid| (uuid.clone(), here(uuid))).collect();
        Desk { ledger, shown, ..Desk::default() }
    }

    /// A guest with a NIC "net0" that was here before the daemon.
    fn settled() -> Desk {
        let mut desk = Desk::default();
        assert_eq!(desk.list(&[(1, true, None)], false), NOTHING);
        desk
    }

    /// A guest with two NICs that has just arrived, during its announcement.
    fn announcing() -> Desk {
        let mut desk = Desk::default();
        desk.event(2, 1);
        desk.read(&["net0", "net1"]);
        assert_eq!(desk.event(4, 1), ["event migrated", "migrated net0 since 3", "migrated net1 since 3"]);
        desk
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn pre_copy_is_read_while_it_arrives_and_announced_when_it_runs() {
    let mut desk = Desk::announcing();
    assert_eq!(desk.ended("net0", Ended::Done), NOTHING);
    assert!(desk.ledger.is_anything_pending());
    assert_eq!(desk.ended("net1", Ended::Done), NOTHING);
    assert!(!desk.ledger.is_anything_pending());
}

#[test]
fn two_nics_of_one_mac_are_two_nics() {
    let desk = Desk::announcing();
    assert_eq!(desk.runs.len(), 2);
}

#[test]
fn a_guest_that_runs_before_it_was_read_is_counted_once_and_timed_from_its_first_event() {
    let mut desk = Desk::default();
    assert_eq!(desk.event(2, 1), ["read"]);
    assert_eq!(desk.event(4, 3), ["event migrated"]);
    assert_eq!(desk.event(4, 1), NOTHING, "post-copy says it twice");
    assert_eq!(desk.list(&[(1, true, Some(Cause::Migrated))], true), NOTHING, "it is being read already");
    assert_eq!(desk.read(&["net0"]), ["migrated net0 since 2"]);
}

#[test]
fn post_copy_is_announced_at_the_switch_over_and_not_again_at_its_end() {
    let mut desk = Desk::announcing();
    desk.ended("net0", Ended::Done);
    desk.ended("net1", Ended::Done);
    assert_eq!(desk.event(4, 1), NOTHING);
}

#[test]
fn a_guest_that_arrived_paused_is_announced_when_it_is_unpaused() {
    let mut desk = Desk::default();
    assert_eq!(desk.event(2, 1), ["read"]);
    assert_eq!(desk.event(3, 0), NOTHING);
    assert_eq!(desk.read(&["net0"]), NOTHING);
    assert_eq!(desk.event(4, 0), ["event migrated", "migrated net0 since 4"]);
}

#[test]
fn a_guest_that_is_paused_during_its_burst_is_announced_again_when_it_resumes() {
    let mut desk = Desk::announcing();
    assert_eq!(desk.event(3, 0), NOTHING);
    assert_eq!(desk.ended("net0", Ended::Paused), ["read"]);
    assert_eq!(desk.read(&["net0", "net1"]), NOTHING);
    assert_eq!(desk.ended("net1", Ended::Paused), NOTHING);
    let again = ["event migrated", "migrated net0 since 8", "migrated net1 since 8"];
    assert_eq!(desk.event(4, 0), again);
}

#[test]
fn a_guest_that_resumes_before_its_announcement_has_ended_is_announced_again() {
    let mut desk = Desk::announcing();
    desk.event(3, 0);
    assert_eq!(desk.event(4, 0), NOTHING, "it is under way");
    assert_eq!(desk.ended("net0", Ended::Paused), ["event migrated", "read"]);
    let again = ["migrated net0 since 6", "supersede", "migrated net1 since 6"];
    assert_eq!(desk.read(&["net0", "net1"]), again);
}

#[test]
fn a_guest_that_sleeps_during_its_burst_is_announced_again_when_it_wakes_up() {
    let mut desk = Desk::announcing();
    desk.event(7, 0);
    desk.ended("net0", Ended::Paused);
    desk.read(&["net0"]);
    assert_eq!(desk.event(2, 4)[0], "event migrated");
}

#[test]
fn a_restored_guest_is_announced() {
    let mut desk = Desk::default();
    assert_eq!(desk.event(2, 2), ["read"]);
    desk.read(&["net0"]);
    assert_eq!(desk.event(4, 2), ["event restored", "restored net0 since 3"]);
}

#[test]
fn a_failed_migration_announces_nothing() {
    let mut desk = Desk::default();
    assert_eq!(desk.event(2, 1), ["read"]);
    assert_eq!(desk.event(5, 5), ["left"]);
    assert_eq!(desk.read(&["net0"]), NOTHING);
    assert_eq!(desk.ledger.len(), 0);
}

#[test]
fn a_cold_start_and_a_resume_are_not_announced_unless_configured() {
    let mut desk = Desk::default();
    assert_eq!((desk.event(4, 0).len(), desk.event(2, 0).len()), (0, 0));
    assert_eq!((desk.event(3, 0).len(), desk.event(4, 0).len()), (0, 0));
    let started = desk.ledger.change("u", Some(1), &Change::Booted, &[Cause::Started], ms(9));
    assert_eq!(desk.told(started), ["event started", "read"]);
}

#[test]
fn a_guest_that_was_here_before_the_first_list_is_not_announced() {
    let mut desk = Desk::default();
    let here = [(1, true, Some(Cause::Migrated))];
    assert_eq!(desk.list(&here, false), NOTHING);
    assert_eq!(desk.list(&here, true), NOTHING);
}

#[test]
fn a_guest_that_arrived_while_the_connection_was_down_is_announced() {
    let mut desk = Desk::default();
    assert_eq!(desk.list(&[(1, true, Some(Cause::Migrated))], true), ["event migrated", "read"]);
}

#[test]
fn a_guest_that_left_and_came_back_while_the_connection_was_down_is_announced() {
    let mut desk = Desk::settled();
    let back = [(2, true, Some(Cause::Migrated))];
    assert_eq!(
        desk.list(&back, true),
        ["left", "event migrated", "read"],
        "no announcement of its last life continues"
    );
}

#[test]
fn a_list_that_is_newer_than_the_arrival_changes_nothing() {
    let mut desk = Desk::default();
    assert_eq!(desk.list(&[(1, true, Some(Cause::Migrated))], true), ["event migrated", "read"]);
    assert_eq!(desk.read(&["net0"]), ["migrated net0 since 1"]);
    assert_eq!((desk.event(2, 1).len(), desk.event(4, 1).len()), (0, 0));
}

#[test]
fn the_arrival_is_more_exact_than_a_list_in_the_middle_of_it() {
    let restored_so_far = [(1, false, Some(Cause::Migrated))];
    let mut desk = Desk::default();
    assert_eq!(desk.list(&restored_so_far, true), ["read"]);
    assert_eq!(desk.event(2, 2), NOTHING);
    assert_eq!(desk.event(4, 2), ["event restored"]);
    assert_eq!(desk.read(&["net0"]), ["restored net0 since 3"]);

    let mut ledger = Ledger::default();
    let present = Present {
        uuid: "u".into(),
        name: "web1".into(),
        id: Some(1),
        runs: false,
        cause: Some(Cause::Migrated),
    };
    ledger.reconcile(&[present], true, &[Cause::Migrated], ms(1));
    assert!(ledger.is_anything_pending());
    ledger.change("u", Some(1), &Change::Arriving(Cause::Restored), &[Cause::Migrated], ms(2));
    assert!(!ledger.is_anything_pending(), "a restored guest is not asked for");
}

#[test]
fn the_next_daemon_finishes_what_was_under_way() {
    let mut desk = Desk::announcing().restarted();
    assert_eq!(desk.list(&[(1, true, Some(Cause::Migrated))], true), ["event migrated", "read"]);
    desk.read(&["net0"]);
    desk.ended("net0", Ended::Done);
    assert_eq!(desk.list(&[(1, true, Some(Cause::Migrated))], true), NOTHING);
}

#[test]
fn a_plugged_nic_is_announced_alone() {
    let mut desk = Desk::settled();
    assert_eq!(desk.plug("net1"), ["event plugged", "read"]);
    assert_eq!(desk.read(&["net0", "net1"]), ["plugged net1 since 2"]);
    desk.ended("net1", Ended::Done);
    assert!(!desk.ledger.is_anything_pending());
}

#[test]
fn the_next_daemon_announces_a_plugged_nic() {
    let mut desk = Desk::settled();
    desk.plug("net1");
    desk.read(&["net0", "net1"]);
    let mut next = desk.restarted();
    assert_eq!(next.list(&[(1, true, None)], true), ["read"]);
    assert_eq!(next.read(&["net0", "net1"]), ["plugged net1 since 2"]);
}

#[test]
fn a_plugged_nic_stays_owed_while_others_end_their_announcements() {
    let mut desk = Desk::announcing();
    assert_eq!(desk.plug("net2"), ["event plugged", "read"]);
    desk.ended("net0", Ended::Done);
    desk.ended("net1", Ended::Done);
    assert!(desk.ledger.is_anything_pending());
    let mut next = desk.restarted();
    assert_eq!(next.list(&[(1, true, None)], true), ["read"]);
    assert_eq!(next.read(&["net0", "net1", "net2"]), ["plugged net2 since 2"]);
}

#[test]
fn a_nic_that_is_plugged_while_the_guest_arrives_is_announced_with_all_others() {
    let mut desk = Desk::default();
    desk.event(2, 1);
    desk.read(&["net0"]);
    assert_eq!(desk.plug("net1"), ["event plugged", "read"], "what was read lacks it");
    desk.read(&["net0", "net1"]);
    assert_eq!(desk.event(4, 1).len(), 3);
}

#[test]
fn a_nic_that_is_plugged_again_under_its_old_name_is_another_one() {
    let mut desk = Desk::settled();
    desk.plug("net1");
    desk.read(&["net0", "net1"]);
    assert_eq!(desk.plug("net1"), ["supersede", "event plugged", "read"]);
    assert_eq!(desk.ended("net1", Ended::Done), NOTHING, "that was the old one");
    assert!(desk.ledger.is_anything_pending());
    assert_eq!(desk.read(&["net0", "net1"]), ["plugged net1 since 4"]);
}

#[test]
fn a_plugged_device_that_is_no_nic_is_not_announced() {
    let mut desk = Desk::settled();
    desk.plug("ua-disk");
    assert_eq!(desk.read(&["net0"]), NOTHING);
    assert!(!desk.ledger.is_anything_pending());
}

#[test]
fn a_guest_that_cannot_be_read_is_read_again_at_its_next_event() {
    let mut desk = Desk::default();
    desk.event(2, 1);
    let unread = desk.ledger.read("u", desk.reading, None, ms(2));
    assert_eq!(desk.told(unread), NOTHING);
    assert!(!desk.ledger.is_anything_pending(), "nothing can be done for it now");
    assert_eq!(desk.event(4, 1), ["event migrated", "read"]);
}

#[test]
fn an_interrupted_announcement_begins_again_at_the_next_event_of_the_guest() {
    let mut desk = Desk::announcing();
    desk.ended("net1", Ended::Done);
    assert_eq!(desk.ended("net0", Ended::BrokenOff), NOTHING);
    assert!(desk.ledger.is_anything_pending());
    assert_eq!(desk.list(&[(1, true, None)], true), ["event migrated", "read"]);
}

#[test]
fn a_guest_that_left_while_the_connection_was_down_is_forgotten() {
    let mut desk = Desk::announcing();
    assert_eq!(desk.list(&[], true), ["left"]);
    assert_eq!(desk.ledger.len(), 0);
}

#[test]
fn the_guests_that_the_last_daemon_knew_are_shown_when_libvirt_lists_them() {
    let kept = serde_json::to_string(&Desk::settled().ledger).unwrap();
    let mut desk = Desk { ledger: serde_json::from_str(&kept).unwrap(), ..Desk::default() };
    desk.list(&[(1, true, None)], true);
    assert_eq!(desk.shown["u"], ("web1".to_owned(), true));
}

#[test]
fn state_of_other_versions_is_read() {
    let old = r#"{"guests":{"u":{"id":1,"pending":"migrated"},"v":{"id":null,"pending":null}}}"#;
    let mut desk = Desk { ledger: serde_json::from_str(old).unwrap(), ..Desk::default() };
    assert!(!desk.ledger.guests["v"].is_anything_owed());
    assert_eq!(desk.list(&[(1, true, None)], true)[1], "event migrated");
    let later = r#"{"guests":{"u":{"id":1,"pending":"teleported","more":1}},"more":[]}"#;
    let ledger: Ledger = serde_json::from_str(later).unwrap();
    assert!(ledger.guests["u"].is_anything_owed(), "whatever the cause");
}

#[test]
fn the_version_before_can_read_the_state() {
    let desk = Desk::announcing();
    let kept = serde_json::to_value(&desk.ledger).unwrap();
    assert_eq!(kept, serde_json::json!({"guests": {"u": {"id": 1, "pending": "migrated"}}}));
    let mut desk = Desk::settled();
    desk.plug("net1");
    let kept = serde_json::to_value(&desk.ledger).unwrap();
    let guest = serde_json::json!({"id": 1, "name": "web1", "pending": null, "plugged": ["net1"]});
    assert_eq!(kept["guests"]["u"], guest);
}

#[test]
fn a_guest_that_libvirt_does_not_tell_of_is_announced_by_what_else_is_known_and_again_when_it_does() {
    let mut desk = Desk::default();
    assert_eq!(desk.event(2, 1), ["read"], "it arrives");
    let unanswered = |desk: &mut Desk| {
        desk.now += 1;
        let actions = desk.ledger.unanswered("u", desk.reading, known(&["spare"]), ms(desk.now));
        desk.told(actions)
    };
    assert_eq!(unanswered(&mut desk), [""; 0], "nothing says that it runs");
    assert_eq!(desk.event(4, 1), ["event migrated"]);
    assert_eq!(unanswered(&mut desk), ["migrated spare since 3"]);
    assert_eq!(unanswered(&mut desk), [""; 0], "once");
    assert_eq!(desk.ended("spare", Ended::Done), [""; 0]);
    assert!(desk.ledger.is_anything_pending(), "its addresses are still owed");
    assert_eq!(desk.read(&["net0"]), ["migrated net0 since 3"]);
    assert_eq!(desk.ended("net0", Ended::Done), [""; 0]);
    assert!(!desk.ledger.is_anything_pending());
}

#[test]
fn what_is_announced_without_the_xml_ends_when_that_comes() {
    let mut desk = Desk::default();
    desk.event(2, 1);
    desk.event(4, 1);
    let actions = desk.ledger.unanswered("u", desk.reading, known(&["spare"]), ms(9));
    assert_eq!(desk.told(actions), ["migrated spare since 2"]);
    assert_eq!(desk.read(&["net0"]), ["supersede", "migrated net0 since 2"]);
}

#[test]
fn a_nic_to_which_something_happens_is_announced_alone_for_that() {
    let mut desk = Desk::settled();
    let moved = Change::Touched(Cause::Moved, "net0".into());
    assert_eq!(desk.change(&moved), [""; 0], "that is not configured");
    let mut change = |causes: &[Cause]| {
        desk.now += 1;
        let actions = desk.ledger.change("u", Some(1), &moved, causes, ms(desk.now));
        desk.told(actions)
    };
    assert_eq!(change(&[Cause::Moved]), ["event moved", "read"]);
    let since = desk.now;
    assert_eq!(desk.read(&["net0", "net1"]), [format!("moved net0 since {since}")]);
    let stranger = Change::Touched(Cause::Moved, "net0".into());
    assert!(desk.ledger.change("v", None, &stranger, &[Cause::Moved], ms(99)).is_empty());
}

#[test]
fn a_guest_that_arrives_is_read_again_for_other_sources_of_addresses() {
    let mut desk = Desk::default();
    assert_eq!(desk.event(2, 1), ["read"]);
    assert_eq!(desk.read_again(), ["read"], "while it is being read");
    assert_eq!(desk.read(&["net0"]), NOTHING);
    assert_eq!(desk.read_again(), ["read"], "and after that");
    assert_eq!(desk.event(4, 1), ["event migrated"]);
    assert_eq!(desk.read(&["net0"]).len(), 1);
    assert_eq!(desk.read_again(), NOTHING, "its announcement is under way");
}
