use roxmltree::{Document, Node};

use super::*;
use crate::announcement::progress::Outcome;
use crate::announcement::schedule::Schedule;
use crate::guest::event::Cause;
use crate::guest::target::{DomainId, Unannounceable};
use crate::proof::departure::Departure;
use crate::report::evidence::{Departures, Evidence};
use crate::report::round_time::RoundTime;

fn report(name: &str) -> Report {
    let nic = Unannounceable {
        domain: Some(DomainId { name: name.into(), uuid: "".into() }),
        device: Some("tap6f7d3c1a-11".into()),
        mac: Some("fa:16:3e:00:00:11".parse().unwrap()),
        reason: "the NIC is passed through".into(),
        by_representor: None,
    };
    let event_at = Some("2026-11-25T17:34:46.293Z".into());
    Report { event_at, ..Report::refused(&nic, Cause::Migrated) }
}

fn departure(device: &str, after_ms: f64) -> Departures {
    let departure = Departure {
        bridge: Some("br-int".into()),
        device: device.into(),
        vlan: Some(100),
        port: None,
        edge: None,
        vni: None,
    };
    Departures { departure, after_ms, frames: 4 }
}

/// Announced in so many rounds, after the port was ready after so long; before the first one, so many were lost.
fn announced(name: &str, count: u32, ready: f64, lost: u32) -> Report {
    let schedule = Schedule { count, ..Schedule::default() };
    let first = ready + 0.4 + 25.0 * f64::from(lost);
    let offsets = schedule.offsets().map(|at| first + at.as_secs_f64() * 1e3);
    let sent = offsets.map(|at| RoundTime { left: true, rounds: 1, after_ms: at, until_ms: at });
    let before = RoundTime { left: false, rounds: lost, after_ms: ready + 0.4, until_ms: first - 25.0 };
    let round_times: Vec<RoundTime> = (lost > 0).then_some(before).into_iter().chain(sent).collect();
    let end = round_times.last().unwrap().after_ms;
    let ended = "2026-11-25T17:34:46.293Z".parse::<Timestamp>().unwrap();
    let ended = ended + std::time::Duration::from_secs_f64(end / 1e3);
    let evidence = Evidence {
        left_host_after_ms: Some(first + 0.3),
        departure: Some(departure("up0", first).departure),
        departures: vec![departure("up0", first + 0.3)],
        lost_rounds: lost,
        returned_after_ms: Some(first + 4.2),
        answered_after_ms: Some(first + 1.1),
        learned_after_ms: Some(first + 0.6),
        last_returned_after_ms: Some(f64::max(first + 4.2, end - 10.0)),
        ..Evidence::default()
    };
    Report {
        outcome: Outcome::Announced,
        error: None,
        ended_at: Some(format!("{ended:.3}")),
        runs_after_ms: Some(0.1),
        plugged_after_ms: Some(0.1),
        tagged_after_ms: Some(ready - 0.2),
        ready_after_ms: Some(ready),
        first_frame_after_ms: Some(ready + 0.4),
        rounds: count,
        round_times,
        evidence,
        ..report(name)
    }
}

/// One of each shape.
fn all() -> Vec<Report> {
    let several = announced("moved between bonds", 3, 50.0, 2);
    let departures = vec![departure("up0", 101.0), departure("up1", 160.0), departure("up2", 260.0)];
    let evidence = Evidence { departures, ..several.evidence.clone() };
    let stale = Some("the FDB of this host's bridge still points to up0".into());
    let late = announced("late", 10, 252_000.0, 14);
    let waited = Report {
        outcome: Outcome::NotReady,
        ended_at: Some("2026-11-25T17:35:46.293Z".into()),
        unmet: vec!["the port tap6f7d3c1a-11 has no VLAN tag yet; neutron's agent sets it".into(); 9],
        ..report("waits")
    };
    vec![
        announced("web1", 1, 0.5, 0),
        announced("web1", 3, 50.0, 0),
        announced("many", 30, 3019.0, 0),
        Report { evidence: Evidence { stale, ..late.evidence.clone() }, ..late },
        Report { evidence, ..several },
        waited,
        report(&"a<b>&\"'\u{1b}".repeat(40)),
        announced(&"網".repeat(100), 1000, 1.0, 0),
        Report { event_at: None, ..report("") },
    ]
}

