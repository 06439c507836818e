//! Announcements as pictures (SVG 1.1): a bar from the event to the end with each round in it, and the moments below it by number.
//!
//! Milliseconds and minutes are in one bar: the space between two moments grows with the logarithm of the time between them, and
//! the time itself stands in the list.

use std::fmt::Write;

use jiff::Timestamp;

use crate::announcement::progress::Outcome;
use crate::report::record::Report;
use crate::report::svg::words::{CHARACTER, shortened, time, wrapped};
use crate::report::timeline;

pub(crate) use words::escaped;

mod words;

/// The style of pictures, for light and for dark.
pub(crate) const STYLE: &str = "\
.announcement{--text:#1f2328;--quiet:#59636e;--ground:#fff;--wait:#bf8700;--sent:#1a7f37;--lost:#cf222e;--rest:#c8d1da}\
@media(prefers-color-scheme:dark){.announcement{--text:#e6edf3;--quiet:#9198a1;--ground:#0d1117;--wait:#d29922;\
--sent:#3fb950;--lost:#ff6a69;--rest:#3d444d}}\
.announcement text{font:11px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:var(--text)}\
.announcement .name{font-weight:700}.announcement .quiet{fill:var(--quiet)}.announcement .number{text-anchor:middle}\
.announcement .time{text-anchor:end}.announcement .ground{fill:var(--ground)}.announcement .wait{fill:var(--wait)}\
.announcement .rest{fill:var(--rest)}.announcement .sent{fill:var(--sent);stroke:var(--ground)}\
.announcement .lost{fill:none;stroke:var(--lost);stroke-width:2}.announcement .tick{stroke:var(--quiet)}\
.announcement .good{fill:var(--sent)}.announcement .bad{fill:var(--lost)}";

/// The width of a picture with one column of moments, in pixels.
pub(crate) const NARROW: u32 = 340;
/// The width of a picture with two of them.
const WIDE: u32 = 2 * NARROW;
const MARGIN: f64 = 12.0;
const LINE: f64 = 16.0;
/// The least space between two moments: room for a number of two digits.
const LEAST_GAP: f64 = 14.0;
/// Moments closer to each other than this are one, in milliseconds.
const AT_ONCE: f64 = 0.0005;

/// A document with a picture of each report, one below the other.
pub fn document(reports: &[&Report]) -> String {
    let pictures: Vec<Picture> = reports.iter().map(|report| Picture::of(report, WIDE)).collect();
    let height: f64 = pictures.iter().map(Picture::height).sum();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDE}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDE} {height}\">\n<style>{STYLE}</style>\n"
    );
    let mut y = 0.0;
    for picture in pictures {
        let _ = writeln!(text, "<g transform=\"translate(0 {y})\">\n{}</g>", picture.element());
        y += picture.height();
    }
    text + "</svg>"
}

/// The picture of a report as an element of a page that has [`STYLE`].
pub(crate) fn element(report: &Report) -> String {
    Picture::of(report, NARROW).element()
}

/// How long an announcement lasted, in milliseconds.
fn lasted(report: &Report) -> Option<f64> {
    let at = |text: &Option<String>| text.as_ref()?.parse::<Timestamp>().ok();
    let (from, to) = (at(&report.event_at)?, at(&report.ended_at)?);
    Some((to.as_millisecond() - from.as_millisecond()) as f64)
}

/// The times of the numbered moments, and where each is in the bar.
struct Scale(Vec<(f64, f64)>);

impl Scale {
    /// For these times in their order, from `left` to `right`.
    fn new(times: Vec<f64>, left: f64, right: f64) -> Scale {
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let room = right - left;
        let least = LEAST_GAP.min(room / gaps.len().max(1) as f64);
        let weight = |gap: f64| gap.ln_1p();
        let all: f64 = gaps.iter().copied().map(weight).sum();
        let spare = room - least * gaps.len() as f64;
        let share = |gap: f64| if all > 0.0 { spare * weight(gap) / all } else { 0.0 };
        let mut x = left;
        let rest = times.iter().skip(1).zip(gaps).map(|(time, gap)| {
            x += least + share(gap);
            (*time, x)
        });
        let first = times.first().map(|time| (*time, left));
        Scale(first.into_iter().chain(rest).collect())
    }

