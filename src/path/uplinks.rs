//! The devices that the configuration names as uplinks (`[path] uplinks`).

use std::sync::Arc;

use glob::Pattern;
use serde::{Deserialize, Deserializer};

/// Device names with shell wildcards: `up0`, `eth*`. Empty if the edges are detected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uplinks(Arc<[Pattern]>);

impl Uplinks {
    /// Whether any are configured.
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
            false => Pattern::new(&name).map_err(|error| {
                serde::de::Error::custom(format!("{name:?} is not a valid pattern: {}", error.msg))
            }),
        };
        names.into_iter().map(pattern).collect::<Result<_, _>>().map(Uplinks)
    }
}