fn number(node: Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name).unwrap().parse().unwrap()
}

fn of_class<'a>(picture: &'a Document<'_>, class: &'static str) -> impl Iterator<Item = Node<'a, 'a>> {
    picture.descendants().filter(move |node| node.attribute("class") == Some(class))
}

#[test]
fn each_picture_is_xml_and_has_nothing_outside_of_it() {
    let reports = all();
    for report in &reports {
        let text = document(&[report]);
        let picture = Document::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let size = |name| number(picture.root_element(), name);
        for node in picture.descendants().filter(|node| node.has_attribute("x") && node.has_attribute("y")) {
            let (x, y) = (number(node, "x"), number(node, "y"));
            assert!(x >= 0.0 && x <= size("width") && y >= 0.0 && y <= size("height"), "{node:?}: {text}");
            let words = node.children().filter(Node::is_text).filter_map(|text| text.text());
            let columns: usize = words.map(|words| words::shortened(words, 2000).chars().count()).sum();
            let room = size("width") - if node.attribute("class") == Some("quiet time") { 0.0 } else { x };
            assert!(columns as f64 * words::CHARACTER <= room + 12.0, "{node:?}: {text}");
        }
    }
    let text = document(&reports.iter().collect::<Vec<_>>());
    let together = Document::parse(&text).unwrap();
    assert_eq!(of_class(&together, "announcement").count(), reports.len());
}

#[test]
fn each_round_is_marked_once_in_its_order() {
    for (report, dots, crosses) in [
        (announced("web1", 1, 0.5, 0), 1, 0),
        (announced("web1", 30, 3000.0, 0), 30, 0),
        (announced("web1", 10, 200_000.0, 14), 10, 1),
    ] {
        let text = document(&[&report]);
        let picture = Document::parse(&text).unwrap();
        let xs: Vec<f64> = of_class(&picture, "sent").map(|dot| number(dot, "cx")).collect();
        // The last one is the legend's.
        assert_eq!((xs.len() - 1, of_class(&picture, "lost").count().saturating_sub(1)), (dots, crosses));
        assert!(xs[..dots].is_sorted(), "{xs:?}");
    }
}

#[test]
fn numbers_have_room_between_them_whatever_the_times() {
    for report in all() {
        let text = document(&[&report]);
        let picture = Document::parse(&text).unwrap();
        let xs: Vec<f64> = of_class(&picture, "number").map(|text| number(text, "x")).collect();
        assert!(xs.windows(2).all(|pair| pair[1] - pair[0] >= LEAST_GAP - 0.2), "{xs:?}");
    }
}

#[test]
fn a_port_that_never_became_ready_was_waited_for_to_the_end() {
    let reports = all();
    let text = document(&[&reports[5]]);
    let picture = Document::parse(&text).unwrap();
    assert_eq!((of_class(&picture, "wait").count(), of_class(&picture, "rest").count()), (1, 0));
    let said: Vec<&str> = of_class(&picture, "bad").filter_map(|line| line.text()).collect();
    assert!(
        said[0].starts_with("the port tap6f7d3c1a-11 has no VLAN tag yet") && said[3].ends_with('…'),
        "{said:?}"
    );
}

#[test]
fn what_a_tenant_calls_a_vm_is_text() {
    let name = "</text><script>alert(1)</script>";
    let text = document(&[&report(name)]);
    let picture = Document::parse(&text).unwrap();
    assert!(!picture.descendants().any(|node| node.tag_name().name() == "script"), "{text}");
    assert!(
        of_class(&picture, "name").any(|line| line.last_child().and_then(|text| text.text()) == Some(name))
    );
}
