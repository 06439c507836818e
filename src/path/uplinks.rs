//! The devices that the configuration calls uplinks (`[path] uplinks`).

use glob::Pattern;
use serde::{Deserialize, Deserializer};

/// Names of devices, with the wildcards of a shell: `up0`, `eth*`. None for a host whose edges are found by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uplinks(Vec<Pattern>);

impl Uplinks {
    /// Whether any are named.
    pub fn are_named(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether the device is one of them.
    pub fn has(&self, device: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(device))
    }
}

impl<'de> Deserialize<'de> for Uplinks {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        let pattern = |name: String| match name.is_empty() {
            true => Err(serde::de::Error::custom("an uplink has a name")),
            false => Pattern::new(&name)
                .map_err(|error| serde::de::Error::custom(format!("{name:?} is no pattern: {}", error.msg))),
        };
        names.into_iter().map(pattern).collect::<Result<_, _>>().map(Uplinks)
    }
}
