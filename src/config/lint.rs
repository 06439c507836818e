//! Valid but unwise values: one line for each, with the remedy.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Config;
use crate::announcement::frame::Kind;
use crate::announcement::injection::Method;
use crate::guest::address::Source;
use crate::guest::event::Cause;
use crate::path::owner::Owner;

/// Linux ignores a second change of a neighbour within `net.ipv4.neigh.*.locktime` (1 s), and Open vSwitch may learn from a
/// repeated frame only half a second later (measured).
const LONG_ENOUGH: Duration = Duration::from_secs(1);
/// After this time, a host that received none of the rounds needs another remedy.
const TOO_LONG: Duration = Duration::from_secs(300);
/// Rounds with smaller gaps are lost together.
const TOO_FAST: Duration = Duration::from_millis(10);
/// The pace of slow agents, which poll every two seconds.
const SHORT_WAIT: Duration = Duration::from_secs(5);
const LONG_JITTER: Duration = Duration::from_secs(1);
/// At this rate the first rounds of a hundred NICs with one address, three frames each, take three seconds.
const SLOW: u32 = 100;
/// Switches pass such frames to their control planes, which mostly drop more than some thousand a second.
const FAST: u32 = 5000;

impl Config {
    /// The unwise values, each line beginning with the key or the table, with the remedy. The defaults have none.
    pub fn advice(&self) -> Vec<String> {
        let all =
            [self.on_schedule(), self.on_frames(), self.on_ports(), self.on_daemon(), self.on_libvirt()];
        all.concat()
    }

    fn on_schedule(&self) -> Vec<String> {
        let Ok(schedule) = self.schedule() else {
            return Vec::new();
        };
        let mut advice = Vec::new();
        let last = schedule.offsets().last().unwrap_or_default();
        if schedule.count == 1 {
            advice.push("schedule.count is 1: a lost round is not repeated; use 5 or more".into());
        } else if last <= LONG_ENOUGH {
            advice.push(format!(
                "schedule ends {last:?} after the first round: Linux ignores a change within a second of another, and Open \
                 vSwitch may learn half a second late; raise count, interval or backoff until it lasts longer than 1s"
            ));
        } else if last > TOO_LONG {
            advice.push(format!(
                "schedule ends {last:?} after the first round: a host that missed ten rounds needs another remedy; lower count or \
                 max-interval"
            ));
        }
        if schedule.count > 1 && schedule.interval < TOO_FAST {
            advice.push(format!(
                "schedule.interval is {:?}: a fault that loses the first round loses the next ones, too; use 50ms",
                schedule.interval
            ));
        }
        advice
    }

    fn on_frames(&self) -> Vec<String> {
        let lost = [
            (
                Kind::ArpRequest,
                "neighbours that accept only ARP requests keep the old location of IPv4 addresses",
            ),
            (
                Kind::ArpReply,
                "neighbours that accept only ARP replies keep the old location of IPv4 addresses",
            ),
            (Kind::Na, "IPv6 addresses are not announced"),
            (Kind::Rarp, "a NIC without known addresses is not announced at all"),
            (
                Kind::Ask,
                "routers without an entry for an IPv4 address, or that ignore gratuitous ARP, are not asked",
            ),
            (Kind::Solicit, "routers without an entry for an IPv6 address are not asked"),
        ];
        let missing = lost.iter().filter(|(kind, _)| !self.frames.send.contains(kind));
        missing.map(|(kind, lost)| format!("frames.send lacks \"{kind}\": {lost}; add it")).collect()
    }

