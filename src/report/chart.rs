//! Charts as SVG: lines and points over steps, bars of memory, shares of time. Colours are variables of the page, so
//! that one drawing serves a light page and a dark one.

use std::fmt::Write;

/// Width and height of a chart, and the room for labels to the left and below.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 64.0;
const BELOW: f64 = 30.0;
const ABOVE: f64 = 10.0;
const RIGHT: f64 = 14.0;

/// The most points that a line is drawn with; more are averaged.
const MOST_POINTS: usize = 700;

/// One line or cloud of points.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    /// A CSS colour.
    pub colour: String,
    pub points: Vec<(f64, f64)>,
    pub drawn: Drawn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawn {
    Line,
    /// In the background.
    Faint,
    Points,
    /// A line through marked points.
    Marked,
}

/// Lines over steps. With `log`, the values are drawn by their logarithm.
pub fn lines(series: &[Series], x: &str, log: bool, value: &dyn Fn(f64) -> String) -> String {
    let drawable = |y: f64| y.is_finite() && (!log || y > 0.0);
    let scale = |y: f64| if log { y.log10() } else { y };
    let all = || series.iter().flat_map(|series| &series.points).filter(|(_, y)| drawable(*y));
    let Some((left, right)) = bounds(all().map(|(x, _)| *x)) else { return nothing() };
    let Some((low, high)) = bounds(all().map(|(_, y)| scale(*y))) else { return nothing() };
    let pad = if high > low { 0.06 * (high - low) } else { 0.5 * high.abs().max(1e-12) };
    // A loss or a norm is never below 0.
    let (low, high) = (if !log && low >= 0.0 { (low - pad).max(0.0) } else { low - pad }, high + pad);
    let right = if right > left { right } else { left + 1.0 };
    let at_x = |x: f64| LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT);
    let at_y = |y: f64| ABOVE + (high - y) / (high - low) * (HEIGHT - ABOVE - BELOW);
    let mut svg = open(HEIGHT);
    for tick in if log { log_ticks(low, high) } else { ticks(low, high) } {
        let (y, text) = (at_y(tick), value(if log { 10_f64.powf(tick) } else { tick }));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            escape(&text)
        );
    }
    for tick in ticks(left, right).into_iter().filter(|tick| tick.fract() == 0.0) {
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            at_x(tick),
            HEIGHT - 6.0,
            crate::units::Count(tick.max(0.0) as u64)
        );
    }
    let _ = write!(
        svg,
        "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        LEFT - 14.0,
        HEIGHT - 6.0,
        escape(x)
    );
    for Series { name, colour, points, drawn } in series {
        let points: Vec<(f64, f64)> = thinned(points.iter().filter(|(_, y)| drawable(*y)).copied().collect())
            .into_iter()
            .map(|(x, y)| (at_x(x), at_y(scale(y))))
            .collect();
        let title = format!("<title>{}</title>", escape(name));
        if matches!(drawn, Drawn::Line | Drawn::Faint | Drawn::Marked) {
            let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let class = if *drawn == Drawn::Faint { "faint" } else { "line" };
            let _ = write!(
                svg,
                "<polyline class=\"{class}\" style=\"stroke:{colour}\" points=\"{}\">{title}</polyline>",
                path.join(" ")
            );
        }
        if matches!(drawn, Drawn::Points | Drawn::Marked) {
            let radius = if *drawn == Drawn::Marked { 3.0 } else { 1.8 };
            let _ = write!(svg, "<g style=\"fill:{colour}\">{title}");
            for (x, y) in points {
                let _ = write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>");
            }
            svg += "</g>";
        }
    }
    svg + "</svg>"
}

/// One of several bars: how far it could go, and how far it went.
#[derive(Debug, Clone)]
pub struct Bar {
    pub name: String,
    pub whole: f64,
    pub part: f64,
    /// What stands behind it.
    pub said: String,
}

/// Bars below each other, on one scale.
pub fn bars(rows: &[Bar]) -> String {
    const ROW: f64 = 24.0;
    const NAME: f64 = 150.0;
    let most = rows.iter().map(|bar| bar.whole.max(bar.part)).fold(0.0, f64::max);
    if most <= 0.0 {
        return nothing();
    }
    let long = |value: f64| value / most * (WIDTH - NAME - 190.0);
    let mut svg = open(ROW * rows.len() as f64 + 6.0);
    for (i, Bar { name, whole, part, said }) in rows.iter().enumerate() {
        let y = ROW * i as f64 + 4.0;
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}<title>{}</title></text>\
             <rect class=\"foretold\" x=\"{NAME}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"16\" rx=\"3\"/>\
             <rect class=\"measured\" x=\"{NAME}\" y=\"{:.1}\" width=\"{:.1}\" height=\"8\" rx=\"2\"/>\
             <text class=\"said\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            NAME - 10.0,
            y + 12.5,
            escape(&shortened(name)),
            escape(name),
            long(*whole),
            y + 4.0,
            long(*part),
            NAME + long(whole.max(*part)) + 8.0,
            y + 12.5,
            escape(said)
        );
    }
    svg + "</svg>"
}

