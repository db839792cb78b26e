//! Latencies as a picture: which share of the steps took longer than so many microseconds, both on logarithmic scales, so that the
//! middle and the tail are seen alike.

use std::fmt;

use kasmina_gpu_test::Failed;
use plotters::prelude::*;

/// What was measured of one way.
pub(crate) struct Curve {
    pub(crate) name: String,
    /// Microseconds, ascending.
    pub(crate) values: Vec<f64>,
}

impl Curve {
    /// The value that a share of `q` does not exceed.
    fn at(&self, q: f64) -> f64 {
        let at =
            ((self.values.len() as f64 * q).ceil() as usize).clamp(1, self.values.len().max(1));
        self.values.get(at - 1).copied().unwrap_or(f64::NAN)
    }

    /// Each value with the share of the steps that took longer, thinned out to a few hundred points.
    fn points(&self) -> Vec<(f64, f64)> {
        let n = self.values.len();
        let share = |above: usize| above as f64 / n as f64;
        let mut points = Vec::new();
        let mut above = n;
        while above > 0 {
            points.push((self.values[n - above], share(above)));
            above -= (above / 40).max(1);
        }
        points
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99, p999, most] = [0.5, 0.9, 0.99, 0.999, 1.0].map(|q| self.at(q));
        write!(
            f,
            "{}: p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}, p99.9 {p999:.2}, most {most:.2} µs",
            self.name
        )
    }
}

// They keep their contrast on white and on black.
const INK: RGBColor = RGBColor(0x6b, 0x74, 0x7c);
const COLOURS: [RGBColor; 3] =
    [RGBColor(0xd2, 0x6a, 0x3a), RGBColor(0x3f, 0x7f, 0xc4), RGBColor(0x12, 0x8f, 0x7c)];
const SIZE: (u32, u32) = (820, 430);
/// The SVG backend divides font sizes by this.
const FONT_SIZE: f64 = 1.24;

/// 1, 2 and 5 of each power of ten: more than these run into one another.
fn label(us: f64) -> String {
    let leading = us / 10f64.powf(us.log10().floor());
    let kept = [1.0, 2.0, 5.0].iter().any(|kept: &f64| (leading / kept - 1.0).abs() < 1e-6);
    if kept { format!("{us}") } else { String::new() }
}

/// The picture. Curves come in threes, one colour each; those of the second three are thin.
pub(crate) fn draw(title: &str, curves: &[Curve]) -> Result<String, Failed> {
    let all = || curves.iter().flat_map(|curve| &curve.values).copied();
    let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(1.0, f64::max));
    let fewest = curves.iter().map(|curve| curve.values.len()).max().unwrap_or(1) as f64;
    let mut svg = String::new();
    {
        let failed =
            |error: &dyn fmt::Display| -> Failed { format!("the picture: {error}").into() };
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let font = ("sans-serif", 12.0 * FONT_SIZE).into_font().color(&INK);
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .caption(title, ("sans-serif", 14.0 * FONT_SIZE).into_font().color(&INK))
            .x_label_area_size(38)
            .y_label_area_size(60)
            .build_cartesian_2d(
                (least * 0.9..most * 1.1).log_scale(),
                (0.7 / fewest..1.0).log_scale(),
            )
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .x_desc("µs")
            .y_desc("share of steps that took longer")
            .label_style(font.clone())
            .axis_style(INK)
            .bold_line_style(INK.mix(0.3))
            .light_line_style(INK.mix(0.12))
            .x_label_formatter(&|us| label(*us))
            .y_label_formatter(&|share| format!("{}", (share * 1e6).round() / 1e6))
            .draw()
            .map_err(|error| failed(&error))?;
        for (i, curve) in curves.iter().enumerate() {
            let style = COLOURS[i % 3].stroke_width(if i < 3 { 2 } else { 1 });
            chart
                .draw_series(LineSeries::new(curve.points(), style))
                .map_err(|error| failed(&error))?
                .label(curve.name.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(font)
            .border_style(INK.mix(0.3))
            .draw()
            .map_err(|error| failed(&error))?;
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}