    fn on_ports(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let wait = self.ports.wait;
        if wait.is_zero() {
            advice.push(
                "ports.wait is 0: announced(8) warns at once of each port that is not ready at the event; use 60s".into(),
            );
        } else if wait < SHORT_WAIT {
            advice.push(format!("ports.wait is {wait:?}: an agent may take longer to bind a port; use 60s"));
        }
        if self.ports.in_charge == Some(Owner::Nobody) {
            advice.push(
                "ports.in-charge is \"nobody\": frames leave before an agent has bound the port, perhaps untagged; set it for \
                 single networks, VMs or NICs"
                    .into(),
            );
        }
        if !self.proof.watch {
            advice.push(
                "proof.watch is false: lost frames are not noticed or sent again; remove the key".into(),
            );
        }
        if self.ports.inject == Some(Method::Fdb) {
            advice.push(
                "ports.inject is \"fdb\": it bypasses the filters of a port, and works on Linux bridges only; remove the key"
                    .into(),
            );
        }
        let sources = &self.addresses.sources;
        if sources.contains(&Source::GuestAgent) {
            advice.push(
                "addresses.sources has \"guest-agent\": a guest may claim its gateway's address; remove it unless all guests \
                 are trusted"
                    .into(),
            );
        }
        if sources.is_empty() && self.nic.values().all(|nic| nic.addresses.is_empty()) {
            advice.push("addresses.sources is empty: only RARP is sent; name sources".into());
        }
        advice
    }

    fn on_daemon(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let rate = self.limits.frames_per_second;
        if rate < SLOW {
            advice.push(format!(
                "limits.frames-per-second is {rate}: the first rounds of 100 NICs with one address take {:.0} s; use 1000",
                300.0 / f64::from(rate)
            ));
        } else if rate > FAST {
            advice.push(format!(
                "limits.frames-per-second is {rate}: the control planes of switches drop excess frames; use 1000"
            ));
        }
        let jitter = self.limits.jitter;
        if jitter > LONG_JITTER {
            advice.push(format!(
                "limits.jitter is {jitter:?}: VMs are unreachable for up to that long; use 1s at most"
            ));
        }
        if let Some(listen) = self.metrics.listen.filter(|listen| !listen.ip().is_loopback()) {
            let what = if self.metrics.page { "the metrics and the names of VMs" } else { "the metrics" };
            advice.push(format!(
                "metrics.listen is {listen}: every host that reaches this address can read {what}, unencrypted; listen on \
                 127.0.0.1, or restrict access by the firewall and the unit's IPAddressAllow="
            ));
        }
        if !self.peers.is_configured() && self.peers.key_file.is_some() {
            advice.push("peers.key-file is set, and peers.addresses is empty: no host is told or heard; name the hosts".into());
        }
        advice
    }

    fn on_libvirt(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if !self.libvirt.events.contains(&Cause::Migrated) {
            advice.push("libvirt.events lacks \"migrated\": no migration is announced; add it".into());
        }
        let uris = || self.libvirt.uri.iter().chain(&self.libvirt.more_uris);
        let mut known = BTreeSet::new();
        let twice = uris().filter(|uri| !known.insert(*uri));
        advice.extend(
            twice.map(|uri| format!("libvirt names {uri} twice: its guests are announced twice; remove one")),
        );
        let elsewhere = uris().filter(|uri| is_of_another_host(uri));
        advice.extend(elsewhere.map(|uri| {
            format!("libvirt names {uri}: another host's guests have no ports here; run announced(8) there")
        }));
        advice
    }
}

