//! What is worth knowing about an announcement that ended, each with a code for programs.

use serde::{Deserialize, Serialize};

/// One remark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its kind, one of [`Note::CODES`].
    pub code: String,
    /// The words.
    pub text: String,
}

impl Note {
    /// The codes of all kinds.
    pub const CODES: [&'static str; 11] = [
        "stuck",
        "not-left",
        "stuck-question",
        "seen-elsewhere",
        "by-design",
        "unseen",
        "stale",
        "ceased",
        "unanswered",
        "rarp-only",
        "hairpin",
    ];
}
