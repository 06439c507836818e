//! An announcement from its event to its end, by observations and times alone.

use super::*;
use crate::path::condition::Condition;
use crate::path::owner::Owner;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn seen(unmet: Vec<Condition>, ofport: Option<u32>) -> Assessment {
    Assessment {
        attachment: None,
        ofport,
        settles_in: None,
        in_charge: (Owner::Nobody, String::new()),
        vlan: None,
        unmet,
    }
}

fn ready() -> Assessment {
    seen(vec![], None)
}

fn no_tag() -> Assessment {
    let port = "tap0".into();
    let tag = Condition::Tag { port, tag: None, wanted: None };
    seen(vec![tag], Some(1))
}

fn gone() -> Assessment {
    seen(vec![Condition::NoDevice { device: "tap0".into() }], None)
}

/// A round that was sent at `at` and answered.
fn left(at: u64) -> Round {
    Round { at: ms(at), left: true, only_rarp: false, answered: true }
}

fn lost(at: u64) -> Round {
    Round { left: false, ..left(at) }
}

fn two_rounds() -> Announcement {
    let schedule = Schedule { count: 2, ..Schedule::default() };
    Announcement::new(schedule, ms(1000))
}

#[test]
fn a_ready_port_is_announced_at_once_and_by_schedule() {
    let mut it = two_rounds();
    it.observe(ms(1), &ready());
    assert_eq!(it.step(ms(1)), Step::Send);
    it.sent(left(2));
    assert_eq!(it.step(ms(2)), Step::WaitUntil(ms(51)));
    assert_eq!(it.step(ms(51)), Step::Send);
    it.sent(left(51));
    assert_eq!(it.step(ms(51)), Step::Done);
    let progress = it.progress();
    assert_eq!((progress.outcome, progress.rounds), (Some(Outcome::Announced), 2));
    assert_eq!((progress.ready_at, progress.first_frame_at), (Some(ms(1)), Some(ms(2))));
}

#[test]
fn nothing_is_sent_before_the_port_is_ready() {
    let mut it = two_rounds();
    it.observe(ms(0), &no_tag());
    assert_eq!(it.step(ms(0)), Step::WaitUntil(ms(1000)));
    it.observe(ms(700), &seen(vec![], Some(1)));
    assert_eq!(it.step(ms(700)), Step::Send);
}

#[test]
fn past_the_deadline_it_names_what_is_unmet() {
    let mut it = two_rounds();
    it.observe(ms(0), &no_tag());
    assert_eq!(it.step(ms(1000)), Step::Done);
    assert_eq!(it.progress().outcome, Some(Outcome::NotReady));
    assert_eq!(*it.progress().unmet, *no_tag().unmet);
}

#[test]
fn without_a_wait_one_observation_decides() {
    let mut it = Announcement::new(Schedule::default(), Duration::ZERO);
    it.observe(ms(0), &no_tag());
    assert_eq!(it.step(ms(0)), Step::Done);
}

fn settling(left: u64) -> Assessment {
    Assessment { settles_in: Some(ms(left)), ..ready() }
}

#[test]
fn a_settling_port_is_observed_again_when_it_has_settled() {
    let mut it = two_rounds();
    it.observe(ms(10), &settling(20));
    assert_eq!(it.step(ms(10)), Step::WaitUntil(ms(30)));
    it.observe(ms(30), &ready());
    assert_eq!(it.step(ms(30)), Step::Send);
    assert_eq!(it.progress().ready_at, Some(ms(30)));
}

#[test]
fn a_settling_port_is_waited_for_even_without_a_wait() {
    let mut it = Announcement::new(Schedule::default(), Duration::ZERO);
    it.observe(ms(0), &settling(20));
    assert_eq!(it.step(ms(0)), Step::WaitUntil(ms(20)));
}

