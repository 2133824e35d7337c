//! Bar charts, laid out for the template that draws them as SVG.
//!
//! A chart shows proportions: it rounds, and the tables beside it have the exact figures. Colours come from the page's
//! style sheet, so one drawing fits screens in light and dark and paper.

/// The width of every chart, in the units of its drawing.
const WIDTH: f64 = 760.0;
/// The height of the bars of [`Chart::columns`].
const COLUMN_HEIGHT: f64 = 180.0;
/// The space of the values on the scale, and of the labels under the columns.
const SCALE_WIDTH: f64 = 72.0;
const LABEL_HEIGHT: f64 = 26.0;
/// The space above the uppermost value, whose text is taller than its line.
const TOP: f64 = 10.0;
/// The height of a bar of [`Chart::rows`] with the space around it, and the space of its label.
const ROW_HEIGHT: f64 = 22.0;
const ROW_LABEL_WIDTH: f64 = 190.0;
/// The space of the text behind the longest bar.
const ROW_TEXT_WIDTH: f64 = 110.0;
/// The maximum of labels under the columns, and of characters in a label beside a row.
const MAX_COLUMN_LABELS: usize = 9;
const MAX_LABEL_CHARS: usize = 26;

/// A value to draw.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) label: String,
    pub(crate) value: f64,
    /// The exact value as a text.
    pub(crate) text: String,
}

/// A chart, laid out. All lengths are in the units of its drawing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) bars: Vec<Bar>,
    pub(crate) labels: Vec<Label>,
    /// Horizontal lines of the scale, with their values.
    pub(crate) lines: Vec<GridLine>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    /// The label and the exact value.
    pub(crate) title: String,
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) is_negative: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Label {
    pub(crate) text: String,
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// The side of the text at this position, as SVG names it.
    pub(crate) anchor: &'static str,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GridLine {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) y: f64,
}

impl Chart {
    /// Lays out one column for each point, from left to right.
    pub(crate) fn columns(title: String, points: &[Point]) -> Self {
        let scale = Scale::new(points);
        let y = |value: f64| TOP + COLUMN_HEIGHT * (1.0 - scale.share(value));
        let step = (WIDTH - SCALE_WIDTH) / points.len().max(1) as f64;
        let every = points.len().div_ceil(MAX_COLUMN_LABELS).max(1);
        let mut chart = Self {
            title,
            width: WIDTH,
            height: TOP + COLUMN_HEIGHT + LABEL_HEIGHT,
            bars: Vec::new(),
            labels: Vec::new(),
            lines: Vec::new(),
        };
        for value in scale.marks() {
            chart.lines.push(GridLine {
                from: SCALE_WIDTH,
                to: WIDTH,
                y: y(value),
            });
            chart.labels.push(Label {
                text: short_number(value),
                x: SCALE_WIDTH - 6.0,
                y: y(value) + 4.0,
                anchor: "end",
            });
        }
        for (index, point) in points.iter().enumerate() {
            let left = SCALE_WIDTH + step * index as f64;
            let (top, bottom) = (y(point.value.max(0.0)), y(point.value.min(0.0)));
            chart.bars.push(Bar {
                x: left + step * 0.1,
                y: top,
                width: step * 0.8,
                height: bottom - top,
                ..Bar::new(point)
            });
            if index % every == 0 {
                chart.labels.push(Label {
                    text: point.label.clone(),
                    x: left + step / 2.0,
                    y: chart.height - 8.0,
                    anchor: "middle",
                });
            }
        }
        chart
    }

    /// Lays out one horizontal bar for each point, from top to bottom.
    pub(crate) fn rows(title: &str, points: &[Point]) -> Self {
        let scale = Scale::new(points);
        let room = WIDTH - ROW_LABEL_WIDTH - ROW_TEXT_WIDTH;
        let x = |value: f64| ROW_LABEL_WIDTH + room * scale.share(value);
        let mut chart = Self {
            title: title.to_owned(),
            width: WIDTH,
            height: ROW_HEIGHT * points.len() as f64,
            bars: Vec::new(),
            labels: Vec::new(),
            lines: Vec::new(),
        };
        for (index, point) in points.iter().enumerate() {
            let top = ROW_HEIGHT * index as f64;
            let (left, right) = (x(point.value.min(0.0)), x(point.value.max(0.0)));
            chart.bars.push(Bar {
                x: left,
                y: top + 3.0,
                width: right - left,
                height: ROW_HEIGHT - 6.0,
                ..Bar::new(point)
            });
            let y = top + ROW_HEIGHT / 2.0 + 4.0;
            chart.labels.push(Label {
                text: shortened(&point.label),
                x: ROW_LABEL_WIDTH - 8.0,
                y,
                anchor: "end",
            });
            chart.labels.push(Label {
                text: point.text.clone(),
                x: right + 6.0,
                y,
                anchor: "start",
            });
        }
        chart
    }
}

