//! Horizontal bars with the spread of their times, as an SVG that stands alone: in the page, and in a Markdown document.

use plotters::element::{PathElement, Rectangle, Text};
use plotters::prelude::{DrawingArea, IntoDrawingArea, RGBColor, SVGBackend, ShapeStyle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, TextStyle};

/// One bar.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
    /// From the slowest to the fastest tenth.
    pub(super) spread: (f64, f64),
    /// What stands after it.
    pub(super) note: String,
    /// Drawn in the colour of what is compared with.
    pub(super) other: bool,
    /// What was promised, drawn as a bracket.
    pub(super) promised: Option<(f64, f64)>,
}

/// How values become lengths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    /// From this value on, each decade as long as every other: for values of many magnitudes.
    Logarithmic(f64),
}

/// A chart of bars from the scale's beginning.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) unit: String,
    /// A line across all bars.
    pub(super) mark: Option<f64>,
    pub(super) scale: Scale,
    pub(super) bars: Vec<Bar>,
}

/// Pixels.
const LENGTH: i32 = 400;
const RIGHT: i32 = 130;
/// A letter of a label.
const LETTER: f64 = 6.4;
const TOP: i32 = 40;
const ROW: i32 = 22;
const BOTTOM: i32 = 42;
/// The SVG backend divides font sizes by this.
const FONT_SIZE: f64 = 1.24;
/// Lines of the scale.
const STEPS: [f64; 12] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 25.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
const MOST_STEPS: f64 = 8.0;

// They keep their contrast on white and on black.
const INK: RGBColor = RGBColor(0x6b, 0x74, 0x7c);
const GRID: RGBColor = RGBColor(0xa9, 0xae, 0xb3);
const OURS: RGBColor = RGBColor(0x12, 0x8f, 0x7c);
const OTHERS: RGBColor = RGBColor(0xd2, 0x6a, 0x3a);

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Chart {
    /// The picture.
    ///
    /// # Errors
    /// What plotters says; it draws into memory.
    pub(super) fn svg(&self) -> Result<String, String> {
        let (width, height) =
            (self.labels() + LENGTH + RIGHT, TOP + ROW * self.bars.len() as i32 + BOTTOM);
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, (width as u32, height as u32));
        let area = area.into_drawing_area();
        // Its error borrows the area, so that only the text goes on.
        self.draw(&area).and_then(|()| area.present().map_err(|e| e.to_string()))?;
        drop(area);
        Ok(svg)
    }

    /// Where the bars begin.
    fn labels(&self) -> i32 {
        let longest = self.bars.iter().map(|bar| bar.label.chars().count()).max().unwrap_or(0);
        (longest as f64 * LETTER) as i32 + 20
    }

    /// The end of the scale: all spreads, promises and the mark are on it.
    fn top(&self) -> f64 {
        let ends = self.bars.iter().flat_map(|bar| {
            let promised = bar.promised.map_or(0.0, |promised| promised.1);
            [bar.value, bar.spread.0, bar.spread.1, promised]
        });
        let least = match self.scale {
            Scale::Linear => f64::MIN_POSITIVE,
            // So that the scale has a length.
            Scale::Logarithmic(from) => 10.0 * from,
        };
        let top = ends.chain(self.mark).filter(|end| end.is_finite()).fold(least, f64::max);
        1.02 * top
    }

    /// Where a value lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let top = self.top();
        let share = match self.scale {
            Scale::Linear => value / top,
            Scale::Logarithmic(from) => (value / from).ln() / (top / from).ln(),
        };
        // What is no number lies at the beginning.
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// The lines of the scale.
    fn steps(&self) -> Vec<f64> {
        let top = self.top();
        match self.scale {
            Scale::Linear => {
                let step = STEPS.into_iter().find(|step| top / step <= MOST_STEPS);
                let step = step.unwrap_or(top / MOST_STEPS);
                (0..=(top / step) as i32).map(|i| f64::from(i) * step).collect()
            }
            Scale::Logarithmic(from) => {
                let decades = from.log10().ceil() as i32..=top.log10().floor() as i32;
                decades.map(|decade| 10f64.powi(decade)).collect()
            }
        }
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), String> {
        let bottom = TOP + ROW * self.bars.len() as i32;
        let labels = self.labels();
        let x = |value: f64| labels + (self.share(value) * f64::from(LENGTH)).round() as i32;
        text(area, (0, 12), &self.title, 14.0, HPos::Left)?;
        for value in self.steps() {
            line(area, &[(x(value), TOP), (x(value), bottom)], GRID, 1)?;
            text(area, (x(value), bottom + 12), &value.to_string(), 11.0, HPos::Center)?;
        }
        text(area, (labels, bottom + 30), &self.unit, 11.0, HPos::Left)?;
        for (i, bar) in self.bars.iter().enumerate() {
            let middle = TOP + ROW * i as i32 + ROW / 2;
            let (color, end) = (if bar.other { OTHERS } else { OURS }, x(bar.value));
            let box_ = [(labels, middle - 7), (end, middle + 7)];
            area.draw(&Rectangle::new(box_, color.mix(0.55).filled()))
                .map_err(|e| e.to_string())?;
            let (low, high) = (x(bar.spread.0), x(bar.spread.1));
            line(area, &[(low, middle), (high, middle)], color, 2)?;
            if let Some((least, most)) = bar.promised {
                let (least, most) = (x(least), x(most));
                let bracket = [
                    (least, middle - 4),
                    (least, middle + 9),
                    (most, middle + 9),
                    (most, middle - 4),
                ];
                line(area, &bracket, INK, 2)?;
            }
            text(area, (labels - 10, middle), &bar.label, 11.5, HPos::Right)?;
            text(area, (end.max(low).max(high) + 8, middle), &bar.note, 11.5, HPos::Left)?;
        }
        let Some(mark) = self.mark else { return Ok(()) };
        line(area, &[(x(mark), TOP - 6), (x(mark), bottom)], INK, 2)
    }
}