#[test]
fn a_guest_that_leaves_ends_the_burst() {
    let mut it = two_rounds();
    it.observe(ms(0), &ready());
    it.sent(left(0));
    it.observe(ms(20), &gone());
    assert_eq!(it.step(ms(50)), Step::Done);
    assert_eq!(it.progress().outcome, Some(Outcome::Cancelled));
    let why = it.progress().error.as_deref();
    assert_eq!(why, Some("tap0 does not exist (after 1 of 2 rounds)"));
}

#[test]
fn a_guest_that_leaves_while_its_port_is_waited_for_ends_the_wait() {
    let mut it = two_rounds();
    it.observe(ms(0), &no_tag());
    it.observe(ms(20), &seen(vec![Condition::Left("shut off")], None));
    assert_eq!(it.step(ms(20)), Step::Done);
    assert_eq!(it.progress().outcome, Some(Outcome::Cancelled));
}

#[test]
fn a_guest_that_is_paused_while_its_port_is_waited_for_may_resume() {
    let mut it = two_rounds();
    it.observe(ms(0), &seen(vec![Condition::Paused("paused")], None));
    it.observe(ms(20), &ready());
    assert_eq!(it.step(ms(20)), Step::Send);
}

#[test]
fn a_port_that_loses_its_tag_is_waited_for_again() {
    let mut it = two_rounds();
    it.observe(ms(0), &ready());
    it.sent(left(0));
    it.observe(ms(20), &no_tag());
    assert_eq!(it.step(ms(60)), Step::WaitUntil(ms(1020)), "held, with the same wait");
    it.observe(ms(80), &ready());
    assert_eq!(it.step(ms(80)), Step::Send);
}

#[test]
fn rounds_that_were_missed_are_not_sent_all_at_once() {
    let schedule = Schedule { count: 4, ..Schedule::default() };
    let mut it = Announcement::new(schedule, ms(1000));
    it.observe(ms(0), &ready());
    it.sent(left(0));
    it.observe(ms(20), &no_tag());
    it.observe(ms(900), &ready());
    assert_eq!(it.step(ms(900)), Step::Send);
    it.sent(left(900));
    assert_eq!(it.step(ms(900)), Step::WaitUntil(ms(1000)), "the gap of the schedule");
}

#[test]
fn a_port_that_comes_back_settles_and_is_tried_like_a_new_one() {
    let mut it = two_rounds();
    it.observe(ms(0), &ready());
    it.sent(left(0));
    it.observe(ms(20), &no_tag());
    it.observe(ms(80), &settling(20));
    assert_eq!(it.step(ms(80)), Step::WaitUntil(ms(100)));
    it.observe(ms(100), &ready());
    assert_eq!(it.step(ms(100)), Step::Send);
    it.sent(lost(100));
    assert_eq!(it.step(ms(100)), Step::WaitUntil(ms(101)));
    it.sent(left(101));
    assert_eq!((it.progress().outcome, it.progress().rounds), (Some(Outcome::Announced), 2));
}

#[test]
fn a_round_that_could_not_be_sent_is_tried_like_one_that_was_lost() {
    let mut it = two_rounds();
    it.observe(ms(0), &ready());
    it.failed(ms(0), "no buffer".into());
    assert_eq!(it.step(ms(0)), Step::WaitUntil(ms(1)));
    it.sent(left(1));
    it.failed(ms(50), "no buffer".into());
    assert_eq!(it.step(ms(50)), Step::WaitUntil(ms(51)));
    it.sent(left(51));
    let progress = it.progress();
    assert_eq!((progress.outcome, progress.rounds), (Some(Outcome::Announced), 2));
    assert_eq!((progress.lost, progress.send_errors, progress.error.as_deref()), (0, 2, None));
}

#[test]
fn a_first_round_that_is_lost_is_sent_again_at_once_until_it_leaves() {
    let mut it = two_rounds();
    it.observe(ms(0), &ready());
    it.sent(lost(0));
    assert_eq!(it.step(ms(5)), Step::Send, "the loss was noticed late");
    it.sent(lost(5));
    assert_eq!(it.step(ms(6)), Step::WaitUntil(ms(7)));
    it.sent(lost(7));
    assert_eq!(it.step(ms(8)), Step::WaitUntil(ms(11)));
    it.sent(left(11));
    assert_eq!((it.progress().rounds, it.progress().lost), (1, 3));
    assert_eq!(it.step(ms(11)), Step::WaitUntil(ms(50)), "the schedule is what it was");
    it.sent(left(50));
    assert_eq!(it.progress().outcome, Some(Outcome::Announced));
}

