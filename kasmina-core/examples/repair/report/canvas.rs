//! A drawing surface over plotters: fractional coordinates, and colours that follow the page's theme.
//!
//! Plotters writes fixed colours. Each [`Tone`] is drawn in a colour nobody would choose, and the finished
//! picture has these replaced by the page's CSS variables, so that one picture serves light and dark.

use anyhow::{Result, anyhow};
use kasmina_core::State;
use plotters::coord::Shift;
use plotters::element::{Circle, PathElement, Polygon, Rectangle, Text};
use plotters::prelude::{DrawingArea, IntoDrawingArea, RGBColor, SVGBackend, ShapeStyle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, TextStyle};

/// Draws an element; plotters' own error borrows the canvas, so only its text goes on.
macro_rules! draw {
    ($canvas:expr, $element:expr) => {
        $canvas.area.draw(&$element).map_err(|error| anyhow!("cannot draw: {error}"))
    };
}

/// Units a CSS pixel: plotters' coordinates are whole numbers.
const UNITS: f64 = 4.0;
/// The SVG backend divides font sizes by this.
const FONT_SIZE: f64 = 1.24;

/// A colour of the page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Tone {
    Ink,
    Muted,
    Grid,
    Accent,
    Warm,
    Paper,
    State(State),
}

impl Tone {
    /// The colour that stands for it in the unfinished picture.
    fn marker(self) -> RGBColor {
        match self {
            Self::Ink => RGBColor(1, 0, 1),
            Self::Muted => RGBColor(2, 0, 1),
            Self::Grid => RGBColor(3, 0, 1),
            Self::Accent => RGBColor(4, 0, 1),
            Self::Warm => RGBColor(5, 0, 1),
            Self::Paper => RGBColor(6, 0, 1),
            Self::State(state) => RGBColor(state.code(), 0, 2),
        }
    }

    /// Its CSS variable.
    pub(super) fn css(self) -> String {
        match self {
            Self::Ink => "var(--ink)".into(),
            Self::Muted => "var(--muted)".into(),
            Self::Grid => "var(--grid)".into(),
            Self::Accent => "var(--accent)".into(),
            Self::Warm => "var(--warm)".into(),
            Self::Paper => "var(--paper)".into(),
            Self::State(state) => {
                format!("var(--{})", state.name().to_lowercase().replace('_', "-"))
            }
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        [Self::Ink, Self::Muted, Self::Grid, Self::Accent, Self::Warm, Self::Paper]
            .into_iter()
            .chain(State::ALL.into_iter().map(Self::State))
    }
}

/// Where a text stands to its point.
#[derive(Clone, Copy, Debug)]
pub(super) enum Align {
    Left,
    Middle,
    Right,
}

/// A picture in the making; coordinates and sizes are CSS pixels.
pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// Draws a picture that scales with the page; `description` is what it shows, for those who cannot see it.
pub(super) fn picture(
    (width, height): (f64, f64),
    description: &str,
    draw: impl FnOnce(&Canvas<'_>) -> Result<()>,
) -> Result<String> {
    let mut svg = String::new();
    let size = ((width * UNITS) as u32, (height * UNITS) as u32);
    let canvas = Canvas { area: SVGBackend::with_string(&mut svg, size).into_drawing_area() };
    draw(&canvas)?;
    canvas.area.present().map_err(|error| anyhow!("cannot draw: {error}"))?;
    drop(canvas);
    for tone in Tone::all() {
        let RGBColor(r, g, b) = tone.marker();
        svg = svg.replace(&format!("\"#{r:02X}{g:02X}{b:02X}\""), &format!("\"{}\"", tone.css()));
    }
    let fixed = format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1);
    let fluid = format!("<svg role=\"img\" aria-label=\"{description}\"");
    Ok(svg.replacen(&fixed, &fluid, 1))
}

fn units(value: f64) -> i32 {
    (value * UNITS).round() as i32
}

fn at((x, y): (f64, f64)) -> (i32, i32) {
    (units(x), units(y))
}

impl Canvas<'_> {
    pub(super) fn line(&self, points: &[(f64, f64)], tone: Tone, width: f64) -> Result<()> {
        let style = ShapeStyle::from(&tone.marker()).stroke_width(units(width) as u32);
        let points: Vec<_> = points.iter().map(|&point| at(point)).collect();
        draw!(self, PathElement::new(points, style))
    }

    /// A straight line in dashes of 4 pixels.
    pub(super) fn dashed(&self, from: (f64, f64), to: (f64, f64), tone: Tone) -> Result<()> {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy);
        let mut done = 0.0;
        while done < length {
            let point = |t: f64| (from.0 + dx * t / length, from.1 + dy * t / length);
            self.line(&[point(done), point((done + 4.0).min(length))], tone, 1.25)?;
            done += 8.0;
        }
        Ok(())
    }

    pub(super) fn rectangle(
        &self,
        from: (f64, f64),
        to: (f64, f64),
        tone: Tone,
        opacity: f64,
    ) -> Result<()> {
        let style = tone.marker().mix(opacity).filled();
        draw!(self, Rectangle::new([at(from), at(to)], style))
    }

    pub(super) fn polygon(&self, points: &[(f64, f64)], tone: Tone, opacity: f64) -> Result<()> {
        let points: Vec<_> = points.iter().map(|&point| at(point)).collect();
        draw!(self, Polygon::new(points, tone.marker().mix(opacity)))
    }

    pub(super) fn dot(
        &self,
        center: (f64, f64),
        radius: f64,
        tone: Tone,
        opacity: f64,
    ) -> Result<()> {
        let style = tone.marker().mix(opacity).filled();
        draw!(self, Circle::new(at(center), units(radius), style))
    }

    pub(super) fn text(
        &self,
        point: (f64, f64),
        text: &str,
        size: f64,
        tone: Tone,
        align: Align,
    ) -> Result<()> {
        self.styled_text(point, text, size, tone, align, FontStyle::Normal)
    }

    pub(super) fn bold(
        &self,
        point: (f64, f64),
        text: &str,
        size: f64,
        tone: Tone,
        align: Align,
    ) -> Result<()> {
        self.styled_text(point, text, size, tone, align, FontStyle::Bold)
    }

    fn styled_text(
        &self,
        point: (f64, f64),
        text: &str,
        size: f64,
        tone: Tone,
        align: Align,
        weight: FontStyle,
    ) -> Result<()> {
        let horizontal = match align {
            Align::Left => HPos::Left,
            Align::Middle => HPos::Center,
            Align::Right => HPos::Right,
        };
        let font = ("sans-serif", size * UNITS * FONT_SIZE).into_font().style(weight);
        let color = tone.marker();
        let style = TextStyle::from(font).color(&color).pos(Pos::new(horizontal, VPos::Center));
        draw!(self, Text::new(text.to_owned(), at(point), style))
    }
}
