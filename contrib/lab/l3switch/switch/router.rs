//! The switch's CPU: ARP, and routing between its VLANs.

use std::net::Ipv4Addr;
use std::time::Duration;

use pnet_base::MacAddr;
use pnet_packet::arp::ArpOperations;
use pnet_packet::ethernet::EtherTypes;

use super::packet::{Arp, echo_reply, ethernet, ipv4, with_ttl};
use super::tables::ArpEntry;
use super::{Cause, Ingress, Svi, Switch, Time, What};

/// How many packets wait for the answer to one question: the last ones.
const QUEUE: usize = 3;
/// How soon an address is asked for again, while packets for it come.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// After this time, no host waits for the answer any more.
const FORGET: Duration = Duration::from_secs(3);

/// A next hop without an ARP entry.
pub struct Question {
    asked: Time,
    packets: Vec<Vec<u8>>,
}

impl Switch {
    /// RFC 826, "Packet Reception": a known sender is updated; an unknown one is remembered if it speaks to us.
    pub(super) fn hear_arp(&mut self, ingress: Ingress, svi: &Svi, payload: &[u8]) {
        let Some(arp) = Arp::parse(payload) else {
            return self.drop_frame("malformed", ingress.port, Some(ingress.vlan), None);
        };
        let (mac, address) = arp.sender;
        let for_us = arp.target.1 == svi.address;
        // The sender of an address probe (RFC 5227) has none yet.
        let may_be_kept = svi.contains(address) && address != svi.address;
        if may_be_kept && (for_us || self.arp.get(address).is_some()) {
            self.note_arp(ingress, address, mac);
        }
        if for_us && arp.operation == ArpOperations::Request && address != svi.address {
            let answer = Arp {
                operation: ArpOperations::Reply,
                sender: (self.config.mac, svi.address),
                target: arp.sender,
            };
            let frame = ethernet(mac, self.config.mac, EtherTypes::Arp, &answer.payload());
            self.send(ingress.port, ingress.vlan, frame);
        }
    }

    fn note_arp(&mut self, Ingress { port, vlan }: Ingress, address: Ipv4Addr, mac: MacAddr) {
        let entry = ArpEntry { mac, vlan, port: port.into(), at: self.now };
        match self.arp.put(address, entry) {
            None => self.log(What::ArpCreated { address, mac, vlan, port: port.into() }),
            Some(before) => {
                if before.mac != mac {
                    self.log(What::ArpChanged { address, was: before.mac, mac, port: port.into() });
                }
                if before.port != port {
                    let (from, to) = (before.port, port.into());
                    self.log(What::ArpMoved { address, mac, from, to, cause: Cause::Arp });
                }
            }
        }
        let question = self.questions.remove(&address);
        for packet in question.map(|question| question.packets).unwrap_or_default() {
            self.send_packet(address, packet);
        }
    }

    /// A packet came for the switch's MAC.
    pub(super) fn route(&mut self, ingress: Ingress, payload: &[u8]) {
        let drop = |switch: &mut Self, reason| {
            switch.drop_frame(reason, ingress.port, Some(ingress.vlan), None);
        };
        let Some(packet) = ipv4(payload) else { return drop(self, "malformed") };
        let destination = packet.get_destination();
        if self.config.svis.iter().any(|svi| svi.address == destination) {
            if let Some(reply) = echo_reply(&packet)
                && self.has_route(packet.get_source())
            {
                self.send_packet(packet.get_source(), reply);
            }
            return;
        }
        if !self.has_route(destination) {
            return drop(self, "no-route");
        }
        let Some(ttl @ 1..) = packet.get_ttl().checked_sub(1) else { return drop(self, "ttl") };
        self.send_packet(destination, with_ttl(&packet, ttl));
    }

    fn has_route(&self, to: Ipv4Addr) -> bool {
        self.svi_for(to).is_some()
    }

    fn svi_for(&self, address: Ipv4Addr) -> Option<Svi> {
        self.config.svis.iter().find(|svi| svi.contains(address)).copied()
    }

    /// Sends the packet by the port of its ARP entry, or asks first. Every route is a connected one.
    fn send_packet(&mut self, to: Ipv4Addr, packet: Vec<u8>) {
        if let Some(entry) = self.arp.get(to).cloned() {
            let frame = ethernet(entry.mac, self.config.mac, EtherTypes::Ipv4, &packet);
            return self.send(&entry.port, entry.vlan, frame);
        }
        let Some(svi) = self.svi_for(to) else { return };
        let now = self.now;
        let asked = self.questions.get(&to).map(|question| question.asked);
        let due = asked.is_none_or(|asked| now.saturating_sub(asked) >= ASK_AGAIN);
        let question = self.questions.entry(to).or_insert(Question { asked: now, packets: Vec::new() });
        if question.packets.len() == QUEUE {
            question.packets.remove(0);
        }
        question.packets.push(packet);
        if due {
            question.asked = now;
            self.ask(&svi, to);
        }
    }

    fn ask(&mut self, svi: &Svi, address: Ipv4Addr) {
        let request = Arp {
            operation: ArpOperations::Request,
            sender: (self.config.mac, svi.address),
            target: (MacAddr::zero(), address),
        };
        let frame = ethernet(MacAddr::broadcast(), self.config.mac, EtherTypes::Arp, &request.payload());
        self.flood(None, svi.vlan, &frame);
    }

    pub(super) fn forget_questions(&mut self) {
        let now = self.now;
        self.questions.retain(|_, question| now.saturating_sub(question.asked) < FORGET);
    }
}
