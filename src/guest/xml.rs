//! libvirt's XML, bounded before it is parsed: its `<metadata>` is any program's text.

use std::borrow::Cow;

/// The most namespace declarations that are parsed. The parser's time grows with the cube of their number; each program that
/// writes metadata declares one or two.
const MAX_NAMESPACES: usize = 64;

/// The XML declares more namespaces outside of `<metadata>` than are parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it declares more than {MAX_NAMESPACES} XML namespaces")]
pub struct TooManyNamespaces;

/// The XML; without its `<metadata>`, where it declares more namespaces than are parsed.
pub(crate) fn bounded(xml: &str) -> Result<Cow<'_, str>, TooManyNamespaces> {
    if is_bounded(xml) {
        return Ok(xml.into());
    }
    const END: &str = "</metadata>";
    let metadata = xml.find("<metadata").zip(xml.rfind(END)).filter(|(start, end)| start < end);
    let (start, end) = metadata.ok_or(TooManyNamespaces)?;
    let rest = [&xml[..start], &xml[end + END.len()..]].concat();
    if is_bounded(&rest) { Ok(rest.into()) } else { Err(TooManyNamespaces) }
}

/// Whether all of it is parsed.
pub(crate) fn is_bounded(xml: &str) -> bool {
    xml.matches("xmlns").nth(MAX_NAMESPACES).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A domain whose metadata declares `many` namespaces, nested.
    fn domain(many: usize) -> String {
        let starts: String = (0..many).map(|n| format!("<a{n}:x xmlns:a{n}='u{n}'>")).collect();
        let ends: String = (0..many).rev().map(|n| format!("</a{n}:x>")).collect();
        format!("<domain><name>web1</name><metadata>{starts}{ends}</metadata><uuid>u</uuid></domain>")
    }

    #[test]
    fn metadata_with_many_namespaces_is_left_out() {
        assert_eq!(bounded(&domain(64)).unwrap(), domain(64));
        assert_eq!(bounded(&domain(65)).unwrap(), "<domain><name>web1</name><uuid>u</uuid></domain>");
        let elsewhere = domain(65).replace("metadata", "devices");
        assert_eq!(bounded(&elsewhere), Err(TooManyNamespaces));
        assert_eq!(bounded(&format!("</metadata>{}<metadata", domain(65))).map(|_| ()), Ok(()));
    }
}
