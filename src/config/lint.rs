//! Values that can be used, and mostly should not be: one line for each, with the remedy.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Config;
use crate::announcement::frame::Kind;
use crate::announcement::injection::Method;
use crate::guest::address::Source;
use crate::guest::event::Cause;
use crate::path::owner::Owner;

/// Linux ignores a second change of a neighbour within `net.ipv4.neigh.*.locktime`, a second, and Open vSwitch may learn from a
/// repeated frame only half a second later (measured).
const LONG_ENOUGH: Duration = Duration::from_secs(1);
/// Nobody is still in doubt then.
const TOO_LONG: Duration = Duration::from_secs(300);
/// Rounds that follow each other faster get lost together.
const TOO_FAST: Duration = Duration::from_millis(10);
/// As slow as agents are that look every two seconds.
const SHORT_WAIT: Duration = Duration::from_secs(5);
const LONG_JITTER: Duration = Duration::from_secs(1);
/// A hundred NICs of one address, three frames each, are through their first rounds in three seconds.
const SLOW: u32 = 100;
/// Switches hand such frames to their processor, and drop what is too much for that: mostly beyond some thousand a second.
const FAST: u32 = 5000;

impl Config {
    /// What is unwise about it; nothing is about the defaults.
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
            advice.push("schedule.count is 1: a round that is lost is not repeated; take 5 or more".into());
        } else if last <= LONG_ENOUGH {
            advice.push(format!(
                "schedule ends {last:?} after the first round: Linux ignores a change within a second of another, and Open \
                 vSwitch may learn half a second late; raise count, interval or backoff until it lasts longer than 1s"
            ));
        } else if last > TOO_LONG {
            advice.push(format!(
                "schedule ends {last:?} after the first round: whoever missed ten rounds needs another cure; lower count or \
                 max-interval"
            ));
        }
        if schedule.count > 1 && schedule.interval < TOO_FAST {
            advice.push(format!(
                "schedule.interval is {:?}: what loses the first round loses the next ones, too; take 50ms",
                schedule.interval
            ));
        }
        advice
    }

    fn on_frames(&self) -> Vec<String> {
        let lost = [
            (Kind::ArpRequest, "neighbours that heed only ARP requests keep the old place of IPv4 addresses"),
            (Kind::ArpReply, "neighbours that heed only ARP replies keep the old place of IPv4 addresses"),
            (Kind::Na, "IPv6 addresses are not announced"),
            (Kind::Rarp, "a NIC without known addresses is not announced at all"),
            (
                Kind::Ask,
                "routers that know nothing of an IPv4 address, or ignore gratuitous ARP, are not asked",
            ),
            (Kind::Solicit, "routers that know nothing of an IPv6 address are not asked"),
        ];
        let missing = lost.iter().filter(|(kind, _)| !self.frames.send.contains(kind));
        missing.map(|(kind, lost)| format!("frames.send is without \"{kind}\": {lost}; add it")).collect()
    }

    fn on_ports(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let wait = self.ports.wait;
        if wait.is_zero() {
            advice.push(
                "ports.wait is 0: announced(8) warns at once of each port that is not ready at the event; take 60s".into(),
            );
        } else if wait < SHORT_WAIT {
            advice.push(format!("ports.wait is {wait:?}: an agent may take longer to bind a port; take 60s"));
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
                "proof.watch is false: frames that die inside the host are not missed, nor sent again; leave it out".into(),
            );
        }
        if self.ports.inject == Some(Method::Fdb) {
            advice.push(
                "ports.inject is \"fdb\": it passes by the filters of a port, and only works on Linux bridges; leave it out"
                    .into(),
            );
        }
        let sources = &self.addresses.sources;
        if sources.contains(&Source::GuestAgent) {
            advice.push(
                "addresses.sources has \"guest-agent\": a guest may claim its gateway's address; leave it out unless all guests \
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
                "limits.frames-per-second is {rate}: the first rounds of 100 NICs with one address take {:.0} s; take 1000",
                300.0 / f64::from(rate)
            ));
        } else if rate > FAST {
            advice.push(format!(
                "limits.frames-per-second is {rate}: the control planes of switches drop what is too much for them; take 1000"
            ));
        }
        let jitter = self.limits.jitter;
        if jitter > LONG_JITTER {
            advice.push(format!(
                "limits.jitter is {jitter:?}: VMs are out of reach for up to that long; take 1s at most"
            ));
        }
        if let Some(listen) = self.metrics.listen.filter(|listen| !listen.ip().is_loopback()) {
            advice.push(format!(
                "metrics.listen is {listen}: whoever reaches that address may read the metrics, without encryption; listen on \
                 127.0.0.1, or let the firewall and the unit's IPAddressAllow= say who may"
            ));
        }
        advice
    }

    fn on_libvirt(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if !self.libvirt.events.contains(&Cause::Migrated) {
            advice.push("libvirt.events is without \"migrated\": no migration is announced; add it".into());
        }
        let uris = || self.libvirt.uri.iter().chain(&self.libvirt.more_uris);
        let mut known = BTreeSet::new();
        let twice = uris().filter(|uri| !known.insert(*uri));
        advice.extend(
            twice.map(|uri| format!("libvirt names {uri} twice: its guests are announced twice; remove one")),
        );
        let elsewhere = uris().filter(|uri| is_of_another_host(uri));
        advice.extend(elsewhere.map(|uri| {
            format!(
                "libvirt names {uri}: the ports of another host's guests are not here; run announced(8) there"
            )
        }));
        advice
    }
}