/// A name as long as there is room for: its beginning and its end.
fn shortened(name: &str) -> String {
    const ROOM: usize = 20;
    let letters: Vec<char> = name.chars().collect();
    match letters.len() {
        n if n > ROOM => {
            let (begin, end) = (&letters[..ROOM / 2], &letters[n - ROOM / 2 + 1..]);
            begin.iter().chain(&['…']).chain(end).collect()
        }
        _ => name.to_owned(),
    }
}

/// One bar, cut into shares.
pub fn shares(parts: &[(String, String, f64)]) -> String {
    let whole: f64 = parts.iter().map(|(.., part)| part).sum();
    if whole <= 0.0 {
        return nothing();
    }
    let (mut svg, mut x) = (open(30.0), 0.0);
    for (name, colour, part) in parts {
        let width = part / whole * WIDTH;
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"2\" width=\"{:.1}\" height=\"24\" style=\"fill:{colour}\"><title>{}</title></rect>",
            (width - 1.5).max(0.4),
            escape(name)
        );
        x += width;
    }
    svg + "</svg>"
}

fn open(height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">")
}

fn nothing() -> String {
    "<p class=\"none\">nothing yet</p>".to_string()
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |known: Option<(f64, f64)>, x| {
        Some(known.map_or((x, x), |(low, high)| (low.min(x), high.max(x))))
    })
}

/// Neighbours averaged, until no more are left than can be drawn.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let n = points.len() as f64;
        (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(size).map(mean).collect()
}

/// About five round numbers between two.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let raw = (high - low) / 5.0;
    let size = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * size).find(|step| *step >= raw).unwrap_or(raw);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// The logarithms of round numbers between two, few enough to be read.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = low.floor() as i32..=high.ceil() as i32;
    let of = |digits: &[f64]| -> Vec<f64> {
        let all = decades.clone().flat_map(|ten| digits.iter().map(move |m| m.log10() + f64::from(ten)));
        all.filter(|tick| (low..=high).contains(tick)).collect()
    };
    let (fine, coarse) = (of(&[1.0, 2.0, 5.0]), of(&[1.0]));
    if fine.len() <= 8 { fine } else { coarse }
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_lose_their_middle() {
        let check = |name: &str, text: &str| assert_eq!(shortened(name), text);
        check("block.0 + block.1", "block.0 + block.1");
        check("block.10 ... block.19 (10 layers)", "block.10 .…0 layers)");
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let check = |low: f64, high: f64, expected: &[f64]| {
            let found = ticks(low, high);
            let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
            assert!(found.len() == expected.len() && found.iter().zip(expected).all(near), "{found:?}");
        };
        check(0.0, 10.0, &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        check(1.3, 2.2, &[1.4, 1.6, 1.8, 2.0, 2.2]);
        check(-3.0, 1.0, &[-3.0, -2.0, -1.0, 0.0, 1.0]);
    }

    #[test]
    fn ticks_of_a_logarithmic_axis_are_round_numbers() {
        let values = |low: f64, high: f64| {
            let ticks = log_ticks(low.log10(), high.log10());
            ticks.iter().map(|tick| format!("{:.1e}", 10_f64.powf(*tick))).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(values(0.3, 6.0), "5.0e-1 1.0e0 2.0e0 5.0e0");
        assert_eq!(values(0.009, 1100.0), "1.0e-2 1.0e-1 1.0e0 1.0e1 1.0e2 1.0e3");
    }

    #[test]
    fn many_points_become_few_with_the_same_mean() {
        let points: Vec<(f64, f64)> = (0..7001).map(|x| (f64::from(x), f64::from(x % 2))).collect();
        let few = thinned(points);
        assert!(few.len() <= MOST_POINTS);
        assert!(few.iter().all(|(_, y)| (y - 0.5).abs() < 0.6));
        assert_eq!(thinned(vec![(1.0, 2.0)]), [(1.0, 2.0)]);
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let line = |points: &[(f64, f64)], log| {
            let series = Series {
                name: "a<b".into(),
                colour: "red".into(),
                points: points.to_vec(),
                drawn: Drawn::Line,
            };
            lines(&[series], "step", log, &|y| y.to_string())
        };
        assert_eq!(line(&[], false), nothing());
        assert_eq!(line(&[(1.0, f64::NAN)], false), nothing());
        assert_eq!(line(&[(1.0, 0.0)], true), nothing());
        let svg = line(&[(1.0, 2.0), (2.0, f64::INFINITY), (3.0, 4.0)], false);
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
