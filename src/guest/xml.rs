//! libvirt's XML, bounded before it is parsed: its `<metadata>` is any program's text.

use std::borrow::Cow;

/// The longest XML that is parsed, in bytes: libvirt's own limit of a text in its protocol (`REMOTE_STRING_MAX`,
/// `src/remote/remote_protocol.x`). Its `test:///` drivers have none.
const MAX_LENGTH: usize = 4 << 20;
/// The most namespace declarations that are parsed. The parser's time grows with the cube of their number; each program that
/// writes metadata declares one or two.
const MAX_NAMESPACES: usize = 64;
/// The most attributes of an element that is parsed: the parser compares each with each. libvirt's have thirty at most.
const MAX_ATTRIBUTES: usize = 256;

/// What XML has more of, outside of `<metadata>`, than is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unbounded {
    /// Its length.
    #[error("it is longer than {} MiB", MAX_LENGTH >> 20)]
    Length,
    /// Namespaces.
    #[error("it declares more than {MAX_NAMESPACES} XML namespaces")]
    Namespaces,
    /// Attributes of one element.
    #[error("an element has more than {MAX_ATTRIBUTES} attributes")]
    Attributes,
}

/// The XML; without its `<metadata>`, where it has more of something than is parsed.
pub(crate) fn bounded(xml: &str) -> Result<Cow<'_, str>, Unbounded> {
    const END: &str = "</metadata>";
    let Err(why) = check(xml) else {
        return Ok(xml.into());
    };
    let metadata = xml.find("<metadata").zip(xml.rfind(END)).filter(|(start, end)| start < end);
    let (start, end) = metadata.ok_or(why)?;
    let rest = [&xml[..start], &xml[end + END.len()..]].concat();
    check(&rest).map(|()| rest.into())
}

/// Why not all of it is parsed.
pub(crate) fn check(xml: &str) -> Result<(), Unbounded> {
    if xml.len() > MAX_LENGTH {
        Err(Unbounded::Length)
    } else if xml.matches("xmlns").nth(MAX_NAMESPACES).is_some() {
        Err(Unbounded::Namespaces)
    } else if xml.split('<').any(|tag| attributes(tag) > MAX_ATTRIBUTES) {
        Err(Unbounded::Attributes)
    } else {
        Ok(())
    }
}

/// The number of attributes in the tag that a text begins with, whose `<` is left out. Well-formed XML has no `<` within a tag.
fn attributes(tag: &str) -> usize {
    let (mut quote, mut count) = (None, 0);
    for byte in tag.bytes() {
        match (byte, quote) {
            (b'"' | b'\'', None) => (quote, count) = (Some(byte), count + 1),
            (b'>', None) => break,
            _ if quote == Some(byte) => quote = None,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(metadata: &str) -> String {
        format!("<domain><name>web1</name><metadata>{metadata}</metadata><uuid>u</uuid></domain>")
    }

    /// So many namespaces, nested.
    fn namespaces(many: usize) -> String {
        let starts: String = (0..many).map(|n| format!("<a{n}:x xmlns:a{n}='u{n}'>")).collect();
        let ends: String = (0..many).rev().map(|n| format!("</a{n}:x>")).collect();
        starts + &ends
    }

    /// An element with so many attributes, whose values have what could end it.
    fn attributes(many: usize) -> String {
        let attributes: String = (0..many).map(|n| format!(" a{n}=\"'>\" ")).collect();
        format!("<a{attributes}/>")
    }

    #[test]
    fn metadata_that_is_not_parsed_is_left_out() {
        let long = "x".repeat(MAX_LENGTH);
        for (bounds, beyond, why) in [
            (namespaces(64), namespaces(65), Unbounded::Namespaces),
            (attributes(256), attributes(257), Unbounded::Attributes),
            (long[100..].to_owned(), long, Unbounded::Length),
        ] {
            assert_eq!(bounded(&domain(&bounds)).unwrap(), domain(&bounds));
            let without = "<domain><name>web1</name><uuid>u</uuid></domain>";
            assert!(bounded(&domain(&beyond)).is_ok_and(|rest| rest == without), "{why}");
            let elsewhere = domain(&beyond).replace("metadata", "devices");
            assert_eq!(bounded(&elsewhere), Err(why));
        }
        assert_eq!(bounded(&format!("</metadata>{}<metadata", domain(&namespaces(65)))).map(|_| ()), Ok(()));
    }
}