impl Bar {
    fn new(point: &Point) -> Self {
        Self {
            title: format!("{}: {}", point.label, point.text),
            x: 0.0,
            y: 0.0,
            width: 0.0,
            height: 0.0,
            is_negative: point.value < 0.0,
        }
    }
}

/// The values from the lowest to the highest, zero among them, in round steps.
struct Scale {
    lowest: f64,
    highest: f64,
    step: f64,
}

impl Scale {
    fn new(points: &[Point]) -> Self {
        let values = || points.iter().map(|point| point.value);
        let lowest = values().fold(0.0, f64::min);
        let highest = values().fold(0.0, f64::max);
        let rough = ((highest - lowest) / 4.0).max(f64::MIN_POSITIVE);
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = step
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        Self {
            lowest: (lowest / step).floor() * step,
            highest: (highest / step).ceil() * step,
            step,
        }
    }

    /// Returns the position of a value on the scale, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let range = self.highest - self.lowest;
        if range > 0.0 {
            (value - self.lowest) / range
        } else {
            0.0
        }
    }

    /// Returns the values to mark.
    fn marks(&self) -> Vec<f64> {
        let count = ((self.highest - self.lowest) / self.step).round() as u32;
        (0..=count)
            .map(|index| self.lowest + self.step * f64::from(index))
            .collect()
    }
}

/// Returns a round value with its unit of thousands.
fn short_number(value: f64) -> String {
    let (value, unit) = match value.abs() {
        large if large >= 1e9 => (value / 1e9, " bn"),
        large if large >= 1e6 => (value / 1e6, " m"),
        large if large >= 1e3 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let rounded = (value * 100.0).round() / 100.0;
    // Adding zero turns a negative zero into a positive one.
    format!("{}{unit}", rounded + 0.0)
}

fn shortened(label: &str) -> String {
    if label.chars().count() <= MAX_LABEL_CHARS {
        return label.to_owned();
    }
    let kept: String = label.chars().take(MAX_LABEL_CHARS - 1).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f64]) -> Vec<Point> {
        let point = |value: &f64| Point {
            label: format!("at {value}"),
            value: *value,
            text: value.to_string(),
        };
        values.iter().map(point).collect()
    }

    #[test]
    fn columns_are_proportional_and_stand_on_zero() {
        let chart = Chart::columns("net".to_owned(), &points(&[10.0, -5.0, 0.0]));
        let [gain, loss, none] = chart.bars.as_slice() else {
            panic!("{chart:?}");
        };
        assert!((gain.height - 2.0 * loss.height).abs() < 1e-9, "{chart:?}");
        assert!((gain.y + gain.height - loss.y).abs() < 1e-9, "{chart:?}");
        assert_eq!(
            (none.height, none.is_negative, loss.is_negative),
            (0.0, false, true)
        );
        let marks: Vec<&str> = chart
            .labels
            .iter()
            .map(|l| l.text.as_str())
            .take(4)
            .collect();
        assert_eq!(marks, ["-5", "0", "5", "10"]);
    }

    #[test]
    fn every_part_is_inside_its_drawing() {
        for values in [&[][..], &[0.0], &[1e14], &[-3.0, -1e-9], &[7.0; 400]] {
            for chart in [
                Chart::columns("c".to_owned(), &points(values)),
                Chart::rows("r", &points(values)),
            ] {
                for bar in &chart.bars {
                    assert!(bar.x >= 0.0 && bar.x + bar.width <= chart.width, "{bar:?}");
                    let bottom = bar.y + bar.height;
                    assert!(bar.y >= 0.0 && bottom <= chart.height + 1e-9, "{bar:?}");
                    assert!(bar.width >= 0.0 && bar.height >= 0.0, "{bar:?}");
                }
            }
        }
    }

    #[test]
    fn long_labels_are_shortened_and_numbers_rounded() {
        assert_eq!(shortened(&"ä".repeat(27)), format!("{}…", "ä".repeat(25)));
        assert_eq!(shortened("short"), "short");
        let shown = [0.0, -0.0, 0.25, 1_500.0, -2e6, 3e9].map(short_number);
        assert_eq!(shown, ["0", "0", "0.25", "1.5 k", "-2 m", "3 bn"]);
    }
}
