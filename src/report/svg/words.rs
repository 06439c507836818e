//! Text in pictures: what may stand in XML, and what fits.

use crate::guest::target::printable;

/// The width of a character of the font, at most, in pixels.
pub(super) const CHARACTER: f64 = 6.65;
/// The lines of a reason.
const MAX_LINES: usize = 4;

/// Text as content or attribute of XML, which knows no control characters (XML 1.0 section 2.2).
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            // They would make what follows run from right to left, also outside of the name.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `0.4 ms`, `3.02 s`, `4 min 12 s`.
pub(super) fn time(ms: f64) -> String {
    match ms {
        ms if ms < 1000.0 => format!("{ms:.1} ms"),
        ms if ms < 60_000.0 => format!("{:.2} s", ms / 1000.0),
        ms => format!("{:.0} min {:.0} s", (ms / 60_000.0).floor(), ((ms % 60_000.0) / 1000.0).floor()),
    }
}

/// The columns that a character takes, at most: those beyond Latin, Greek and Cyrillic script may be as wide as two.
fn columns(c: char) -> usize {
    if c < '\u{530}' || c == '…' { 1 } else { 2 }
}

fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// `text`, or the beginning of it if it takes more than `max` columns.
pub(super) fn shortened(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    cut(text, max)
}

/// The beginning of `text` that takes less than `max` columns.
fn cut(text: &str, max: usize) -> String {
    let mut taken = 0;
    let fits = |c: &char| {
        taken += columns(*c);
        taken < max
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// `text` in lines of at most `max` columns, broken at spaces where there are some; at most [`MAX_LINES`].
pub(super) fn wrapped(text: &str, max: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_inclusive(' ') {
        if !line.is_empty() && width(&line) + width(word.trim_end()) > max {
            lines.push(std::mem::take(&mut line));
        }
        for c in word.chars() {
            if !line.is_empty() && c != ' ' && width(&line) + columns(c) > max {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
        if lines.len() > MAX_LINES {
            break;
        }
    }
    lines.push(line);
    if let Some(last) = lines.get(MAX_LINES - 1).filter(|_| lines.len() > MAX_LINES) {
        lines[MAX_LINES - 1] = cut(last.trim_end(), max);
        lines.truncate(MAX_LINES);
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_is_markup_or_turns_what_follows() {
        assert_eq!(
            escaped("<a href='x'>&\"\u{1b}\n\u{202e}\u{ffff}"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;????"
        );
    }

    #[test]
    fn times_are_short() {
        let times = [0.0, 0.4219, 999.94, 3019.267, 59_999.0, 252_600.0].map(time);
        assert_eq!(times, ["0.0 ms", "0.4 ms", "999.9 ms", "3.02 s", "60.00 s", "4 min 12 s"]);
    }

    #[test]
    fn no_line_is_longer_than_it_may_be() {
        assert_eq!(shortened("web1", 4), "web1");
        assert_eq!(shortened("web10", 4), "web…");
        assert_eq!(shortened("網網網", 5), "網網…");
        assert_eq!(wrapped("the port tap0 has no VLAN tag", 10), ["the port", "tap0 has", "no VLAN", "tag"]);
        assert_eq!(wrapped(&"x".repeat(25), 10), ["x".repeat(10), "x".repeat(10), "x".repeat(5)]);
        assert_eq!(wrapped("", 10), [""]);
        let long = wrapped(&"word ".repeat(100), 10);
        assert_eq!((long.len(), long[3].as_str()), (4, "word word…"));
        for text in [&"x".repeat(500), &"網".repeat(99), &"a bc def ".repeat(50)] {
            let lines = wrapped(text, 11);
            assert!(lines.len() <= MAX_LINES && lines.iter().all(|line| width(line) <= 11), "{lines:?}");
        }
    }
}
