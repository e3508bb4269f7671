//! Charts as SVG, written by hand: lines with markers and error bars, dashed references, bars,
//! ticks at round numbers, and a legend beside the plot where it hides nothing.
//!
//! A chart is one self-contained text: no scripts, no fonts or pictures from elsewhere. Series
//! differ in colour (Okabe and Ito's, which colour-blind readers tell apart) and in the shape of
//! their markers, so a print in grey can be read too. A chart knows no sessions.

mod marks;
mod scale;

pub use self::{marks::xml, scale::Axis};

use std::fmt::Write;

use self::{
    marks::{FONT, clipped, colour, fitted, marker, text, text_width},
    scale::{Scale, is_drawable, labels, without_collisions},
};

/// A chart; [`Chart::to_svg`] draws it.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// What it shows, one line.
    pub title: String,
    /// How it came about, one smaller line; may be empty.
    pub subtitle: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The lines, in the legend's order.
    pub series: Vec<Series>,
}

/// One line of a chart.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points, drawn in this order.
    pub points: Vec<Point>,
    /// Drawn dashed and without markers: a bound or reference, nothing measured.
    pub reference: bool,
    /// Has colour and marker of the series before it, the marker hollow: another figure of the
    /// same thing.
    pub companion: bool,
    /// Drawn as bars from the floor, which reach from so far left of their points to so far right.
    pub bars: Option<(f64, f64)>,
}

/// A point of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where on the horizontal axis.
    pub x: f64,
    /// Where on the vertical axis.
    pub y: f64,
    /// The ends of its error bar, low and high.
    pub range: Option<(f64, f64)>,
}

// The picture, in pixels. The plot is wide enough for 14 ticks, the fonts are what a reader of a
// printed page needs.
const PLOT_WIDTH: f64 = 640.0;
const PLOT_HEIGHT: f64 = 400.0;
const LEFT: f64 = 96.0;
const TOP: f64 = 76.0;
const BOTTOM: f64 = 72.0;
const LEGEND_GAP: f64 = 28.0;
const LEGEND_LINE: f64 = 24.0;
/// Longest name in the legend, letters.
const NAME_MAX: usize = 48;

impl Point {
    /// A point without an error bar.
    pub fn new(x: f64, y: f64) -> Self {
        Self { x, y, range: None }
    }

    fn is_drawable(&self) -> bool {
        is_drawable(self.x) && is_drawable(self.y)
    }
}

impl Series {
    /// What was measured.
    pub fn new(name: impl Into<String>, points: Vec<Point>) -> Self {
        Self { name: name.into(), points, ..Self::default() }
    }

    /// A level line of height `y` from `x.0` to `x.1`, as a reference.
    pub fn level(name: impl Into<String>, y: f64, x: (f64, f64)) -> Self {
        let points = vec![Point::new(x.0, y), Point::new(x.1, y)];
        Self { reference: true, ..Self::new(name, points) }
    }
}

