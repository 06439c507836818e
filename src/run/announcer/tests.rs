//! One announcement, on the fake host and on Open vSwitch.

use super::*;
use crate::config::Config;
use crate::guest::target::{DomainId, Manager, Plug, Target};
use crate::run::fake::World;
use crate::run::testbed::{MAC, TAG, TAP, Testbed, on_both};

/// A quarter of a second is longer than any settling.
const WHILE: Duration = Duration::from_millis(250);

/// So many rounds that they are not over when something happens in their midst.
const LONGER: u32 = 40;

fn longer(bed: &Testbed) -> Config {
    let mut config = bed.config("");
    config.schedule.count = LONGER;
    config
}

/// An announcement under way.
struct Running {
    signals: Signals,
    task: tokio::task::JoinHandle<Box<Report>>,
}

async fn start(bed: &Testbed, more: &str) -> Running {
    start_with(bed, &bed.config(more)).await
}

async fn start_with(bed: &Testbed, config: &Config) -> Running {
    let domain = Some(DomainId { name: "web1".into(), uuid: "u".into() });
    let device = Plug { device: Some(TAP.into()), ..Plug::default() };
    let target = Target { domain, manager: Some(Manager::Nova), ..Target::of_device(device, MAC) };
    let order = Order::new(target, config, &["192.0.2.10".parse().unwrap()], None);
    let (host, began) = (bed.host(config).await, Instant::now());
    let signals = Signals::new(Arc::new(order), GuestState::Running, began);
    let task = tokio::spawn(announce(Arc::new(host), signals.clone(), began));
    Running { signals, task }
}

impl Running {
    /// Waits until it has said that it waits.
    async fn await_waiting(&self, bed: &Testbed) {
        let waits = || Some(()).filter(|()| !self.signals.standing().unmet.is_empty());
        bed.eventually("what it waits for", waits).await;
    }

    async fn end(self) -> Box<Report> {
        self.task.await.unwrap()
    }
}

/// Every frame has left in the port's VLAN.
fn assert_in_vlan(left: &[Option<u16>]) {
    assert!(left.iter().all(|vlan| *vlan == Some(TAG)), "{left:?}");
}

#[test]
fn a_ready_port_gets_every_round() {
    on_both(async |bed| {
        bed.bind(TAG).await;
        let report = start(&bed, "").await.end().await;
        assert_eq!(report.outcome, Outcome::Announced, "{report:?}");
        assert_eq!((report.rounds, report.evidence.lost_rounds), (3, 0));
        assert_in_vlan(&bed.await_left(9).await);
    });
}

#[test]
fn a_guest_is_queried_for_its_groups_also_where_there_is_only_one_round() {
    on_both(async |bed| {
        bed.bind(TAG).await;
        let mut config = bed.config("");
        config.schedule.count = 1;
        let report = start_with(&bed, &config).await.end().await;
        assert_eq!((report.outcome, report.rounds), (Outcome::Announced, 1), "{report:?}");
        let multicast =
            report.evidence.multicast.as_ref().map(|multicast| (multicast.queries, &multicast.unavailable));
        assert_eq!(multicast, Some((1, &None)));
    });
}

#[test]
fn nothing_leaves_before_ovs_vswitchd_has_carried_out_the_tag() {
    for counted in [true, false] {
        on_both(async |bed| {
            let announcement = start(&bed, "").await;
            announcement.await_waiting(&bed).await;
            bed.commit(Some(TAG), counted).await;
            tokio::time::sleep(WHILE).await;
            assert_eq!(bed.left(), []);
            bed.carry_out().await;
            let report = announcement.end().await;
            assert_eq!(report.outcome, Outcome::Announced, "{report:?}");
            assert_in_vlan(&bed.await_left(9).await);
        });
    }
}

#[test]
fn a_port_in_the_dead_vlan_gets_nothing() {
    on_both(async |bed| {
        bed.bind(4095).await;
        let announcement = start(&bed, "").await;
        announcement.await_waiting(&bed).await;
        tokio::time::sleep(WHILE).await;
        assert_eq!(bed.left(), []);
        bed.bind(TAG).await;
        assert_eq!(announcement.end().await.outcome, Outcome::Announced);
        assert_in_vlan(&bed.await_left(9).await);
    });
}

#[test]
fn a_tag_that_is_cleared_and_set_in_mid_burst_costs_no_round_and_no_frame_leaves_without_it() {
    for counted in [true, false] {
        on_both(async |bed| {
            bed.bind(TAG).await;
            let announcement = start_with(&bed, &longer(&bed)).await;
            bed.await_left(3).await;
            bed.commit(None, counted).await;
            bed.carry_out().await;
            tokio::time::sleep(WHILE).await;
            bed.commit(Some(TAG), counted).await;
            bed.carry_out().await;
            let report = announcement.end().await;
            assert_eq!(report.outcome, Outcome::Announced, "{report:?}");
            assert_eq!(report.rounds, LONGER);
            assert_in_vlan(&bed.await_left(3 * LONGER as usize).await);
        });
    }
}

#[test]
fn a_lost_round_is_sent_again_until_one_leaves() {
    on_both(async |bed| {
        bed.bind(TAG).await;
        bed.lose(true).await;
        let announcement = start(&bed, "").await;
        let is_lost = || Some(()).filter(|()| announcement.signals.standing().lost > 1);
        bed.eventually("lost rounds", is_lost).await;
        bed.lose(false).await;
        let report = announcement.end().await;
        assert_eq!(report.outcome, Outcome::Announced, "{report:?}");
        assert!(report.evidence.lost_rounds > 1, "{report:?}");
        assert_in_vlan(&bed.await_left(9).await);
    });
}

