//! One picture for each case: a bar for each contender with its median, a line from its smallest to
//! its greatest value. The axis begins at zero.

use std::path::Path;

use anyhow::Context;
use plotters::{
    prelude::{
        Color, IntoDrawingArea, IntoFont, PathElement, RGBColor, Rectangle, SVGBackend, Text,
    },
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    cases::{Case, LASTWORD},
    measure::Runs,
    report::number,
};

const WIDTH: u32 = 860;
const LABELS: i32 = 280;
const BARS: i32 = 470;
const TOP: i32 = 40;
const ROW: i32 = 34;
const BAR: i32 = 20;

const OURS: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const PEERS: RGBColor = RGBColor(0xb0, 0xb7, 0xbf);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);

/// Draws the first figure of a case into `file`.
pub(crate) fn draw(case: &Case, runs: &Runs, file: &Path) -> anyhow::Result<()> {
    let figure = *case.figures.first().context("a case has a figure")?;
    let bars: Vec<_> = case
        .contenders
        .iter()
        .filter_map(|contender| Some((*contender, runs.spread(contender, figure)?)))
        .collect();
    let longest = bars.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LABELS + (value / longest * f64::from(BARS)) as i32;

    let height = TOP + ROW * i32::try_from(bars.len())? + 10;
    let area = SVGBackend::new(file, (WIDTH, u32::try_from(height)?)).into_drawing_area();
    area.fill(&RGBColor(255, 255, 255)).map_err(cannot_draw)?;
    let write = |text: String, x: i32, y: i32, side: HPos| {
        let style = ("sans-serif", 14).into_font().color(&INK).pos(Pos::new(side, VPos::Center));
        area.draw(&Text::new(text, (x, y), style)).map_err(cannot_draw)
    };
    let direction = if figure.more_is_better { "more is better" } else { "less is better" };
    let title = format!("{}: {} (median; line: min to max; {direction})", case.name, figure.label);
    write(title, 10, TOP / 2, HPos::Left)?;
    for (row, (contender, spread)) in (0..).zip(&bars) {
        let top = TOP + ROW * row;
        let middle = top + BAR / 2;
        let color = if contender.starts_with(LASTWORD) { OURS } else { PEERS };
        let bar = Rectangle::new([(LABELS, top), (x(spread.median), top + BAR)], color.filled());
        area.draw(&bar).map_err(cannot_draw)?;
        let line = vec![(x(spread.min), middle), (x(spread.max), middle)];
        area.draw(&PathElement::new(line, INK.stroke_width(2))).map_err(cannot_draw)?;
        write((*contender).to_owned(), LABELS - 8, middle, HPos::Right)?;
        write(number(spread.median), x(spread.max) + 8, middle, HPos::Left)?;
    }
    area.present().map_err(cannot_draw)
}

/// The errors of a backend have a lifetime; anyhow wants none.
fn cannot_draw<E: std::error::Error + Send + Sync>(
    error: plotters::drawing::DrawingAreaErrorKind<E>,
) -> anyhow::Error {
    anyhow::anyhow!("cannot draw: {error}")
}
