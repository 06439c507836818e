//! Frames as tshark reads them: it shares no line of code with what wrote them.

use std::fmt;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use super::running::Stream;

#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Since the epoch, by the kernel of the capturing machine, in nanoseconds.
    pub at: Duration,
    /// In bytes, the VLAN tag included.
    pub length: usize,
    pub source: String,
    pub destination: String,
    pub vlan: Option<u16>,
    pub kind: Kind,
    /// What tshark finds wrong with it: malformed, a bad checksum, any warning.
    pub complaints: Vec<String>,
    /// As captured: a VLAN tag included, a long frame cut.
    pub bytes: Bytes,
}

#[derive(Clone, PartialEq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Rarp(Arp),
    ArpRequest(Arp),
    ArpReply(Arp),
    Na(Na),
    /// An ARP request for another address than its sender's.
    Ask(Arp),
    /// A neighbour solicitation, or a router solicitation.
    Solicit(Solicitation),
    /// Anything else; its ethertype.
    Other(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Arp {
    pub sender_mac: String,
    pub sender_ip: Ipv4Addr,
    pub target_mac: String,
    pub target_ip: Ipv4Addr,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Na {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
    pub target: Ipv6Addr,
    pub router: bool,
    pub solicited: bool,
    pub overrides: bool,
    /// Of the target link-layer address option.
    pub target_mac: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Solicitation {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
    /// Of a neighbour solicitation.
    pub target: Option<Ipv6Addr>,
    /// Of the source link-layer address option.
    pub source_mac: Option<String>,
}

impl Kind {
    /// The name that `announce` has for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rarp(_) => "rarp",
            Self::ArpRequest(_) => "arp-request",
            Self::ArpReply(_) => "arp-reply",
            Self::Na(_) => "na",
            Self::Ask(_) => "ask",
            Self::Solicit(_) => "solicit",
            Self::Other(_) => "other",
        }
    }
}

const FIELDS: [&str; 25] = [
    "frame.time_epoch",
    "frame.len",
    "eth.src",
    "eth.dst",
    "vlan.id",
    "eth.type",
    "vlan.etype",
    "arp.opcode",
    "arp.src.hw_mac",
    "arp.src.proto_ipv4",
    "arp.dst.hw_mac",
    "arp.dst.proto_ipv4",
    "icmpv6.type",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.hlim",
    "icmpv6.nd.na.target_address",
    "icmpv6.nd.na.flag.r",
    "icmpv6.nd.na.flag.s",
    "icmpv6.nd.na.flag.o",
    "icmpv6.opt.target_linkaddr",
    "icmpv6.nd.ns.target_address",
    "icmpv6.opt.src_linkaddr",
    "_ws.expert.severity",
    "_ws.expert.message",
];

/// Reads a pcap file.
pub fn dissect(pcap: &[u8]) -> Vec<Frame> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r", "-", "-T", "fields", "-E", "separator=/t", "-E", "aggregator=|"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    // That it runs as root is all that it says there.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut tshark = command.spawn().unwrap();
    let lines = Stream::of(tshark.stdout.take().unwrap());
    tshark.stdin.take().unwrap().write_all(pcap).unwrap();
    let lines = lines.whole();
    assert!(tshark.wait().unwrap().success(), "tshark could not read the capture");
    let packets = packets(pcap);
    assert_eq!(lines.lines().count(), packets.len());
    let lines = lines.lines().map(|line| Line(line.split('\t').collect()));
    lines.zip(packets).map(|(line, bytes)| line.frame(bytes)).collect()
}

/// The packets of a pcap file that is perhaps still being written.
pub fn packets(pcap: &[u8]) -> Vec<&[u8]> {
    const FILE_HEADER: usize = 24;
    const PACKET_HEADER: usize = 16;
    let mut rest = pcap.get(FILE_HEADER..).unwrap_or_default();
    let mut packets = Vec::new();
    while let Some(captured) = rest.get(8..12) {
        let captured = u32::from_ne_bytes(captured.try_into().unwrap()) as usize;
        let Some(packet) = rest.get(PACKET_HEADER..PACKET_HEADER + captured) else {
            break;
        };
        packets.push(packet);
        rest = &rest[PACKET_HEADER + captured..];
    }
    packets
}

