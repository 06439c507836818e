//! `[peers]`: the daemons of other hosts, and the keys that they share.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::announcement::handover::{KeyError, Keys};

/// No service has it (IANA), and it is next to the one of `metrics.listen` in the examples.
const DEFAULT_PORT: u16 = 9892;
/// What a file of two keys and comments may have.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// `[peers]`: which daemons are told that a guest stops here for its migration; without addresses, none is, and nothing listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PeersTable {
    /// The hosts, or a multicast group.
    pub addresses: Vec<PeerAddress>,
    /// The UDP port: of this host, and of the others where their address has none.
    pub port: u16,
    /// The address to listen at; all of the host if not set.
    pub listen: Option<IpAddr>,
    /// The file of the keys.
    pub key_file: Option<PathBuf>,
}

impl Default for PeersTable {
    fn default() -> Self {
        PeersTable { addresses: Vec::new(), port: DEFAULT_PORT, listen: None, key_file: None }
    }
}

/// A host by its name or address, perhaps with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// The name or address.
    pub host: String,
    /// The port, if it is another one than this host's.
    pub port: Option<u16>,
}

impl PeerAddress {
    /// The address, if it is no name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.host.contains(':')) {
            (None, _) => f.write_str(&self.host),
            (Some(port), false) => write!(f, "{}:{port}", self.host),
            (Some(port), true) => write!(f, "[{}]:{port}", self.host),
        }
    }
}

/// A text is no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no host: write a name or an address, perhaps with a port: \"hv2\", \"192.0.2.2:9892\", \"[2001:db8::2]:9892\""
)]
pub struct BadPeer(String);

impl FromStr for PeerAddress {
    type Err = BadPeer;

    fn from_str(text: &str) -> Result<Self, BadPeer> {
        let bad = || BadPeer(text.into());
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(PeerAddress { host: text.into(), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?)),
            None => (text, None),
        };
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let is_good = match in_brackets {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(is_name),
        };
        if !is_good {
            return Err(bad());
        }
        Ok(PeerAddress { host: in_brackets.unwrap_or(host).into(), port })
    }
}

impl<'de> Deserialize<'de> for PeerAddress {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    /// It cannot be read.
    #[error("peers.key-file {}: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others may read or change it.
    #[error("peers.key-file {0}: its mode is {mode:04o}, so that others may read or change it: chmod 0600 {0}", file.display())]
    Mode {
        /// The file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It has no good keys.
    #[error("peers.key-file {}: {why}", file.display())]
    Keys {
        /// The file.
        file: PathBuf,
        /// Why.
        why: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PeersTable {
    /// Peers are told, and heard.
    pub fn is_configured(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// The keys in the key file; none without peers.
    pub(crate) fn keys(&self) -> Result<Option<Keys>, KeyFileError> {
        match self.key_file.as_deref().filter(|_| self.is_configured()) {
            Some(file) => read(file).map(Some),
            None => Ok(None),
        }
    }
}

fn read(path: &Path) -> Result<Keys, KeyFileError> {
    let file = || path.to_path_buf();
    let failed = |error| KeyFileError::Read { file: file(), error };
    let mut opened = File::open(path).map_err(failed)?;
    let mode = opened.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    // A group may be given read access on purpose.
    if mode & 0o027 != 0 {
        return Err(KeyFileError::Mode { file: file(), mode });
    }
    let mut text = String::new();
    opened.by_ref().take(MAX_KEY_FILE).read_to_string(&mut text).map_err(failed)?;
    Keys::parse(&text).map_err(|why: KeyError| KeyFileError::Keys { file: file(), why: why.into() })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse("a.toml".as_ref(), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_peer_is_a_name_or_an_address_perhaps_with_a_port() {
        for (text, host, port) in [
            ("hv2", "hv2", None),
            ("hv2.example.org:9000", "hv2.example.org", Some(9000)),
            ("192.0.2.2", "192.0.2.2", None),
            ("192.0.2.2:1", "192.0.2.2", Some(1)),
            ("2001:db8::2", "2001:db8::2", None),
            ("[2001:db8::2]:65535", "2001:db8::2", Some(65535)),
            ("239.192.77.1", "239.192.77.1", None),
        ] {
            let peer: PeerAddress = text.parse().unwrap();
            assert_eq!((peer.host.as_str(), peer.port, peer.to_string()), (host, port, text.into()));
        }
        for text in
            ["", ":9892", "hv2:", "hv2:0", "hv2:65536", "hv 2", "[hv2]:1", "udp://hv2", "[2001:db8::2"]
        {
            assert!(text.parse::<PeerAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn unusable_peers_are_refused_with_the_remedy() {
        for (text, words) in [
            ("peers.addresses = [\"hv2\"]", "a.toml:1:19: peers.addresses needs peers.key-file"),
            ("[peers]\naddresses = [\"hv 2\"]", "a.toml:2:13: \"hv 2\" is no host: write a name"),
            ("[peers]\nport = 0", "a.toml:2:8: peers.port is 0: leave it out for 9892"),
            ("[peers]\nkey-file = \"key\"", "a.toml:2:12: peers.key-file is not an absolute path"),
            ("[peers]\nlisten = \"hv1\"", "listen = \"hv1\": write an IPv4 or IPv6 address"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert_eq!(parse("").unwrap().peers, PeersTable::default());
        assert!(!PeersTable::default().is_configured());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        let set = |mode| std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let text = format!("[peers]\naddresses = [\"hv2\"]\nkey-file = {file:?}");
        let keys = || parse(&text).unwrap().peers.keys().map_err(|error| error.to_string());
        for mode in [0o600, 0o400, 0o640] {
            set(mode);
            assert!(keys().unwrap().is_some(), "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o602, 0o620, 0o666] {
            set(mode);
            let error = keys().unwrap_err();
            assert!(error.ends_with(&format!("chmod 0600 {}", file.display())), "{error}");
        }
        set(0o600);
        std::fs::write(&file, "short\n").unwrap();
        assert!(keys().unwrap_err().contains("the key on line 1 has fewer than 32 characters"));
        std::fs::remove_file(&file).unwrap();
        assert!(keys().unwrap_err().contains("No such file"));
        assert!(parse("").unwrap().peers.keys().unwrap().is_none());
    }
}
