//! An evacuation: two hundred guests whose ports become ready at the same moment.
//!
//! libvirt's test driver stands in for QEMU ([`crate::testbed::crowd`]).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::testbed::daemon::QUICK;
use crate::testbed::{
    Capture, DEADLINE, Daemon, Direction, Frame, Host, Nic, Place, Plug, crowd, linux_bridge, now, require,
    rounds,
};

const GUESTS: u8 = 200;
/// Few enough that also a slow machine would send more, if nothing held it back.
const FRAMES_PER_SECOND: u32 = 1000;

#[test]
fn first_rounds_go_before_second_ones_and_the_rate_holds() {
    require!(lab, libvirt, tshark);
    let host = Host::build().libvirt().start();
    linux_bridge::bridge(&host, "br0");
    host.sh("ip link set br0 down");
    let nics: Vec<Nic> = (0..GUESTS).map(nic).collect();
    let _taps = crowd::taps(&host, &nics);
    let config = format!(
        "{QUICK}[libvirt]\nuri = \"{}\"\nevents = [\"started\"]\n[limits]\nframes-per-second = {FRAMES_PER_SECOND}\n\
         [ports]\nwait = \"1h\"\n",
        crowd::URI
    );
    let daemon = Daemon::start(&host, &config);
    crowd::create(&host, &nics);
    daemon.is_at(GUESTS.into());
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, "");

    // The kernel tells of the ports one by one and of the bridge last, which is what all wait for: all of them are ready at one
    // moment, however slow the machine is, and ask for their first rounds before any of them can be due a second one.
    let began = now();
    host.sh("ip link set br0 up");

    let ended =
        daemon.comes_to("the end", |status| status["metrics"]["announcements"]["announced"] == GUESTS);
    let sent =
        ended["metrics"]["frames"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
    assert!(sent >= u64::from(GUESTS) * 12 && wire.sees(sent as usize, DEADLINE), "{sent}");
    let frames = wire.stop();
    let mut of: BTreeMap<&str, Vec<Frame>> = BTreeMap::new();
    frames.iter().for_each(|frame| of.entry(&frame.source).or_default().push(frame.clone()));
    assert_eq!(of.len(), usize::from(GUESTS));
    let bursts: Vec<Vec<Vec<&Frame>>> = of.values().map(|frames| rounds(frames, None)).collect();
    assert!(bursts.iter().all(|rounds| rounds.len() == 3));
    let first_rounds_end = bursts.iter().map(|rounds| rounds[0][3].at).max().unwrap();
    let second_rounds_begin = bursts.iter().map(|rounds| rounds[1][0].at).min().unwrap();
    println!(
        "the first rounds took {:?}, all {:?}",
        first_rounds_end - frames[0].at,
        frames.last().unwrap().at - frames[0].at
    );
    assert!(first_rounds_end < second_rounds_begin, "{:?}", first_rounds_end - second_rounds_begin);
    none_is_early(began, &frames);
}

/// No frame came before the rate allowed it, with a tenth of a second's frames at once in the beginning, and a round. A slow machine
/// makes frames late, and late ones come close together.
fn none_is_early(began: Duration, frames: &[Frame]) {
    let rate = f64::from(FRAMES_PER_SECOND);
    let at_once = 0.1 * rate + 4.0;
    for (number, frame) in (1..).zip(frames) {
        let since = (frame.at - began).as_secs_f64();
        let most = at_once + since * rate;
        assert!(f64::from(number) <= most, "{number} frames within {since} s, when {most:.0} were allowed");
    }
}

fn nic(number: u8) -> Nic {
    Nic::new(number, Plug::Bridge("br0"))
        .address(format!("192.0.2.{number}"))
        .address(format!("2001:db8::{number:x}"))
}