/// Whether a libvirt URI has the name of another host.
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
    fn the_defaults_are_wise() {
        assert_eq!(advice(""), Vec::<String>::new());
    }

    #[test]
    fn each_unwise_value_gets_a_line_that_names_it_and_the_remedy() {
        for (text, words) in [
            ("schedule.count = 1", ["schedule.count is 1", "take 5"]),
            ("schedule.count = 4", ["ends 350ms after", "raise count"]),
            ("schedule.count = 5", ["ends 750ms after", "raise count"]),
            ("schedule.count = 200", ["ends 389.15s after", "lower count"]),
            ("[schedule]\ninterval = \"9ms\"", ["schedule.interval is 9ms", "take 50ms"]),
            (
                "frames.send = [\"arp-reply\", \"na\", \"rarp\", \"ask\", \"solicit\"]",
                ["without \"arp-request\"", "add it"],
            ),
            (
                "frames.send = [\"arp-request\", \"na\", \"rarp\", \"ask\", \"solicit\"]",
                ["without \"arp-reply\"", "add it"],
            ),
            (
                "frames.send = [\"arp-request\", \"arp-reply\", \"rarp\", \"ask\", \"solicit\"]",
                ["without \"na\"", "add it"],
            ),
            (
                "frames.send = [\"arp-request\", \"arp-reply\", \"na\", \"ask\", \"solicit\"]",
                ["without \"rarp\"", "add it"],
            ),
            (
                "frames.send = [\"arp-request\", \"arp-reply\", \"na\", \"rarp\", \"solicit\"]",
                ["without \"ask\"", "add it"],
            ),
            (
                "frames.send = [\"arp-request\", \"arp-reply\", \"na\", \"rarp\", \"ask\"]",
                ["without \"solicit\"", "add it"],
            ),
            ("ports.wait = \"0s\"", ["ports.wait is 0", "take 60s"]),
            ("ports.wait = \"4s\"", ["ports.wait is 4s", "take 60s"]),
            ("ports.in-charge = \"nobody\"", ["ports.in-charge is \"nobody\"", "single networks"]),
            ("proof.watch = false", ["proof.watch is false", "leave it out"]),
            ("ports.inject = \"fdb\"", ["ports.inject is \"fdb\"", "leave it out"]),
            ("addresses.sources = [\"guest-agent\"]", ["has \"guest-agent\"", "leave it out"]),
            ("addresses.sources = []", ["only RARP", "name sources"]),
            (
                "limits.frames-per-second = 30",
                ["is 30: the first rounds of 100 NICs", "take 10 s; take 1000"],
            ),
            ("limits.frames-per-second = 5001", ["frames-per-second is 5001", "take 1000"]),
            ("limits.jitter = \"2s\"", ["limits.jitter is 2s", "1s at most"]),
            ("metrics.listen = \"0.0.0.0:9891\"", ["metrics.listen is 0.0.0.0:9891", "127.0.0.1"]),
            ("libvirt.events = [\"restored\"]", ["without \"migrated\"", "add it"]),
            ("[libvirt]\nuri = \"a:///b\"\nmore-uris = [\"a:///b\"]", ["a:///b twice", "remove one"]),
            (
                "libvirt.uri = \"qemu+ssh://root@h2/system\"",
                ["of another host's guests", "run announced(8) there"],
            ),
        ] {
            let advice = advice(text);
            assert_eq!(advice.len(), 1, "{text}: {advice:#?}");
            assert!(words.iter().all(|words| advice[0].contains(words)), "{text}: {advice:?}");
            assert_eq!(advice[0].lines().count(), 1);
        }
    }

    #[test]
    fn values_at_the_bounds_are_wise() {
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