    /// Where a time is; between two moments, later ones are closer to each other.
    fn x(&self, time: f64) -> f64 {
        let after = self.0.partition_point(|(moment, _)| *moment <= time);
        match (after.checked_sub(1).and_then(|before| self.0.get(before)), self.0.get(after)) {
            (Some((from, left)), Some((to, right))) => {
                left + (right - left) * ((time - from) / (to - from)).sqrt()
            }
            (Some((_, x)), None) | (None, Some((_, x))) => *x,
            (None, None) => 0.0,
        }
    }

    /// The number of a moment.
    fn number(&self, time: f64) -> usize {
        self.0.iter().filter(|(moment, _)| *moment <= time + AT_ONCE).count()
    }
}

/// A picture while it is drawn.
struct Picture {
    width: u32,
    /// The base line of the next line of text.
    y: f64,
    label: String,
    body: String,
}

impl Picture {
    fn of(report: &Report, width: u32) -> Picture {
        let mut picture = Picture { width, y: 22.0, label: String::new(), body: String::new() };
        picture.head(report);
        let mut moments: Vec<(String, f64)> = vec![(report.cause.word().into(), 0.0)];
        moments
            .extend(timeline::moments(report).into_iter().map(|(what, at)| (what.to_owned(), at.max(0.0))));
        // The way of the first one is among the reasons.
        let ways = report.evidence.departures.iter().skip(1);
        moments.extend(ways.map(|left| (format!("left by {}", left.departure.device), left.after_ms)));
        let last = report.round_times.last().map(|round| round.until_ms);
        let end = lasted(report).into_iter().chain(last).chain(moments.iter().map(|moment| moment.1));
        moments.push((report.outcome.word().into(), end.fold(0.0, f64::max)));
        moments.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        let mut times: Vec<f64> = moments.iter().map(|(_, at)| *at).collect();
        times.dedup_by(|later, earlier| *later - *earlier < AT_ONCE);
        let scale = Scale::new(times, MARGIN + 6.0, f64::from(width) - MARGIN - 6.0);
        picture.bar(report, &scale);
        picture.rounds(report, &scale);
        picture.list(&moments, &scale);
        picture.reasons(report);
        picture
    }

    fn height(&self) -> f64 {
        self.y
    }

    fn element(&self) -> String {
        let Picture { width, label, body, .. } = self;
        let height = self.height();
        format!(
            "<svg class=\"announcement\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"{label}\">\n<rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n{body}</svg>\n"
        )
    }

    /// Whose announcement it is, and when its event was.
    fn head(&mut self, report: &Report) {
        self.label = escaped(&format!("{}: {}", report.subject(), report.outcome.word()));
        let name = report.domain.as_ref().map(|domain| &*domain.name);
        let mac = report.mac.map(|mac| mac.to_string());
        let nic = [report.device.as_deref(), mac.as_deref()];
        let nic = nic.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let columns = self.columns();
        for (class, text) in [
            ("name", name.unwrap_or_default()),
            ("quiet", &nic),
            ("quiet", report.event_at.as_deref().unwrap_or_default()),
        ] {
            if !text.is_empty() {
                let (title, line) = (escaped(text), escaped(&shortened(text, columns)));
                self.text(class, MARGIN, &format!("<title>{title}</title>{line}"));
                self.y += LINE;
            }
        }
    }

    /// The time until the port was ready, and the time after that.
    fn bar(&mut self, report: &Report, scale: &Scale) {
        let (from, to) = (scale.x(0.0), scale.x(f64::INFINITY));
        let ready = report.ready_after_ms.map_or(to, |at| scale.x(at));
        let y = self.y - 4.0;
        for (class, what, from, to) in
            [("wait", "the port is waited for", from, ready), ("rest", "the port is ready", ready, to)]
        {
            if to > from {
                let width = to - from;
                let _ = writeln!(
                    self.body,
                    "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"12\" rx=\"2\">\
                     <title>{what}</title></rect>"
                );
            }
        }
        for (number, (_, x)) in (1..).zip(&scale.0) {
            let (top, bottom) = (y + 12.0, y + 16.0);
            let _ = writeln!(
                self.body,
                "<path class=\"tick\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>\
                 <text class=\"number\" x=\"{x:.1}\" y=\"{:.1}\">{number}</text>",
                bottom + 10.0
            );
        }
    }