#[test]
fn any_round_that_is_lost_is_sent_again_until_it_leaves() {
    let mut it = two_rounds();
    it.observe(ms(0), &ready());
    it.sent(left(0));
    it.sent(lost(50));
    assert_eq!(it.step(ms(50)), Step::WaitUntil(ms(51)));
    it.sent(left(51));
    assert_eq!((it.progress().outcome, it.progress().rounds), (Some(Outcome::Announced), 2));
}

#[test]
fn a_first_round_of_which_only_the_rarp_leaves_is_repeated_for_some_milliseconds() {
    let only_rarp = |at| Round { only_rarp: true, ..left(at) };
    let mut it = two_rounds();
    it.observe(ms(0), &ready());
    it.sent(only_rarp(0));
    assert_eq!(it.step(ms(0)), Step::WaitUntil(ms(1)));
    it.sent(left(1));
    assert_eq!((it.step(ms(1)), it.progress().rounds), (Step::WaitUntil(ms(50)), 1));
    it.sent(only_rarp(50));
    assert_eq!(it.progress().outcome, Some(Outcome::Announced), "a later round is not repeated");

    let (mut it, mut now, mut sent) = (two_rounds(), ms(0), Vec::new());
    it.observe(now, &ready());
    loop {
        match it.step(now) {
            Step::WaitUntil(at) => now = at,
            Step::Send => {
                sent.push(now.as_millis());
                it.sent(Round { at: now, ..only_rarp(0) });
            }
            _ => break,
        }
    }
    assert_eq!(sent, [0, 1, 3, 7, 15, 31, 56, 81, 106, 156], "a filter of addresses lets no more pass");
    assert_eq!(it.progress().outcome, Some(Outcome::Announced));
}

/// When an announcement whose frames never leave ends, and the tries of its last minute.
fn never_leaves(mut it: Announcement, until: Duration) -> (Option<Outcome>, Duration, usize) {
    it.observe(ms(0), &ready());
    let (mut now, mut tries) = (ms(0), Vec::new());
    while now < until {
        match it.step(now) {
            Step::WaitUntil(at) => now = at,
            Step::Warn(_) => {}
            Step::Send => {
                tries.push(now);
                it.sent(Round { at: now, ..lost(0) });
            }
            Step::Done => break,
        }
    }
    let last = tries.iter().filter(|at| **at + Duration::from_secs(60) >= now).count();
    (it.progress().outcome, now, last)
}

#[test]
fn rounds_that_never_leave_are_a_failure_at_the_deadline() {
    let (outcome, at, _) = never_leaves(Announcement::new(Schedule::default(), ms(60_000)), ms(600_000));
    assert_eq!(outcome, Some(Outcome::Failed));
    assert!((ms(58_000)..=ms(60_000)).contains(&at), "{at:?}");
    // The schedule may run to its end, and the first second costs little.
    let (_, at, _) = never_leaves(Announcement::new(Schedule::default(), ms(0)), ms(600_000));
    assert!((ms(9_000)..=ms(9_150)).contains(&at), "{at:?}");
    let (_, at, _) = never_leaves(two_rounds(), ms(600_000));
    assert!((ms(900)..=ms(1_000)).contains(&at), "{at:?}");
}

