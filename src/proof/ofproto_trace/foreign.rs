//! Bounds for a foreign text: the lines that are read, and the characters that are quoted.

/// Longer texts are truncated. Open vSwitch ends a trace after 4096 resubmits.
const MAX_LINES: usize = 50_000;
/// The length of a quotation, in characters.
const MAX_QUOTE: usize = 300;

/// The lines of a text, up to a bound.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take(MAX_LINES)
}

/// Foreign text, safe within a line. Quotes around names are removed.
pub(super) fn quoted(text: &str) -> String {
    let mut kept: String = text.chars().filter(|c| !c.is_control() && *c != '"').take(MAX_QUOTE).collect();
    if text.chars().nth(MAX_QUOTE).is_some() {
        kept.push('…');
    }
    kept
}