#[test]
fn a_bridge_that_hangs_delays_and_loses_nothing() {
    on_both(async |bed| {
        bed.bind(TAG).await;
        bed.hang(true).await;
        let announcement = start(&bed, "").await;
        tokio::time::sleep(WHILE).await;
        assert_eq!(bed.left(), []);
        bed.hang(false).await;
        let report = announcement.end().await;
        assert_eq!(report.outcome, Outcome::Announced, "{report:?}");
        assert_in_vlan(&bed.await_left(9).await);
    });
}

#[test]
fn a_bridge_that_hangs_for_long_is_not_sent_the_same_again_and_again() {
    on_both(async |bed| {
        bed.bind(TAG).await;
        bed.hang(true).await;
        let announcement = start(&bed, "").await;
        let is_lost = || Some(()).filter(|()| announcement.signals.standing().lost > 0);
        bed.eventually("a round that is lost in the bridge's queue", is_lost).await;
        tokio::time::sleep(4 * WHILE).await;
        assert!(announcement.signals.standing().lost < 5, "{:?}", announcement.signals.standing());
        bed.hang(false).await;
        let report = announcement.end().await;
        assert_eq!((report.outcome, report.rounds), (Outcome::Announced, 3), "{report:?}");
        assert_in_vlan(&bed.await_left(9).await);
    });
}

#[test]
fn a_port_that_loses_its_tag_while_the_bridge_hangs_gets_no_round_by_another_way() {
    on_both(async |bed| {
        bed.bind(TAG).await;
        let announcement = start_with(&bed, &longer(&bed)).await;
        bed.await_left(3).await;
        bed.hang(true).await;
        tokio::time::sleep(WHILE).await;
        bed.commit(None, false).await;
        announcement.await_waiting(&bed).await;
        // For longer than a bridge may take to answer.
        tokio::time::sleep(6 * WHILE).await;
        bed.carry_out().await;
        bed.hang(false).await;
        bed.bind(TAG).await;
        let report = announcement.end().await;
        assert_eq!((report.outcome, report.rounds), (Outcome::Announced, LONGER), "{report:?}");
        let all = 3 * LONGER as usize;
        let left = bed.await_left(all).await;
        assert!(report.evidence.lost_rounds > 0, "what the bridge had been told counts: {report:?}");
        // With that. On a busy machine, clearing the tag of the real one may take longer than a bridge may to
        // answer: then redirect was right.
        assert!(left.len() <= all + 3 || matches!(*bed, Testbed::Real(_)), "{left:?}");
    });
}

#[test]
fn a_guest_that_pauses_gets_nothing_until_it_runs_and_one_that_leaves_nothing_more() {
    on_both(async |bed| {
        let announcement = start_with(&bed, &longer(&bed)).await;
        announcement.signals.guest_is(GuestState::Paused("paused"));
        bed.bind(TAG).await;
        tokio::time::sleep(WHILE).await;
        assert_eq!(bed.left(), []);
        announcement.signals.guest_is(GuestState::Running);
        bed.await_left(3).await;
        announcement.signals.guest_is(GuestState::Left("migrated"));
        let report = announcement.end().await;
        assert_eq!(report.outcome, Outcome::Cancelled, "{report:?}");
        let at_the_end = bed.left().len();
        tokio::time::sleep(WHILE).await;
        let left = bed.left().len();
        // tcpdump may be late to tell.
        assert!(left == at_the_end || matches!(*bed, Testbed::Real(_)), "{at_the_end}, then {left}");
        tokio::time::sleep(WHILE).await;
        assert_eq!(bed.left().len(), left, "nothing after it has ended");
    });
}

#[tokio::test(start_paused = true)]
async fn what_has_happened_while_this_process_stood_still_is_heard_before_a_round_is_sent() {
    let bed = Testbed::Fake(World::new(&[TAP.into()]));
    bed.bind(TAG).await;
    let announcement = start(&bed, "").await;
    bed.await_left(3).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    announcement.signals.guest_is(GuestState::Left("migrated"));
    assert_eq!(announcement.end().await.outcome, Outcome::Cancelled);
    assert_eq!(bed.left().len(), 3, "the second round was due long ago");
}

#[tokio::test(start_paused = true)]
async fn a_method_that_can_be_prepared_and_never_works_is_given_up_in_time() {
    let world = World::new(&[TAP.into()]);
    world.refuse(u32::MAX);
    let bed = Testbed::Fake(world);
    bed.bind(TAG).await;
    let began = Instant::now();
    let report = start(&bed, "[ports]\ninject = \"packet-out\"\nwait = \"2s\"\n").await.end().await;
    assert_eq!((report.outcome, report.rounds), (Outcome::Failed, 0), "{report:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn an_interrupted_announcement_says_so() {
    on_both(async |bed| {
        let announcement = start(&bed, "").await;
        announcement.await_waiting(&bed).await;
        announcement.signals.stop(Stop::Interrupted);
        let report = announcement.end().await;
        assert_eq!((report.outcome, report.rounds), (Outcome::Cancelled, 0));
        assert_eq!(bed.left(), []);
    });
}