#[test]
fn an_endless_one_waits_on_and_warns_once() {
    let mut it = two_rounds().endless(true);
    it.observe(ms(0), &no_tag());
    assert_eq!(it.step(ms(0)), Step::WaitUntil(ms(1_000)));
    assert_eq!(it.step(ms(1_000)), Step::Warn(Overdue::NotReady));
    assert!(matches!(it.step(ms(1_000)), Step::WaitUntil(at) if at > ms(1_000)));
    it.observe(ms(600_000), &ready());
    assert_eq!(it.step(ms(600_000)), Step::Send);
    it.sent(lost(600_000));
    it.sent(lost(601_000));
    assert_eq!(it.step(ms(601_000)), Step::Warn(Overdue::NotLeft));
    assert!(matches!(it.step(ms(601_000)), Step::WaitUntil(_)));
    it.observe(ms(601_001), &no_tag());
    assert!(matches!(it.step(ms(700_000)), Step::WaitUntil(_)), "that was said");
    it.observe(ms(700_001), &ready());
    it.sent(left(700_001));
    it.sent(left(700_051));
    assert_eq!(it.progress().outcome, Some(Outcome::Announced));
}

#[test]
fn another_schedule_and_patience_hold_for_one_that_waits() {
    let mut it = two_rounds();
    it.observe(ms(0), &no_tag());
    let schedule = Schedule { count: 1, ..Schedule::default() };
    it.change(ms(500), schedule.clone(), ms(3_000), 0);
    assert_eq!(it.step(ms(1_500)), Step::WaitUntil(ms(3_000)));
    it.observe(ms(2_000), &ready());
    it.sent(left(2_000));
    assert_eq!(it.progress().outcome, Some(Outcome::Announced), "it is one round");

    let mut it = two_rounds();
    it.observe(ms(0), &ready());
    it.sent(left(0));
    it.change(ms(10), schedule, ms(3_000), 0);
    assert_eq!(it.step(ms(10)), Step::WaitUntil(ms(50)), "one that has begun keeps its schedule");
}

#[test]
fn a_daemon_goes_on_for_as_long_as_the_guest_is_here_ever_more_slowly() {
    let it = Announcement::new(Schedule::default(), ms(1000)).endless(true);
    let (outcome, _, tries_of_a_minute) = never_leaves(it, ms(3_600_000));
    assert_eq!(outcome, None);
    assert!(tries_of_a_minute <= 7, "{tries_of_a_minute}");
}

#[test]
fn a_long_lost_round_leaves_when_the_host_changes() {
    let mut it = two_rounds().endless(true);
    it.observe(ms(0), &ready());
    it.sent(lost(0));
    it.sent(lost(100_000));
    assert!(it.is_sparing());
    assert_eq!(it.step(ms(100_000)), Step::Warn(Overdue::NotLeft));
    assert_eq!(it.step(ms(100_000)), Step::WaitUntil(ms(110_000)));
    it.changed(ms(104_000));
    assert_eq!(it.step(ms(104_000)), Step::Send);
    it.sent(left(104_000));
    assert!(!it.is_sparing());
    assert_eq!(it.step(ms(104_000)), Step::WaitUntil(ms(104_050)), "the gap of the schedule");
}

#[test]
fn a_lost_round_is_not_sent_again_while_a_bridge_on_the_way_does_not_answer() {
    let settling = Assessment { settles_in: Some(ms(20)), ..ready() };
    let mut it = two_rounds().endless(true);
    it.observe(ms(0), &ready());
    it.sent(lost(0));
    it.stands_still();
    assert_eq!(it.step(ms(0)), Step::WaitUntil(ms(10_000)));
    // It answers.
    it.changed(ms(500));
    assert_eq!(it.step(ms(500)), Step::Send);
    it.sent(lost(500));
    it.stands_still();
    it.observe(ms(600), &settling);
    it.stands_still();
    assert_eq!(it.step(ms(600)), Step::WaitUntil(ms(620)));
    it.observe(ms(620), &ready());
    assert_eq!(it.step(ms(620)), Step::Send, "as to a port that is new");

    let mut patient = two_rounds();
    patient.observe(ms(0), &ready());
    patient.sent(lost(0));
    patient.stands_still();
    assert_eq!(patient.step(ms(0)), Step::WaitUntil(ms(1000)), "not for longer than it is patient");
}

