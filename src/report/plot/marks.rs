//! The marks of a chart: text that fits and is safe in XML, colours and markers.

use crate::{proto::http::text::html, report::table::clip, text::width};

pub(super) const FONT: f64 = 14.0;
/// The mean width of a letter in the fonts that `sans-serif` stands for, in parts of its size;
/// on the large side, for a text that is cut is worse than one with room.
pub(super) const LETTER: f64 = 0.58;
/// Okabe and Ito's colours, without their yellow, which a white ground swallows.
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
const MARKERS: usize = 6;

pub(super) fn colour(place: usize) -> &'static str {
    COLOURS[place % COLOURS.len()]
}

/// The marker of the series in this place: six shapes against seven colours, so that 42 series
/// differ. A white edge keeps markers apart that touch; hollow ones are white inside.
pub(super) fn marker(place: usize, hollow: bool, x: f64, y: f64) -> String {
    let shape = match place % MARKERS {
        0 => "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
        1 => "m-4.5-4.5h9v9h-9z",
        2 => "m0-6l5.5 10h-11z",
        3 => "m0-6.2l6.2 6.2l-6.2 6.2l-6.2-6.2z",
        4 => "m0 6l5.5-10h-11z",
        _ => "m-2.5-6.5h5v4h4v5h-4v4h-5v-4h-4v-5h4z",
    };
    let colour = colour(place);
    let paint = if hollow {
        format!("fill=\"#ffffff\" stroke=\"{colour}\" stroke-width=\"1.6\"")
    } else {
        format!("fill=\"{colour}\" stroke=\"#ffffff\"")
    };
    format!("<path d=\"M{x:.1} {y:.1}{shape}\" {paint}/>\n")
}

pub(super) fn text(x: f64, y: f64, anchor: &str, size: f64, text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{}</text>\n",
        xml(text)
    )
}

/// About how many pixels `text` takes; fonts differ.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    f64::from(u32::try_from(width(text)).unwrap_or(u32::MAX)) * size * LETTER
}

/// As much of `text` as fits into `room` pixels.
pub(super) fn fitted(text: &str, size: f64, room: f64) -> String {
    // Positive and small: a picture is some thousand pixels.
    clipped(text, (room / (size * LETTER)) as usize)
}

pub(super) fn clipped(text: &str, letters: usize) -> String {
    let mut kept = text.to_owned();
    clip(&mut kept, letters, "…");
    kept
}

/// `text` as XML or HTML: no markup, and none of the characters that XML 1.0 forbids even escaped.
pub fn xml(text: &str) -> String {
    html(text).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}
