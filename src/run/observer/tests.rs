//! What is proved of a round where the capture cannot hold all frames: on packet sockets of this kernel.

use std::io::ErrorKind;

use nix::net::if_::if_nametoindex;

use super::*;
use crate::announcement::frame::{Style, round};
use crate::host::sys::packet;
use crate::host::witness::Witness;
use crate::path::attachment::tests::{find, link};
use crate::path::link::Links;
use crate::path::ovs::Ovs;
use crate::run::testbed;

#[path = "../../../tests/testbed/network.rs"]
#[allow(unreachable_pub, reason = "tests of other crates use it, too")]
mod network;

use network::{in_a_network_of_its_own, sh};

const GUEST: MacAddr = MacAddr(0x52, 0x54, 0, 0, 0, 1);
/// Far more frames than a socket holds.
const FLOOD: usize = 4_000;
const LOSSY: &str = "up0 had more frames like them than the capture could hold";

/// tap0 → br0 → up0, with wire0 at the other end of up0.
fn observed() -> (Observer, Vec<Frame>) {
    sh("ip link add br0 type bridge
        ip link add tap0 type veth peer name guest0
        ip link add up0 type veth peer name wire0
        for device in br0 tap0 up0 wire0; do ip link set $device up; done");
    let [br0, tap0, up0] = ["br0", "tap0", "up0"].map(|name| if_nametoindex(name).unwrap());
    let links = Links::from_iter([
        link(br0, "br0", "bridge", 0, 0),
        link(tap0, "tap0", "tun", br0, 0),
        link(up0, "up0", "", br0, 0),
    ]);
    let path = CapturePath::of(&find("tap0", &links, &Ovs::default()).unwrap(), Method::Redirect);
    let frames = round(GUEST, &["192.0.2.1".parse().unwrap()], &Style::default());
    let witness = Capture::Host(Witness::new());
    (Observer::new(witness, Instant::now(), GUEST, &frames, path), frames)
}

fn transmit(device: &str, frames: &[Frame], times: usize) {
    let (socket, device) = (packet::sender().unwrap(), if_nametoindex(device).unwrap());
    for frame in (0..times).flat_map(|_| frames) {
        while let Err(error) = packet::transmit(&socket, device, &frame.bytes) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        }
    }
}

/// Another host sends from the guest's MAC, or a loop returns its frames.
fn flood(times: usize) {
    let others = round(GUEST, &["192.0.2.99".parse().unwrap()], &Style::default());
    transmit("wire0", &others[..1], times);
}

#[test]
fn a_round_is_lost_only_if_the_capture_has_lost_nothing() {
    if !testbed::has(&["lab"]) {
        return;
    }
    in_a_network_of_its_own(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut observer, frames) = observed();
            // No other task runs until the judgement: the sockets are read then.
            observer.begin();
            flood(FLOOD);
            assert_eq!(observer.judge().await, RoundFate::Unseen);
            assert_eq!(observer.unseen().as_deref(), Some(LOSSY));
            assert_eq!(observer.found.proof.held().count(), 0);

            // What is lost is of one round.
            observer.begin();
            assert_eq!(observer.judge().await, RoundFate::Lost);
            observer.begin();
            flood(1);
            assert_eq!(observer.judge().await, RoundFate::Lost);

            observer.begin();
            transmit("up0", &frames, 1);
            flood(FLOOD);
            assert_eq!((observer.judge().await, observer.unseen()), (RoundFate::Left, None));
        });
    });
}