struct Line<'a>(Vec<&'a str>);

impl Line<'_> {
    fn text(&self, name: &str) -> &str {
        self.0[FIELDS.iter().position(|field| *field == name).unwrap()]
    }

    fn has(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    fn value<T: FromStr>(&self, name: &str) -> T {
        let text = self.text(name);
        text.parse().unwrap_or_else(|_| panic!("tshark's {name} is {text:?}, in {:?}", self.0))
    }

    fn frame(&self, bytes: &[u8]) -> Frame {
        let (seconds, nanoseconds) = self.text("frame.time_epoch").split_once('.').unwrap();
        Frame {
            at: Duration::new(seconds.parse().unwrap(), nanoseconds.parse().unwrap()),
            length: self.value("frame.len"),
            source: self.value("eth.src"),
            destination: self.value("eth.dst"),
            vlan: self.has("vlan.id").then(|| self.value("vlan.id")),
            kind: self.kind(),
            complaints: self.complaints(),
            bytes: Bytes(bytes.to_vec()),
        }
    }

    fn kind(&self) -> Kind {
        let tagged = self.has("vlan.etype");
        let ethertype = self.text(if tagged { "vlan.etype" } else { "eth.type" });
        match (hexadecimal(ethertype), self.text("arp.opcode"), self.text("icmpv6.type")) {
            (Some(0x8035), "3", _) => Kind::Rarp(self.arp()),
            (Some(0x0806), "1", _) => match self.arp() {
                arp if arp.sender_ip == arp.target_ip => Kind::ArpRequest(arp),
                arp => Kind::Ask(arp),
            },
            (Some(0x0806), "2", _) => Kind::ArpReply(self.arp()),
            (_, _, "136") => Kind::Na(self.na()),
            (_, _, "133" | "135") => Kind::Solicit(self.solicitation()),
            _ => Kind::Other(ethertype.to_owned()),
        }
    }

    fn arp(&self) -> Arp {
        Arp {
            sender_mac: self.value("arp.src.hw_mac"),
            sender_ip: self.value("arp.src.proto_ipv4"),
            target_mac: self.value("arp.dst.hw_mac"),
            target_ip: self.value("arp.dst.proto_ipv4"),
        }
    }

    fn na(&self) -> Na {
        Na {
            source: self.value("ipv6.src"),
            destination: self.value("ipv6.dst"),
            hop_limit: self.value("ipv6.hlim"),
            target: self.value("icmpv6.nd.na.target_address"),
            router: flag(self.text("icmpv6.nd.na.flag.r")),
            solicited: flag(self.text("icmpv6.nd.na.flag.s")),
            overrides: flag(self.text("icmpv6.nd.na.flag.o")),
            target_mac: self
                .has("icmpv6.opt.target_linkaddr")
                .then(|| self.value("icmpv6.opt.target_linkaddr")),
        }
    }

    fn solicitation(&self) -> Solicitation {
        let has = |field: &'static str| self.has(field).then_some(field);
        Solicitation {
            source: self.value("ipv6.src"),
            destination: self.value("ipv6.dst"),
            hop_limit: self.value("ipv6.hlim"),
            target: has("icmpv6.nd.ns.target_address").map(|field| self.value(field)),
            source_mac: has("icmpv6.opt.src_linkaddr").map(|field| self.value(field)),
        }
    }

    fn complaints(&self) -> Vec<String> {
        const WARNING: u32 = 0x0060_0000;
        let severities =
            self.text("_ws.expert.severity").split('|').map(|severity| severity.parse().unwrap_or(0));
        let messages = self.text("_ws.expert.message").split('|');
        severities
            .zip(messages)
            .filter(|(severity, _)| *severity >= WARNING)
            .map(|(_, text)| text.to_owned())
            .collect()
    }
}

/// A flag as tshark prints it: `1` before version 4.2, `True` since.
pub fn flag(text: &str) -> bool {
    match text {
        "1" | "True" => true,
        "0" | "False" => false,
        _ => panic!("tshark prints a flag as {text:?}"),
    }
}

/// A number as tshark prints it, in as many digits as its version likes: `0x0806` or, in 3.4, `0x00000806`.
pub fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
