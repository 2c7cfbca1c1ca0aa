//! Figures of several runs of one pipeline: mean, deviation, least and most of every output that is a number.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::report::escape::escaped;
use crate::units::{ByteSize, Span};

/// In what a figure is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Nothing but a number.
    Number,
}

/// One output over all runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// The output's name.
    pub name: String,
    /// In what it is told.
    pub unit: Unit,
    /// What each run gave, in the order of the runs.
    pub values: Vec<f64>,
    /// The mean.
    pub mean: f64,
    /// The value in the middle.
    pub median: f64,
    /// The standard deviation of a sample; 0 of one run.
    pub deviation: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

/// The figures of these outputs, one value of each run. An output that is no number in every run is left out.
pub fn figures(runs: &[Value]) -> Vec<Figure> {
    let names = runs.first().and_then(Value::as_object).into_iter().flat_map(|outputs| outputs.keys());
    names.filter_map(|name| figure(name, runs)).collect()
}

fn figure(name: &str, runs: &[Value]) -> Option<Figure> {
    let read: Vec<(f64, Unit)> = runs.iter().map(|outputs| value(outputs.get(name)?)).collect::<Option<_>>()?;
    let unit = read.first()?.1;
    if read.iter().any(|(_, other)| *other != unit) {
        return None;
    }
    let values: Vec<f64> = read.into_iter().map(|(value, _)| value).collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
    let deviation = if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
    Some(Figure { name: name.to_owned(), unit, min: sorted[0], max: sorted[sorted.len() - 1], values, mean, median, deviation })
}

fn value(value: &Value) -> Option<(f64, Unit)> {
    match value {
        Value::Number(number) => number.as_f64().map(|number| (number, Unit::Number)),
        Value::String(text) => text
            .parse::<Span>()
            .map(|span| (span.0.as_secs_f64(), Unit::Seconds))
            .or_else(|_| text.parse::<ByteSize>().map(|size| (size.0 as f64, Unit::Bytes)))
            .ok(),
        _ => None,
    }
}

fn told(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds if value < 10.0 => format!("{:.0} ms", value * 1000.0),
        Unit::Seconds => format!("{value:.1} s"),
        // By way of its digits: what does not fit is told as the most that does.
        Unit::Bytes => ByteSize(format!("{:.0}", value.max(0.0)).parse().unwrap_or(u64::MAX)).to_string(),
        Unit::Number if value.fract() == 0.0 => format!("{value:.0}"),
        Unit::Number => format!("{value:.3}"),
    }
}

const HEADS: [&str; 6] = ["output", "mean", "median", "deviation", "min", "max"];

fn row(figure: &Figure) -> [String; 6] {
    let told = |value| told(value, figure.unit);
    [figure.name.clone(), told(figure.mean), told(figure.median), told(figure.deviation), told(figure.min), told(figure.max)]
}

/// The table for a terminal.
pub fn table(figures: &[Figure]) -> String {
    let rows: Vec<[String; 6]> = figures.iter().map(row).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).chain([HEADS[at].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: [&str; 6]| {
        let _ = write!(text, "  {:<1$}", cells[0], widths[0]);
        for (cell, width) in cells.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    };
    line(HEADS);
    for row in &rows {
        line([&row[0], &row[1], &row[2], &row[3], &row[4], &row[5]]);
    }
    text
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 90.0;
const ROW: f64 = 64.0;

/// A picture: a strip for each figure, a dot for each run, a line at the mean, all from zero.
pub fn svg(title: &str, figures: &[Figure]) -> String {
    let height = 44.0 + ROW * figures.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"16\" y=\"26\" font-size=\"15\" font-weight=\"600\">{}</text>\n",
        escaped(title)
    );
    for (at, figure) in figures.iter().enumerate() {
        let middle = 44.0 + ROW * (at as f64 + 0.5);
        let most = if figure.max > 0.0 { figure.max } else { 1.0 };
        let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * value / most;
        let (name, end, mean) = (escaped(&figure.name), WIDTH - RIGHT, x(figure.mean));
        let (median, most) = (told(figure.median, figure.unit), told(most, figure.unit));
        let (above, below, top, bottom) = (middle - 2.0, middle + 14.0, middle - 13.0, middle + 13.0);
        let scale = middle + 26.0;
        let _ = writeln!(
            svg,
            "<text x=\"16\" y=\"{above:.1}\">{name}</text>\n\
             <text x=\"16\" y=\"{below:.1}\" fill=\"#666\" font-size=\"11\">median {median}</text>\n\
             <line x1=\"{LEFT}\" x2=\"{end:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#ccc\"/>\n\
             <text x=\"{LEFT}\" y=\"{scale:.1}\" fill=\"#666\" font-size=\"11\">0</text>\n\
             <text x=\"{end:.1}\" y=\"{scale:.1}\" fill=\"#666\" font-size=\"11\" text-anchor=\"end\">{most}</text>\n\
             <line x1=\"{mean:.1}\" x2=\"{mean:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" stroke=\"#b33\" stroke-width=\"2\"/>"
        );
        for value in &figure.values {
            let _ =
                writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"5\" fill=\"#27c\" fill-opacity=\"0.55\"/>", x(*value));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn outputs_that_are_numbers_become_figures() {
        let runs = [
            json!({ "pause": "100ms", "errors": 0, "lag": "1KiB", "who": "beta" }),
            json!({ "pause": "300ms", "errors": 0, "lag": "3KiB", "who": "alpha" }),
        ];
        let found = figures(&runs);
        let names: Vec<&str> = found.iter().map(|figure| figure.name.as_str()).collect();
        assert_eq!(names, ["pause", "errors", "lag"]);
        assert!((found[0].mean - 0.2).abs() < 1e-9 && (found[0].deviation - 0.141_421).abs() < 1e-5);
        assert_eq!((found[2].min, found[2].max, found[2].unit), (1024.0, 3072.0, Unit::Bytes));
        let table = table(&found);
        assert!(table.contains("pause    200 ms   200 ms") && table.contains("2.0 KiB"), "{table}");
    }

    #[test]
    fn what_is_no_number_in_every_run_is_left_out() {
        assert!(figures(&[json!({ "a": 1 }), json!({ "a": "x" })]).is_empty());
        assert!(figures(&[json!({ "a": 1 }), json!({ "a": "1s" })]).is_empty());
        assert!(figures(&[]).is_empty());
    }

    #[test]
    fn the_picture_has_a_dot_for_each_run() {
        let found = figures(&[json!({ "a<b": 1 }), json!({ "a<b": 2 })]);
        let svg = svg("t", &found);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("a&lt;b"), "{svg}");
    }
}