/// Whether a libvirt URI names another host.
fn is_of_another_host(uri: &str) -> bool {
    let host = uri.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next()).unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    !host.is_empty() && !["localhost", "127.0.0.1", "[::1]"].iter().any(|here| host.starts_with(here))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn advice(text: &str) -> Vec<String> {
        Config::parse(Path::new("announced.toml"), text).unwrap().advice()
    }

    #[test]
    fn the_defaults_have_no_advice() {
        assert_eq!(advice(""), Vec::<String>::new());
    }

    #[test]
    fn each_unwise_value_gets_a_line_that_names_it_and_the_remedy() {
        for (text, words) in [
            ("schedule.count = 1", ["schedule.count is 1", "use 5"]),
            ("schedule.count = 4", ["ends 350ms after", "raise count"]),
            ("schedule.count = 5", ["ends 750ms after", "raise count"]),
            ("schedule.count = 200", ["ends 389.15s after", "lower count"]),
            ("[schedule]\ninterval = \"9ms\"", ["schedule.interval is 9ms", "use 50ms"]),
            (
                "frames.send = [\"arp-reply\", \"na\", \"rarp\", \"ask\", \"solicit\"]",
                ["lacks \"arp-request\"", "add it"],
            ),
            (
                "frames.send = [\"arp-request\", \"na\", \"rarp\", \"ask\", \"solicit\"]",
                ["lacks \"arp-reply\"", "add it"],
            ),
            (
                "frames.send = [\"arp-request\", \"arp-reply\", \"rarp\", \"ask\", \"solicit\"]",
                ["lacks \"na\"", "add it"],
            ),
            (
                "frames.send = [\"arp-request\", \"arp-reply\", \"na\", \"ask\", \"solicit\"]",
                ["lacks \"rarp\"", "add it"],
            ),
            (
                "frames.send = [\"arp-request\", \"arp-reply\", \"na\", \"rarp\", \"solicit\"]",
                ["lacks \"ask\"", "add it"],
            ),
            (
                "frames.send = [\"arp-request\", \"arp-reply\", \"na\", \"rarp\", \"ask\"]",
                ["lacks \"solicit\"", "add it"],
            ),
            ("ports.wait = \"0s\"", ["ports.wait is 0", "use 60s"]),
            ("ports.wait = \"4s\"", ["ports.wait is 4s", "use 60s"]),
            ("ports.in-charge = \"nobody\"", ["ports.in-charge is \"nobody\"", "single networks"]),
            ("proof.watch = false", ["proof.watch is false", "remove the key"]),
            ("ports.inject = \"fdb\"", ["ports.inject is \"fdb\"", "remove the key"]),
            ("addresses.sources = [\"guest-agent\"]", ["has \"guest-agent\"", "remove it"]),
            ("addresses.sources = []", ["only RARP", "name sources"]),
            ("limits.frames-per-second = 30", ["is 30: the first rounds of 100 NICs", "take 10 s; use 1000"]),
            ("limits.frames-per-second = 5001", ["frames-per-second is 5001", "use 1000"]),
            ("limits.jitter = \"2s\"", ["limits.jitter is 2s", "1s at most"]),
            ("metrics.listen = \"0.0.0.0:9891\"", ["metrics.listen is 0.0.0.0:9891", "127.0.0.1"]),
            ("peers.key-file = \"/etc/announced/peers.key\"", ["peers.addresses is empty", "name the hosts"]),
            ("libvirt.events = [\"restored\"]", ["lacks \"migrated\"", "add it"]),
            ("[libvirt]\nuri = \"a:///b\"\nmore-uris = [\"a:///b\"]", ["a:///b twice", "remove one"]),
            (
                "libvirt.uri = \"qemu+ssh://root@h2/system\"",
                ["another host's guests", "run announced(8) there"],
            ),
        ] {
            let advice = advice(text);
            assert_eq!(advice.len(), 1, "{text}: {advice:#?}");
            assert!(words.iter().all(|words| advice[0].contains(words)), "{text}: {advice:?}");
            assert_eq!(advice[0].lines().count(), 1);
        }
    }

    #[test]
    fn values_at_the_bounds_have_no_advice() {
        for text in [
            "schedule.count = 6",
            "[schedule]\ncount = 2\ninterval = \"1001ms\"",
            "ports.wait = \"5s\"",
            "limits.frames-per-second = 100",
            "limits.frames-per-second = 5000",
            "limits.jitter = \"1s\"",
            "metrics.listen = \"[::1]:9891\"",
            "addresses.sources = []\n[nic.\"52:54:00:00:00:01\"]\naddresses = [\"192.0.2.1\"]",
            "libvirt.uri = \"qemu+unix:///system?socket=/run/a\"",
            "libvirt.uri = \"qemu+tcp://localhost:16509/system\"",
        ] {
            assert_eq!(advice(text), Vec::<String>::new(), "{text}");
        }
    }
}
