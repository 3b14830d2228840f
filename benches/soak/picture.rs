//! Draws latency over time, and memory below it.

use std::fmt::Write;

use crate::{
    pace::SLICE,
    report::{Line, Report},
};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
/// Top and bottom of each panel.
const LATENCY: (f64, f64) = (40.0, 270.0);
const MEMORY: (f64, f64) = (320.0, 420.0);
/// Lines across a panel.
const STEPS: u32 = 4;

pub fn draw(report: &Report) -> String {
    let slices = &report.slices;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#333">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
"##
    );
    let latencies: [Curve; 2] = [("p99", "#c33", |line| line.p99), ("median", "#36c", |line| line.median)];
    panel(&mut svg, slices, LATENCY, "latency from when a request was due, ms", &latencies);
    panel(&mut svg, slices, MEMORY, "memory of the service, MiB", &[("RSS", "#383", |line| line.memory)]);
    let seconds = slices.len() as u64 * SLICE.as_secs();
    for tick in 0..=10 {
        let x = LEFT + (WIDTH - LEFT - RIGHT) * f64::from(tick) / 10.0;
        let at = seconds as f64 * f64::from(tick) / 10.0;
        let _ = writeln!(svg, r#"<text x="{x:.1}" y="440" text-anchor="middle">{at:.0} s</text>"#);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Name, colour, and the drawn value of a slice.
type Curve = (&'static str, &'static str, fn(&Line) -> f64);

fn panel(svg: &mut String, slices: &[Line], (top, bottom): (f64, f64), title: &str, curves: &[Curve]) {
    let values = || curves.iter().flat_map(|(_, _, of)| slices.iter().map(of));
    let scale = round_up(values().fold(0.0, f64::max));
    let y = |value: f64| bottom - (bottom - top) * value / scale;
    let _ = writeln!(svg, r#"<text x="{LEFT}" y="{:.1}">{title}</text>"#, top - 14.0);
    for step in 0..=STEPS {
        let value = scale * f64::from(step) / f64::from(STEPS);
        let (y, right) = (y(value), WIDTH - RIGHT);
        let _ = writeln!(
            svg,
            r##"<path d="M{LEFT} {y:.1}H{right}" stroke="#ddd"/><text x="{:.1}" y="{:.1}" text-anchor="end">{value}</text>"##,
            LEFT - 6.0,
            y + 4.0
        );
    }
    for (at, (name, colour, of)) in curves.iter().enumerate() {
        let step = (WIDTH - LEFT - RIGHT) / slices.len() as f64;
        let points = slices.iter().enumerate().map(|(slice, line)| {
            // Points are in the middle of their slice.
            format!("{:.1},{:.1}", LEFT + step * (slice as f64 + 0.5), y(of(line)))
        });
        let points = points.collect::<Vec<_>>().join(" ");
        let _ = writeln!(
            svg,
            r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/><text x="{:.1}" y="{:.1}" fill="{colour}" text-anchor="end">{name}</text>"#,
            WIDTH - RIGHT - 60.0 * at as f64,
            top - 14.0
        );
    }
}

/// Rounds `most` up to a number that is easily divided by [`STEPS`].
fn round_up(most: f64) -> f64 {
    let power = 10_f64.powf(most.max(1.0).log10().floor());
    [1.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|top| *top >= most)
        .unwrap_or(most)
}