    /// A dot for each round that left, a cross for those that were lost; then their numbers.
    fn rounds(&mut self, report: &Report, scale: &Scale) {
        let y = self.y + 2.0;
        for round in &report.round_times {
            let (from, to) = (scale.x(round.after_ms), scale.x(round.until_ms));
            let _ = match round.left {
                true => writeln!(
                    self.body,
                    "<circle class=\"sent\" cx=\"{from:.1}\" cy=\"{y:.1}\" r=\"4\"><title>round sent after {}</title></circle>",
                    time(round.after_ms)
                ),
                false => writeln!(
                    self.body,
                    "<path class=\"lost\" d=\"{}{}M{from:.1} {y:.1}H{to:.1}\"><title>rounds lost: {}, from {} to {}</title></path>",
                    cross(from, y),
                    cross(to, y),
                    round.rounds,
                    time(round.after_ms),
                    time(round.until_ms)
                ),
            };
        }
        self.y += 3.0 * LINE;
        if report.rounds == 0 && report.evidence.lost_rounds == 0 {
            return;
        }
        let how = if report.evidence.departure.is_some() { "left the host" } else { "sent" };
        let y = self.y - 4.0;
        let (rounds, lost) = (report.rounds, report.evidence.lost_rounds);
        let _ =
            writeln!(self.body, "<circle class=\"sent\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\"/>", MARGIN + 6.0);
        self.text(
            "rounds",
            MARGIN + 18.0,
            &format!("rounds that {}: {rounds}", how.replace("sent", "were sent")),
        );
        self.y += LINE;
        if lost > 0 {
            let (x, y) = (MARGIN + 6.0, self.y - 4.0);
            let _ = writeln!(self.body, "<path class=\"lost\" d=\"{}\"/>", cross(x, y));
            self.text("rounds", MARGIN + 18.0, &format!("rounds that were lost: {lost}"));
            self.y += LINE;
        }
    }

    /// The moments: number, what, when, and how long after the one before.
    fn list(&mut self, moments: &[(String, f64)], scale: &Scale) {
        let lists = (self.width / NARROW).max(1) as usize;
        let length = moments.len().div_ceil(lists);
        let (top, mut before) = (self.y, 0.0);
        for (index, (what, at)) in moments.iter().enumerate() {
            let left = f64::from(NARROW) * (index / length) as f64;
            self.y = top + LINE * (index % length) as f64;
            let what = format!("{:>2} {}", scale.number(*at), shortened(what, 20));
            self.text("moment", left + MARGIN, &escaped(&what).replace(' ', "\u{a0}"));
            self.text("time", left + 236.0, &time(*at));
            if index > 0 {
                self.text(
                    "quiet time",
                    left + f64::from(NARROW) - MARGIN,
                    &format!("+{}", time(at - before)),
                );
            }
            before = *at;
        }
        self.y = top + LINE * length as f64;
    }

    /// By which way it left, or why it did not.
    fn reasons(&mut self, report: &Report) {
        let departure = report.evidence.departure.as_ref().map(ToString::to_string);
        let (class, reason) = match report.outcome {
            Outcome::Announced => ("good", departure.or_else(|| report.evidence.unseen.clone())),
            Outcome::NotReady => ("bad", Some(report.unmet.join("; "))),
            Outcome::Failed => ("bad", report.error.clone()),
            Outcome::Cancelled | Outcome::Superseded => ("quiet", report.error.clone()),
        };
        let faults = report.warnings().into_iter().map(|warning| ("bad", warning));
        let of_outcome = reason.filter(|reason| !reason.is_empty()).map(|reason| (class, reason));
        for (class, reason) in of_outcome.into_iter().chain(faults) {
            for line in wrapped(&reason, self.columns()) {
                self.text(class, MARGIN, &escaped(&line));
                self.y += LINE;
            }
        }
        self.y += 4.0;
    }

    /// The characters of a line.
    fn columns(&self) -> usize {
        ((f64::from(self.width) - 2.0 * MARGIN) / CHARACTER) as usize
    }

    /// `content` is escaped.
    fn text(&mut self, class: &str, x: f64, content: &str) {
        let y = self.y;
        let _ = writeln!(self.body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{content}</text>");
    }
}

fn cross(x: f64, y: f64) -> String {
    let (left, right, top, bottom) = (x - 4.0, x + 4.0, y - 4.0, y + 4.0);
    format!("M{left:.1} {top:.1}L{right:.1} {bottom:.1}M{left:.1} {bottom:.1}L{right:.1} {top:.1}")
}

#[cfg(test)]
mod tests;
