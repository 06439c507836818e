//! The daemon's page: which VMs are here, which wait and for what, and the last announcements with their timelines.
//!
//! Names and reasons come from tenants and other programs: all of them are escaped. There is no script, and [`POLICY`] forbids any.

use std::fmt::{Display, Write};

use crate::report::snapshot::{Ended, Peer, Snapshot};
use crate::report::svg::{self, escaped};
use crate::report::{count, unmet};

/// The headers of the page (Content Security Policy Level 3): nothing is loaded but the style, and nothing runs.
pub(crate) const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The path of the style, in the page's own directory.
pub(crate) const STYLE_PATH: &str = "style.css";
/// The VMs that are named; of more, only the number is told.
const MAX_VMS: usize = 1000;
/// The announcements under way that are described.
const MAX_UNDER_WAY: usize = 500;
/// The announcements that are drawn.
const MAX_PICTURES: usize = 20;

/// A VM of this host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Here {
    /// Its name, or its UUID where libvirt has not told the name.
    pub name: String,
    /// It runs; otherwise it is paused.
    pub runs: bool,
}

/// The style of the page and of its pictures.
pub fn style() -> String {
    format!("{}{}", include_str!("page.css"), svg::STYLE)
}

/// The page of the host with this name, at `now` (RFC 3339).
pub fn draw(host: &str, now: &str, status: &Snapshot, here: &[Here]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta http-equiv=\"refresh\" content=\"10\">\n\
         <title>announced on {0}</title>\n<link rel=\"stylesheet\" href=\"{STYLE_PATH}\">\n</head>\n<body>\n\
         <header>\n<h1>{0}</h1>\n",
        escaped(host)
    );
    head(&mut page, now, status);
    page.push_str("</header>\n<main>\n");
    under_way(&mut page, now, status);
    ended(&mut page, &status.recent);
    vms(&mut page, here);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// The daemon, its configuration and its peers.
fn head(page: &mut String, now: &str, status: &Snapshot) {
    let daemon = &status.daemon;
    let config = daemon.config.as_deref().unwrap_or("the defaults");
    let words = format!(
        "announced {} since {}, configuration: {config}",
        daemon.version,
        seconds(&daemon.started_at)
    );
    line(page, "p", "", words);
    if let Some(error) = &daemon.config_error {
        line(page, "p", "bad", format!("the last reload failed: {error}"));
    }
    if let Some(paused) = &status.paused {
        let reason = paused.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        line(page, "p", "bad", format!("PAUSED until {}{reason}: nothing is sent", seconds(&paused.until)));
    }
    page.push_str("<ul class=\"peers\">\n");
    for peer in status.peers.iter().filter(|peer| !peer.absent) {
        line(page, "li", if peer.connected { "good" } else { "bad" }, connection(peer));
    }
    line(page, "li", "", format!("as of {}", seconds(now)));
    page.push_str("</ul>\n");
}

fn connection(peer: &Peer) -> String {
    let since = peer.since.as_deref().map(|since| format!(" since {}", seconds(since))).unwrap_or_default();
    let why = peer.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    let is = if peer.connected { "connected" } else { "NOT connected" };
    format!("{} {is}{since}{why}", peer.peer)
}

/// What waits and for what, then what is being sent.
fn under_way(page: &mut String, now: &str, status: &Snapshot) {
    let all = &status.announcements;
    heading(page, &format!("{} under way", count(all.len(), "announcement")));
    if all.is_empty() {
        return;
    }
    let (waiting, sending): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.standing.condition.is_some());
    page.push_str("<ul class=\"rows\">\n");
    for one in waiting.iter().chain(&sending).take(MAX_UNDER_WAY) {
        let (class, cause) =
            (if one.standing.condition.is_some() { "wait" } else { "good" }, one.cause.word());
        page.push_str("<li>");
        line(page, "b", "", one.subject());
        line(page, "span", "", format!("{cause} at {}", seconds(&one.event_at)));
        line(page, "span", class, one.how(now));
        page.push_str("</li>\n");
    }
    page.push_str("</ul>\n");
    more(page, all.len(), MAX_UNDER_WAY);
}

/// The last announcements, the latest first.
fn ended(page: &mut String, recent: &[Ended]) {
    heading(page, "Last announcements");
    if recent.is_empty() {
        return line(page, "p", "", "none since the daemon started");
    }
    page.push_str("<div class=\"pictures\">\n");
    for ended in recent.iter().rev().take(MAX_PICTURES) {
        page.push_str("<figure>\n");
        page.push_str(&svg::element(&ended.report));
        let remedies = ended.report.conditions.iter().filter(|condition| condition.remedy.is_some()).cloned();
        let remedies: Vec<_> = remedies.collect();
        if !remedies.is_empty() {
            line(page, "figcaption", "", unmet::words(&remedies));
        }
        page.push_str("</figure>\n");
    }
    page.push_str("</div>\n");
    more(page, recent.len(), MAX_PICTURES);
}

