//! The answer of ovs-vswitchd to `fdb/show` (ovs-vswitchd(8)).

use pnet_base::MacAddr;

/// A port in a bridge's FDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Its OpenFlow number.
    Number(u32),
    /// The bridge's own port.
    Local,
}

/// An entry of a bridge's FDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The port.
    pub port: Port,
    /// The bridge has learned it from a frame: it is not static.
    pub is_learned: bool,
}

/// The entry for `mac`, in `vlan` or the latest in any VLAN, from the answer to `fdb/show`.
pub fn learned(table: &str, mac: MacAddr, vlan: Option<u16>) -> Option<Entry> {
    let written = mac.to_string();
    // The most recent entry is the last one.
    table.lines().rev().filter(|line| line.contains(&written)).find_map(|line| {
        let mut columns = line.split_whitespace();
        let port = match columns.next()? {
            "LOCAL" => Port::Local,
            number => Port::Number(number.parse().ok()?),
        };
        let of: u16 = columns.next()?.parse().ok()?;
        let address: MacAddr = columns.next()?.parse().ok()?;
        let is_learned = columns.next() != Some("static");
        (address == mac && vlan.is_none_or(|vlan| vlan == of)).then_some(Entry { port, is_learned })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of Open vSwitch 3.1.0.
    const TABLE: &str = include_str!("../../tests/data/ofproto/fdb.txt");

    #[test]
    fn the_most_recent_entry_counts() {
        let learned = |last, vlan| learned(TABLE, MacAddr(0xfa, 0x16, 0x3e, 0, 0, last), vlan);
        let behind = |port| Some(Entry { port, is_learned: true });
        assert_eq!(learned(0x0a, None), behind(Port::Number(5)));
        assert_eq!(learned(0x0a, Some(7)), behind(Port::Number(5)));
        assert_eq!(learned(0x0a, Some(0)), behind(Port::Local));
        assert_eq!(learned(0x0a, Some(100)), None);
        assert_eq!(learned(0x0c, None), Some(Entry { port: Port::Number(5), is_learned: false }));
        assert_eq!(learned(0x0d, None), None);
    }
}
