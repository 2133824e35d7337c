//! The chart of a comparison, in SVG: response times on the left, results on the right.
//!
//! It has a background of its own, so it is readable on any page. A style sheet inside gives it dark colours in dark
//! mode; viewers without style sheets show the light ones.

use doorstep_cli::CliError;
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    report::Report,
    stats::{Figures, Sample},
    verdict::time,
};

const SIZE: (u32, u32) = (940, 470);
/// The width of the left side.
const LEFT: i32 = 530;
/// The start of rows on the left, after their names, and the margins at the top and at the bottom.
const NAMES: u32 = 140;
const TOP: u32 = 64;
const BOTTOM: u32 = 34;
/// The shortest and the longest time shown, in milliseconds.
const TIMES: (f64, f64) = (1.0, 10_000.0);
const FONT: &str = "sans-serif";

/// The colours, each with its replacement in dark mode. Colour-blind readers can tell the bars apart.
const BACKGROUND: RGBColor = RGBColor(255, 255, 255);
const FOREGROUND: RGBColor = RGBColor(31, 35, 40);
const MUTED: RGBColor = RGBColor(216, 222, 228);
const WAIT: RGBColor = RGBColor(140, 149, 159);
const UNKNOWN: [(RGBColor, &str); 4] = [
    (BACKGROUND, "#0d1117"),
    (FOREGROUND, "#e6edf3"),
    (MUTED, "#30363d"),
    (WAIT, "#7d8590"),
];

/// The results of items: name, colour, and count.
const FATES: [Fate; 5] = [
    ("done within 1 s", RGBColor(31, 119, 180), |f| {
        f.applied - f.late.min(f.applied) - on_time_unsure(f)
    }),
    ("later", RGBColor(126, 182, 222), |f| {
        f.late - late_unsure(f)
    }),
    ("error, but done", RGBColor(148, 103, 189), |f| f.unsure),
    ("error, not done", RGBColor(230, 110, 20), |f| f.not_done),
    ("lost", RGBColor(200, 30, 45), |f| f.lost),
];

type Fate = (&'static str, RGBColor, fn(&Figures) -> u64);

/// Returns the number of late items that also count as done with an error. Without the exact number, all late items
/// count first.
fn late_unsure(figures: &Figures) -> u64 {
    figures.unsure.min(figures.late)
}

fn on_time_unsure(figures: &Figures) -> u64 {
    figures.unsure - late_unsure(figures)
}

/// Draws the chart.
///
/// # Errors
/// A bug in this program.
pub(crate) fn svg(report: &Report) -> Result<String, CliError> {
    let mut svg = String::new();
    draw(&mut svg, &report.cells)
        .map_err(|e| CliError::internal(format!("cannot draw the chart: {e}")))?;
    Ok(with_style(&svg))
}

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(svg: &mut String, cells: &[Sample]) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&BACKGROUND)?;
    let (left, right) = root.split_horizontally(LEFT);
    waits(&left, cells)?;
    fates(&right, cells)?;
    root.present()?;
    Ok(())
}

/// Draws the response times: a bar from the median to the 99th percentile.
fn waits(area: &Area<'_>, cells: &[Sample]) -> Drawn {
    title(
        area,
        12,
        "How long users waited",
        "half of them, and 99 of 100",
    )?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(TOP)
        .margin_right(44)
        .set_label_area_size(LabelAreaPosition::Left, NAMES)
        .set_label_area_size(LabelAreaPosition::Bottom, BOTTOM)
        .build_cartesian_2d((TIMES.0..TIMES.1).log_scale(), 0.0..rows(cells))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(5)
        .x_label_formatter(&|millis| tick(*millis))
        .label_style(text_style(12))
        .axis_style(MUTED)
        .bold_line_style(MUTED)
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (index, cell) in cells.iter().enumerate() {
        let row = row(cells, index);
        name(
            area,
            cells,
            index,
            chart.backend_coord(&(TIMES.0, row + 0.5)).1,
        )?;
        let Some(spread) = cell.all.response else {
            continue;
        };
        let shown = |millis: f64| millis.clamp(TIMES.0, TIMES.1);
        let (from, to) = (shown(spread.p50_ms), shown(spread.p99_ms));
        chart.plotting_area().draw(&Rectangle::new(
            [(from, row + 0.25), (to, row + 0.75)],
            WAIT.filled(),
        ))?;
        chart
            .plotting_area()
            .draw(&Circle::new((from, row + 0.5), 5, FOREGROUND.filled()))?;
        let times = format!("{} · {}", time(spread.p50_ms), time(spread.p99_ms));
        // The label is beside the bar, on the side with room.
        let is_far = to > 300.0;
        let (at, side, gap) = match is_far {
            true => (from, HPos::Right, -10),
            false => (to, HPos::Left, 10),
        };
        let (x, y) = chart.backend_coord(&(at, row + 0.5));
        let style = text_style(12).pos(Pos::new(side, VPos::Center));
        area.draw(&Text::new(times, (x + gap, y), style))?;
    }
    Ok(())
}

/// Draws the results of items, in percent.
fn fates(area: &Area<'_>, cells: &[Sample]) -> Drawn {
    title(area, 0, "Results of their requests", "")?;
    legend(area, cells)?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(TOP)
        .margin_right(28)
        .set_label_area_size(LabelAreaPosition::Bottom, BOTTOM)
        .build_cartesian_2d(0.0..100.0, 0.0..rows(cells))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(5)
        .x_label_formatter(&|share| format!("{share:.0} %"))
        .label_style(text_style(12))
        .axis_style(MUTED)
        .bold_line_style(MUTED)
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (index, cell) in cells.iter().enumerate() {
        let row = row(cells, index);
        let offered = cell.all.offered.max(1) as f64;
        let mut from = 0.0;
        for (_, colour, count) in FATES {
            let to = from + count(&cell.all) as f64 / offered * 100.0;
            if to > from {
                chart.plotting_area().draw(&Rectangle::new(
                    [(from, row + 0.15), (to, row + 0.85)],
                    colour.filled(),
                ))?;
            }
            from = to;
        }
    }
    Ok(())
}