fn vms(page: &mut String, here: &[Here]) {
    heading(page, &format!("{} here", count(here.len(), "VM")));
    page.push_str("<ul class=\"vms\">\n");
    for vm in here.iter().take(MAX_VMS) {
        let (class, state) = if vm.runs { ("", "") } else { ("wait", " (paused)") };
        line(page, "li", class, format!("{}{state}", vm.name));
    }
    page.push_str("</ul>\n");
    more(page, here.len(), MAX_VMS);
}

fn heading(page: &mut String, words: &str) {
    line(page, "h2", "", words);
}

fn more(page: &mut String, all: usize, shown: usize) {
    if let Some(rest) = all.checked_sub(shown).filter(|rest| *rest > 0) {
        line(page, "p", "", format!("and {rest} more"));
    }
}

/// One element with text.
fn line(page: &mut String, element: &str, class: &str, words: impl Display) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let _ = writeln!(page, "<{element}{class}>{}</{element}>", escaped(&words.to_string()));
}

/// `2026-11-25 17:34:46 UTC` of a time (RFC 3339, UTC).
fn seconds(at: &str) -> String {
    match at.split_once('T') {
        Some((day, time)) => format!("{day} {} UTC", time.get(..8).unwrap_or(time)),
        None => at.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::*;
    use crate::guest::event::Cause;
    use crate::guest::target::{DomainId, Unannounceable};
    use crate::report::Report;
    use crate::report::standing::{Standing, UnderWay};
    use crate::report::unmet::Unmet;

    const HOSTILE: &str = "</li><script>alert(1)</script><a href='//x'>&\"\u{202e}";
    const NOW: &str = "2026-11-25T17:35:00.000Z";

    fn crowded(vms: usize) -> (Snapshot, Vec<Here>) {
        let name = |n: usize| format!("{n}{HOSTILE}");
        let tag = Unmet { code: "tag".into(), text: name(0), remedy: Some(name(1)) };
        let of = |n: usize| {
            let standing = Standing {
                device: Some(name(n)),
                condition: (n % 2 == 0).then(|| "tag".into()),
                unmet: if n % 2 == 0 { vec![tag.clone()] } else { Vec::new() },
                since: Some("2026-11-25T17:34:50.000Z".into()),
                why: Some(name(n)),
                ..Standing::default()
            };
            let mac = "fa:16:3e:00:00:11".parse().unwrap();
            let event_at = "2026-11-25T17:34:46.293Z".into();
            let (vm, cause) = (Some(name(n)), Cause::Migrated);
            UnderWay { vm, uuid: None, mac, cause, event: None, event_at, standing }
        };
        let report = |n: usize| {
            let domain = Some(DomainId { name: name(n).into(), uuid: "".into() });
            let (device, reason) = (Some(name(n)), name(n));
            let nic = Unannounceable { domain, device, mac: None, reason, by_representor: None };
            Report { conditions: vec![tag.clone()], ..Report::refused(&nic, Cause::Migrated) }
        };
        let recent = (0..vms).map(|n| Ended { at: NOW.into(), report: report(n) }).collect();
        let peer = Peer { peer: name(3), why: Some(name(4)), ..Peer::default() };
        let announcements = (0..vms).map(of).collect();
        let status = Snapshot { announcements, recent, peers: vec![peer], ..Snapshot::default() };
        let here = (0..vms).map(|n| Here { name: name(n), runs: n % 3 > 0 }).collect();
        (status, here)
    }

    /// The page as XML, which it nearly is.
    fn parsed(page: &str) -> String {
        let void =
            page.lines().filter(|line| !["<!", "<meta", "<link"].iter().any(|tag| line.starts_with(tag)));
        void.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn nothing_that_a_tenant_chooses_is_markup() {
        let (mut status, here) = crowded(7);
        status.daemon.config_error = Some(HOSTILE.into());
        let page = draw(HOSTILE, NOW, &status, &here);
        let text = parsed(&page);

        let document = Document::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let names = document.descendants().map(|node| node.tag_name().name());
        assert!(names.clone().filter(|name| *name == "figure").count() == 7);
        assert!(!names.clone().any(|name| ["script", "a"].contains(&name)), "{page}");
        assert!(document.descendants().all(|node| node.attributes().all(|of| !of.name().starts_with("on"))));
        assert!(!page.contains('\u{202e}'), "no name turns what follows");
    }

    #[test]
    fn its_size_is_bounded_whatever_is_here() {
        let (status, here) = crowded(3000);
        let page = draw("host", NOW, &status, &here);
        assert_eq!(page.matches("<svg").count(), MAX_PICTURES);
        assert!(
            page.contains("and 2000 more")
                && page.contains("and 2500 more")
                && page.contains("and 2980 more")
        );
        assert!(page.len() < 2_000_000, "{}", page.len());
    }

    #[test]
    fn those_that_wait_come_first_with_what_they_wait_for() {
        let (status, here) = crowded(4);
        let page = draw("host", NOW, &status, &here);
        let place = |words: &str| page.find(words).unwrap_or_else(|| panic!("{words}: {page}"));
        assert!(place("waiting for 10.0 s") < place("round 0 of 0"), "{page}");
        assert!(page.contains("4 VMs here") && page.contains(" (paused)"), "{page}");
    }
}