impl Chart {
    /// The chart as an SVG document. Points that are not finite, or beyond 10^15, are left out.
    pub fn to_svg(&self) -> String {
        let points = || {
            let series = self.series.iter().flat_map(|series| &series.points);
            series.filter(|point| point.is_drawable())
        };
        let across = self.series.iter().flat_map(|series| {
            let (left, right) = series.bars.unwrap_or_default();
            let drawable = series.points.iter().filter(|point| point.is_drawable());
            drawable.flat_map(move |point| [point.x - left, point.x + right])
        });
        let x = Scale::new(&self.x, across, LEFT, LEFT + PLOT_WIDTH);
        let heights = points().flat_map(|point| {
            let (low, high) = point.range.unwrap_or((point.y, point.y));
            [point.y, low, high]
        });
        let y = Scale::new(&self.y, heights, TOP + PLOT_HEIGHT, TOP);
        let names = self.series.iter().map(|series| clipped(&series.name, NAME_MAX));
        let longest = names.map(|name| text_width(&name, FONT)).fold(0.0, f64::max);
        let legend = LEGEND_GAP + 40.0 + longest + 16.0;
        let full_width = LEFT + PLOT_WIDTH + if self.series.is_empty() { 24.0 } else { legend };
        let rows = f64::from(u32::try_from(self.series.len()).unwrap_or(u32::MAX));
        let full_height = (TOP + PLOT_HEIGHT + BOTTOM).max(TOP + rows * LEGEND_LINE + 16.0);

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{full_width:.0}\" \
             height=\"{full_height:.0}\" viewBox=\"0 0 {full_width:.0} {full_height:.0}\" \
             role=\"img\" font-family=\"DejaVu Sans, Arial, Helvetica, sans-serif\" \
             font-size=\"{FONT}\" fill=\"#222222\">\n<title>{}</title>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
            xml(&self.title)
        );
        let room = full_width - LEFT - 16.0;
        svg += &text(LEFT, 30.0, "start", 18.0, &fitted(&self.title, 18.0, room));
        svg += &text(LEFT, 54.0, "start", 13.0, &fitted(&self.subtitle, 13.0, room));
        if points().next().is_some() {
            self.draw_ticks(&mut svg, &x, &y);
        } else {
            let (middle, height) = (LEFT + PLOT_WIDTH / 2.0, TOP + PLOT_HEIGHT / 2.0);
            svg += &text(middle, height, "middle", FONT, "no data");
        }
        self.draw_axes(&mut svg);
        // References first, so that nothing measured is ever under one.
        for measured in [false, true] {
            for (place, series) in self.places() {
                if series.reference != measured {
                    draw_series(&mut svg, place, series, &x, &y);
                }
            }
        }
        self.draw_legend(&mut svg);
        svg + "</svg>\n"
    }

    /// Each series with its place in the row of colours and markers.
    fn places(&self) -> impl Iterator<Item = (usize, &Series)> {
        let mut next = 0;
        self.series.iter().map(move |series| {
            if !series.companion || next == 0 {
                next += 1;
            }
            (next - 1, series)
        })
    }

    fn draw_ticks(&self, svg: &mut String, x: &Scale, y: &Scale) {
        let (right, floor) = (LEFT + PLOT_WIDTH, TOP + PLOT_HEIGHT);
        let ticks = |axis: &Axis, scale: &Scale, wanted| {
            let mut ticks: Vec<f64> = axis.ticks.clone();
            ticks.retain(|&tick| scale.holds(tick));
            ticks.sort_by(f64::total_cmp);
            ticks.dedup();
            if ticks.is_empty() { scale.round_ticks(wanted) } else { ticks }
        };
        let across = ticks(&self.x, x, 8.0);
        let labels = labels(&across, x.logarithmic);
        let shown = without_collisions(&across, &labels, x);
        for ((&tick, label), shown) in across.iter().zip(&labels).zip(shown) {
            let at = x.pixel(tick);
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {TOP}V{floor}\" stroke=\"#eeeeee\"/>\
                 <path d=\"M{at:.1} {floor}v6\" stroke=\"#444444\"/>"
            );
            if shown {
                *svg += &text(at, floor + 22.0, "middle", FONT, label);
            }
        }
        let up = ticks(&self.y, y, 6.0);
        for (&tick, label) in up.iter().zip(&self::labels(&up, y.logarithmic)) {
            let at = y.pixel(tick);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#dddddd\"/>\
                 <path d=\"M{LEFT} {at:.1}h-6\" stroke=\"#444444\"/>"
            );
            *svg += &text(LEFT - 10.0, at + 5.0, "end", FONT, label);
        }
    }

    fn draw_axes(&self, svg: &mut String) {
        let (right, floor) = (LEFT + PLOT_WIDTH, TOP + PLOT_HEIGHT);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {TOP}V{floor}H{right}\" fill=\"none\" stroke=\"#444444\"/>"
        );
        let middle = LEFT + PLOT_WIDTH / 2.0;
        *svg +=
            &text(middle, floor + 52.0, "middle", 15.0, &fitted(&self.x.label, 15.0, PLOT_WIDTH));
        let label = fitted(&self.y.label, 15.0, PLOT_HEIGHT);
        let _ = writeln!(
            svg,
            "<text transform=\"translate(24 {:.1}) rotate(-90)\" text-anchor=\"middle\" \
             font-size=\"15\">{}</text>",
            TOP + PLOT_HEIGHT / 2.0,
            xml(&label)
        );
    }

    fn draw_legend(&self, svg: &mut String) {
        let left = LEFT + PLOT_WIDTH + LEGEND_GAP;
        let mut at = TOP + 10.0;
        for (place, series) in self.places() {
            let (colour, dashes) = (colour(place), dashes(series));
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {at:.1}h32\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>"
            );
            if !series.reference && series.bars.is_none() {
                *svg += &marker(place, series.companion, left + 16.0, at);
            }
            let name = clipped(&series.name, NAME_MAX);
            *svg += &text(left + 40.0, at + 5.0, "start", FONT, &name);
            at += LEGEND_LINE;
        }
    }
}