#[test]
fn another_host_that_uses_the_mac_brings_one_round_more_in_ten_seconds() {
    let mut it = Announcement::new(Schedule { count: 3, ..Schedule::default() }, ms(1000));
    it.hurry(ms(0));
    it.observe(ms(0), &ready());
    it.sent(left(0));
    it.hurry(ms(20));
    assert_eq!(it.step(ms(20)), Step::Send);
    it.sent(left(20));
    it.hurry(ms(30));
    assert_eq!(it.step(ms(30)), Step::WaitUntil(ms(50)), "the schedule stays");
    it.sent(left(50));
    it.sent(lost(150));
    it.hurry(ms(10_100));
    assert_eq!(it.step(ms(150)), Step::WaitUntil(ms(151)), "a lost round is sent again as it is");
    it.sent(left(10_100));
    assert_eq!((it.progress().outcome, it.progress().rounds), (Some(Outcome::Announced), 4));
}

#[test]
fn it_continues_while_the_network_does_not_answer_if_configured() {
    let mut it = two_rounds().insisting(2);
    it.observe(ms(0), &ready());
    it.sent(left(0));
    it.sent(Round { answered: false, ..left(50) });
    assert_eq!(it.step(ms(50)), Step::WaitUntil(ms(150)));
    it.sent(left(150));
    assert_eq!((it.progress().outcome, it.progress().rounds), (Some(Outcome::Announced), 3));
}

#[test]
fn the_first_time_of_each_state_is_kept() {
    let mut it = two_rounds();
    let paused = Condition::Paused("paused");
    it.observe(ms(0), &seen(vec![paused], None));
    it.observe(ms(10), &no_tag());
    let attachment = crate::path::attachment::tests::tap_on_br_int();
    it.observe(ms(20), &Assessment { attachment: Some(attachment.clone()), ..no_tag() });
    it.observe(ms(30), &Assessment { attachment: Some(attachment), ..ready() });
    let progress = it.progress();
    let times = [progress.runs_at, progress.plugged_at, progress.tagged_at, progress.ready_at];
    assert_eq!(times, [Some(ms(10)), Some(ms(20)), Some(ms(30)), Some(ms(30))]);
}

/// The outcome if only the first round is sent, or only the others.
fn outcome(first_is_sent: bool) -> (Option<Outcome>, Option<String>) {
    let mut it = two_rounds();
    it.observe(ms(0), &ready());
    let mut now = ms(0);
    for n in 0.. {
        match it.step(now) {
            Step::Done | Step::Warn(_) => break,
            Step::WaitUntil(at) => now = at,
            Step::Send if (n == 0) == first_is_sent => it.sent(Round { at: now, ..left(0) }),
            Step::Send => it.failed(now, "no buffer".into()),
        }
    }
    (it.progress().outcome, it.progress().error.clone())
}

#[test]
fn the_rounds_that_left_decide_the_outcome_not_the_last_one() {
    assert_eq!(outcome(true), (Some(Outcome::Announced), None));
    assert_eq!(outcome(false), (Some(Outcome::Announced), None));
    let mut it = two_rounds();
    it.observe(ms(0), &ready());
    (0..100).for_each(|n| it.failed(ms(20 * n), "no buffer".into()));
    assert_eq!(it.progress().outcome, Some(Outcome::Failed));
    assert_eq!(it.progress().error.as_deref(), Some("no buffer"));
}

#[test]
fn rounds_that_were_held_up_are_not_sent_all_at_once() {
    let mut it = Announcement::new(Schedule { count: 4, ..Schedule::default() }, ms(1000));
    it.observe(ms(0), &ready());
    it.sent(left(0));
    assert_eq!(it.step(ms(60_000)), Step::Send, "the second one was due after 50 ms");
    it.held_up(ms(60_000));
    it.sent(left(60_000));
    assert_eq!(it.step(ms(60_000)), Step::WaitUntil(ms(60_100)));
    it.sent(left(60_100));
    assert_eq!(it.step(ms(60_100)), Step::WaitUntil(ms(60_300)));
}
