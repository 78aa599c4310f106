//! The bar chart, an SVG of our own making: a group of bars a workload, a bar a system, all from the line at one.

use std::fmt::Write;

/// What is drawn.
pub struct Chart {
    /// Above it.
    pub title: String,
    /// The systems' names, one a colour.
    pub series: Vec<String>,
    /// Each workload's name and the systems' speeds.
    pub groups: Vec<(String, Vec<Option<f64>>)>,
}

/// One a system; told apart by the colour-blind, too (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#56b4e9", "#999999", "#000000", "#e69f00", "#d55e00", "#009e73"];
const BAR_PX: f64 = 9.0;
const GROUP_GAP_PX: f64 = 8.0;
const LEFT_PX: f64 = 120.0;
const PLOT_PX: f64 = 640.0;
const RIGHT_PX: f64 = 60.0;
const TOP_PX: f64 = 56.0;
/// Speeds beyond these are drawn at the edge; their numbers are written all the same.
const SPEED_MIN: f64 = 0.001;
const SPEED_MAX: f64 = 1000.0;

/// The axis: powers of ten that hold every bar.
struct Axis {
    low: i32,
    high: i32,
}

impl Axis {
    fn of(chart: &Chart) -> Self {
        let speeds = chart.groups.iter().flat_map(|(_, speeds)| speeds.iter().flatten());
        let (low, high) = speeds.fold((1.0f64, 1.0f64), |(low, high), &s| (low.min(s), high.max(s)));
        let low = low.max(SPEED_MIN).log10().floor() as i32;
        let high = high.min(SPEED_MAX).log10().ceil() as i32;
        Self { low: low.min(-1), high: high.max(1) }
    }

    fn x(&self, speed: f64) -> f64 {
        let share = (speed.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        LEFT_PX + PLOT_PX * share.clamp(0.0, 1.0)
    }
}

/// The SVG's text.
pub fn draw(chart: &Chart) -> String {
    let axis = Axis::of(chart);
    let group_px = BAR_PX * chart.series.len() as f64 + GROUP_GAP_PX;
    let bottom = TOP_PX + group_px * chart.groups.len() as f64;
    let (width, height) = (LEFT_PX + PLOT_PX + RIGHT_PX, bottom + 24.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut svg, (LEFT_PX, 18.0), "start", "font-size=\"14\"", &chart.title);
    legend(&mut svg, chart);
    grid(&mut svg, &axis, bottom);
    for (index, (name, speeds)) in chart.groups.iter().enumerate() {
        let top = TOP_PX + group_px * index as f64 + GROUP_GAP_PX / 2.0;
        let middle = top + (group_px - GROUP_GAP_PX) / 2.0 + 4.0;
        text(&mut svg, (LEFT_PX - 8.0, middle), "end", "", name);
        for (place, speed) in speeds.iter().enumerate() {
            if let Some(speed) = speed.filter(|speed| speed.is_finite() && *speed > 0.0) {
                bar(&mut svg, &axis, (top + BAR_PX * place as f64, colour(place)), speed);
            }
        }
    }
    svg + "</svg>"
}

fn colour(place: usize) -> &'static str {
    COLOURS[place % COLOURS.len()]
}

/// From the line at one to the speed, with its number at the end.
fn bar(svg: &mut String, axis: &Axis, (top, colour): (f64, &str), speed: f64) {
    let (one, end) = (axis.x(1.0), axis.x(speed));
    let (x, width, height) = (one.min(end), (one - end).abs().max(1.0), BAR_PX - 1.0);
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
    );
    let (at, anchor) = if end < one { (end - 3.0, "end") } else { (end + 3.0, "start") };
    text(svg, (at, top + BAR_PX - 2.0), anchor, "font-size=\"8\"", &format!("{speed:.2}"));
}

fn legend(svg: &mut String, chart: &Chart) {
    let mut x = LEFT_PX;
    for (place, name) in chart.series.iter().enumerate() {
        let fill = colour(place);
        let _ = writeln!(svg, "<rect x=\"{x:.1}\" y=\"27\" width=\"10\" height=\"10\" fill=\"{fill}\"/>");
        text(svg, (x + 14.0, 36.0), "start", "", name);
        x += 28.0 + 6.5 * name.chars().count() as f64;
    }
}

/// A line at each power of ten.
fn grid(svg: &mut String, axis: &Axis, bottom: f64) {
    for power in axis.low..=axis.high {
        let speed = 10f64.powi(power);
        let (x, stroke) = (axis.x(speed), if power == 0 { "#000000" } else { "#cccccc" });
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP_PX}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"{stroke}\"/>"
        );
        text(svg, (x, bottom + 14.0), "middle", "", &format!("{speed}"));
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, more: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart {
            title: "a < b & c".into(),
            series: vec!["one".into(), "two".into()],
            groups: vec![
                ("fork".into(), vec![Some(2.0), Some(0.05)]),
                ("gcc".into(), vec![None, Some(f64::INFINITY)]),
                ("far".into(), vec![Some(1e9), Some(0.0)]),
            ],
        }
    }

    /// Every element is closed in its turn, every attribute is quoted, nothing is left bare.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        for piece in svg.split('<').skip(1) {
            let (tag, words) = piece.split_once('>').expect("a tag ends");
            assert!(
                words.split('&').skip(1).all(|w| ["amp;", "lt;", "gt;"].iter().any(|e| w.starts_with(e)))
            );
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            assert_eq!(tag.matches("=\"").count() * 2, tag.matches('"').count(), "{tag}");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().expect("a name");
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?} are not closed");
    }

    #[test]
    fn the_drawing_is_well_formed_whatever_is_drawn() {
        let svg = draw(&chart());
        assert_well_formed(&svg);
        assert!(svg.contains("a &lt; b &amp; c"));
        assert!(!svg.contains("inf") && !svg.contains("NaN"));
        assert_well_formed(&draw(&Chart { title: String::new(), series: vec![], groups: vec![] }));
    }

    #[test]
    fn equal_ratios_are_equal_lengths_on_both_sides_of_one() {
        let axis = Axis::of(&chart());
        let (left, right) = (axis.x(1.0) - axis.x(0.5), axis.x(2.0) - axis.x(1.0));
        assert!((left - right).abs() < 1e-9);
        assert!(axis.x(0.05) >= LEFT_PX && axis.x(1e9) <= LEFT_PX + PLOT_PX);
    }

    #[test]
    fn only_what_was_measured_has_a_bar() {
        // Background, two of the legend, and three bars.
        assert_eq!(draw(&chart()).matches("<rect").count(), 1 + 2 + 3);
    }
}