fn draw_series(svg: &mut String, place: usize, series: &Series, x: &Scale, y: &Scale) {
    let colour = colour(place);
    let drawn = || {
        let inside = |point: &&Point| x.holds(point.x) && y.holds(point.y);
        series.points.iter().filter(inside)
    };
    if let Some((left, right)) = series.bars {
        for point in drawn() {
            let (left, right) = (x.pixel(point.x - left), x.pixel(point.x + right));
            let (at, floor) = (y.pixel(point.y), y.start);
            let shape = format!("M{left:.2} {floor:.2}V{at:.2}H{right:.2}V{floor:.2}z");
            let _ = writeln!(svg, "<path d=\"{shape}\" fill=\"{colour}\"/>");
        }
        return;
    }
    let mut line = String::new();
    for point in drawn() {
        let letter = if line.is_empty() { 'M' } else { 'L' };
        let _ = write!(line, "{letter}{:.1} {:.1}", x.pixel(point.x), y.pixel(point.y));
    }
    if line.is_empty() {
        return;
    }
    let dashes = dashes(series);
    let _ = writeln!(
        svg,
        "<path d=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
         stroke-linejoin=\"round\"{dashes}/>"
    );
    for point in drawn() {
        let at = x.pixel(point.x);
        if let Some((low, high)) = point.range.filter(|&(low, high)| low < high) {
            // On a logarithmic axis a bar that reaches zero ends at the frame.
            let (low, high) = (y.pixel(low.max(y.low)), y.pixel(high.min(y.high)));
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {low:.1}V{high:.1}m-5 0h10M{:.1} {low:.1}h10\" fill=\"none\" \
                 stroke=\"{colour}\" stroke-width=\"1.3\" stroke-opacity=\"0.8\"/>",
                at - 5.0
            );
        }
        if !series.reference {
            *svg += &marker(place, series.companion, at, y.pixel(point.y));
        }
    }
}

fn dashes(series: &Series) -> &'static str {
    if series.reference { " stroke-dasharray=\"7 5\"" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let series = |name: &str, height: f64| Series {
            name: name.to_owned(),
            points: (1..=3).map(|x| Point::new(f64::from(x), height * f64::from(x))).collect(),
            ..Series::default()
        };
        Chart {
            title: "A & B <seconds>".to_owned(),
            subtitle: "\u{202e}\u{1b}\"x\"".to_owned(),
            x: Axis { label: "clients".to_owned(), ..Axis::default() },
            y: Axis { label: "time (s)".to_owned(), from_zero: true, ..Axis::default() },
            series: vec![
                series("tcp", 1.0),
                series("udp", 2.0),
                Series::level("bound", 1.5, (1.0, 3.0)),
            ],
        }
    }

    /// Every element is closed in order, and nothing but elements and text is there.
    fn is_well_formed(svg: &str) -> bool {
        let mut open: Vec<&str> = Vec::new();
        for part in svg.split('<').skip(1) {
            let Some((tag, text)) = part.split_once('>') else {
                return false;
            };
            if text.contains('>') || tag.matches('"').count() % 2 != 0 {
                return false;
            }
            let name = tag.split_whitespace().next().unwrap_or_default();
            if let Some(closed) = name.strip_prefix('/') {
                if open.pop() != Some(closed) {
                    return false;
                }
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        open.is_empty()
    }

    #[test]
    fn chart_is_well_formed_svg() {
        let svg = chart().to_svg();
        assert!(is_well_formed(&svg), "{svg}");
        assert!(!is_well_formed(&svg.replacen("&lt;", "<", 1)), "the check sees nothing");
        assert!(svg.contains("A &amp; B &lt;seconds&gt;"));
        assert!(svg.contains("\\u{202e}\\u{1b}&quot;x&quot;"));
        assert_eq!(svg.matches("stroke-dasharray").count(), 2, "line and legend");
        // Three points and one in the legend, for each of the two that were measured.
        assert_eq!(svg.matches("stroke=\"#ffffff\"").count(), 8);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn odd_values_stay_inside_the_chart() {
        let odd = [f64::NAN, f64::INFINITY, f64::MAX, -1.0, 0.0, 1e-300, 5.0];
        for logarithmic in [false, true] {
            let mut chart = chart();
            chart.x.logarithmic = logarithmic;
            chart.y.logarithmic = logarithmic;
            chart.x.ticks = odd.to_vec();
            for (x, y) in odd.iter().flat_map(|&x| odd.map(|y| (x, y))) {
                let range = Some((y - 1.0, y + 1.0));
                chart.series[0].points.push(Point { x, y, range });
                let svg = chart.to_svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{x} {y}: {svg}");
            }
        }
        let empty = Chart::default().to_svg();
        assert!(is_well_formed(&empty) && empty.contains("no data"), "{empty}");
    }
}