/// Draws the names of the colours in use.
fn legend(area: &Area<'_>, cells: &[Sample]) -> Drawn {
    let mut x = 0;
    for (what, colour, count) in FATES {
        if cells.iter().all(|cell| count(&cell.all) == 0) {
            continue;
        }
        let y = 46;
        area.draw(&Rectangle::new(
            [(x, y - 5), (x + 10, y + 5)],
            colour.filled(),
        ))?;
        let style = text_style(11).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(what, (x + 14, y), style))?;
        x += 22 + 6 * what.len() as i32;
    }
    Ok(())
}

fn title(area: &Area<'_>, x: i32, what: &str, more: &str) -> Drawn {
    area.draw(&Text::new(what.to_owned(), (x, 14), bold(17)))?;
    area.draw(&Text::new(more.to_owned(), (x, 38), text_style(12)))?;
    Ok(())
}

/// Draws the name of a row; the scenario is between its two rows.
fn name(area: &Area<'_>, cells: &[Sample], index: usize, y: i32) -> Drawn {
    let cell = &cells[index];
    let right = Pos::new(HPos::Right, VPos::Center);
    let x = NAMES as i32 - 10;
    area.draw(&Text::new(
        cell.way.label(),
        (x, y),
        text_style(13).pos(right),
    ))?;
    let is_first = index == 0 || cells[index - 1].scenario != cell.scenario;
    if is_first {
        let left = bold(13).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(cell.scenario.label(), (12, y), left))?;
    }
    Ok(())
}

fn text_style(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&FOREGROUND)
}

fn bold(size: u32) -> TextStyle<'static> {
    let font = (FONT, size).into_font().style(FontStyle::Bold);
    font.color(&FOREGROUND)
}

/// Returns the start of a row, from the bottom: the first row is at the top, with a gap between scenarios.
fn row(cells: &[Sample], index: usize) -> f64 {
    rows(cells) - 1.0 - from_the_top(index)
}

fn rows(cells: &[Sample]) -> f64 {
    from_the_top(cells.len().saturating_sub(1)) + 1.0
}

fn from_the_top(index: usize) -> f64 {
    index as f64 + (index / 2) as f64 * 0.5
}

fn tick(millis: f64) -> String {
    match millis {
        ..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.0} s", millis / 1000.0),
    }
}

/// Adds a style sheet that replaces the colours of background and text in dark mode.
fn with_style(svg: &str) -> String {
    let mut style = "<style>@media (prefers-color-scheme: dark) {".to_owned();
    for (RGBColor(red, green, blue), dark) in UNKNOWN {
        let light = format!("#{red:02X}{green:02X}{blue:02X}");
        for attribute in ["fill", "stroke"] {
            style += &format!(" [{attribute}=\"{light}\"] {{ {attribute}: {dark} }}");
        }
    }
    style += " }</style>";
    // The style sheet follows the opening tag.
    match svg
        .find("<svg")
        .and_then(|at| Some(at + svg[at..].find('>')? + 1))
    {
        Some(at) => format!("{}\n{style}{}", &svg[..at], &svg[at..]),
        None => svg.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        scenario::{Mode, Scenario},
        stats::Percentiles,
    };

    fn cell(scenario: Scenario, way: Mode, all: Figures) -> Sample {
        Sample {
            scenario,
            way,
            drained: true,
            all,
            checkouts: Figures::default(),
            updates: Figures::default(),
        }
    }

    fn figures() -> Figures {
        Figures {
            offered: 100,
            applied: 70,
            late: 30,
            unsure: 10,
            not_done: 25,
            lost: 5,
            response: Some(Percentiles {
                p50_ms: 0.2,
                p99_ms: 99_000.0,
                max_ms: 99_000.0,
            }),
            ..Figures::default()
        }
    }

    #[test]
    fn each_item_has_one_fate() {
        let counts: Vec<u64> = FATES
            .iter()
            .map(|(_, _, count)| count(&figures()))
            .collect();
        assert_eq!(counts, [40, 20, 10, 25, 5]);
        let early = Figures {
            late: 3,
            ..figures()
        };
        let counts: Vec<u64> = FATES.iter().map(|(_, _, count)| count(&early)).collect();
        assert_eq!(counts, [60, 0, 10, 25, 5]);
    }

    #[test]
    fn all_rows_are_drawn_inside_the_chart() {
        let cells: Vec<Sample> = Scenario::ALL
            .into_iter()
            .flat_map(|scenario| Mode::ALL.map(|way| cell(scenario, way, figures())))
            .collect();
        let mut svg = String::new();
        draw(&mut svg, &cells).unwrap();
        let svg = with_style(&svg);
        for scenario in Scenario::ALL {
            assert!(svg.contains(scenario.label()), "{svg}");
        }
        for (fate, ..) in FATES {
            assert!(svg.contains(fate), "{fate}");
        }
        assert!(svg.contains("prefers-color-scheme: dark"));
        assert!(svg.trim_end().ends_with("</svg>"));
        let right_most = svg
            .split(" x=\"")
            .filter_map(|part| part.split('"').next()?.parse::<u32>().ok())
            .max();
        assert!(right_most.unwrap() <= SIZE.0);
    }
}