fn line(area: &Area<'_>, points: &[(i32, i32)], color: RGBColor, width: u32) -> Result<(), String> {
    let style = ShapeStyle::from(&color).stroke_width(width);
    area.draw(&PathElement::new(points.to_vec(), style)).map_err(|e| e.to_string())
}

fn text(area: &Area<'_>, at: (i32, i32), text: &str, size: f64, align: HPos) -> Result<(), String> {
    let font = ("sans-serif", size * FONT_SIZE).into_font();
    let style = TextStyle::from(font).color(&INK).pos(Pos::new(align, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> Chart {
        let bar = |&value: &f64| Bar {
            label: format!("line <{value}>"),
            value,
            spread: (value * 0.9, value * 1.1),
            note: format!("{value:.0} %"),
            other: false,
            promised: None,
        };
        let bars = values.iter().map(bar).collect();
        let (mark, scale) = (Some(100.0), Scale::Linear);
        Chart { title: "T".into(), unit: "% of it".into(), mark, scale, bars }
    }

    #[test]
    fn longer_bars_for_larger_values_and_everything_named() {
        let svg = chart(&[25.0, 50.0, 100.0]).svg().expect("it can be drawn");
        let parsed = roxmltree::Document::parse(&svg).expect("it is XML");
        let widths: Vec<f64> = parsed
            .descendants()
            .filter(|node| node.has_tag_name("rect"))
            .map(|node| node.attribute("width").expect("wide").parse().expect("a number"))
            .collect();
        assert_eq!(widths.len(), 3, "{svg}");
        assert!(
            (widths[1] / widths[0] - 2.0).abs() < 0.03
                && (widths[2] / widths[0] - 4.0).abs() < 0.06
        );
        let texts: Vec<String> = parsed
            .descendants()
            .filter(|node| node.has_tag_name("text"))
            .map(|node| node.text().unwrap_or_default().trim().to_owned())
            .collect();
        for expected in ["T", "% of it", "line <25>", "100 %"] {
            assert!(texts.iter().any(|text| text == expected), "{expected}: {texts:?}");
        }
    }

    #[test]
    fn decades_are_of_one_length_and_promises_are_bracketed() {
        let mut chart = chart(&[1.0, 10.0, 100.0]);
        (chart.scale, chart.mark) = (Scale::Logarithmic(0.1), None);
        chart.bars[0].promised = Some((1.3, 1.5));
        let at = |value| chart.share(value);
        assert!((at(10.0) - at(1.0) - (at(1.0) - at(0.1))).abs() < 1e-9);
        assert_eq!((at(0.1), at(0.0), at(-1.0), at(1e9)), (0.0, 0.0, 0.0, 1.0));
        assert_eq!(chart.steps(), [0.1, 1.0, 10.0, 100.0]);
        let svg = chart.svg().expect("it can be drawn");
        let parsed = roxmltree::Document::parse(&svg).expect("it is XML");
        let lines = parsed.descendants().filter(|node| node.has_tag_name("polyline")).count();
        // Four steps, three spreads, a bracket; no mark.
        assert_eq!(lines, 8, "{svg}");
    }

    #[test]
    fn nothing_and_numbers_that_are_none_can_be_drawn() {
        for values in [&[][..], &[f64::NAN, f64::INFINITY, 0.0], &[1e9]] {
            let svg = chart(values).svg().expect("it can be drawn");
            roxmltree::Document::parse(&svg).expect("it is XML");
        }
    }
}
