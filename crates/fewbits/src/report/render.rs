//! The page of a [`Report`].

use askama::Template;

use super::plot::{Cost, sensitivity_bars, tradeoff, weight_histogram};
use super::table::{Cell, Row, Table};
use super::{Choice, Point, Report, STYLE, WeightHistogram, format};
use crate::plan::{ActivationBecomes, Becomes, Plan};

/// What this page adds to the common style.
const REPORT_STYLE: &str = include_str!("../../templates/report.css");

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    styles: [&'a str; 2],
    cards: Vec<Card>,
    /// The trade-off, once for each cost that was measured.
    tradeoffs: Vec<String>,
    has_chosen: bool,
    points: Table,
    sensitivity: Option<Bars>,
    histograms: Vec<Histogram<'a>>,
    plan: Option<PlanShown>,
    environment: Table,
    version: &'a str,
}

/// One figure of the chosen model.
struct Card {
    figure: String,
    meaning: String,
}

struct Bars {
    svg: String,
    table: Table,
}

struct Histogram<'a> {
    tensor: &'a str,
    scheme: &'a str,
    svg: String,
    table: Table,
}

struct PlanShown {
    /// What becomes of how many tensors.
    counts: Vec<(usize, String)>,
    tensors: Table,
    activations: Table,
}

impl Report {
    /// Draws the page: one HTML file without scripts, which needs no network.
    pub fn to_html(&self) -> String {
        render(self)
    }
}

fn render(report: &Report) -> String {
    let costs = [Cost::FileBytes, Cost::Latency];
    let page = Page {
        report,
        styles: [STYLE, REPORT_STYLE],
        cards: cards(report),
        tradeoffs: costs.into_iter().filter_map(|cost| tradeoff(report, cost)).collect(),
        has_chosen: report.chosen().is_some(),
        points: points(report),
        sensitivity: sensitivity_bars(report).map(|svg| Bars { svg, table: sensitivity(report) }),
        histograms: report.histograms.iter().enumerate().map(histogram).collect(),
        plan: report.plan.as_ref().map(plan),
        environment: environment(report),
        version: env!("CARGO_PKG_VERSION"),
    };
    page.render().expect("the template reads only what the report has")
}

fn cards(report: &Report) -> Vec<Card> {
    let (Some(chosen), float) = (report.chosen(), &report.reference) else { return Vec::new() };
    let mut cards = vec![
        Card {
            figure: format::metric(chosen.metric),
            meaning: format!("{}; float {}", report.metric, format::metric(float.metric)),
        },
        Card {
            figure: ratio(float.file_bytes as f64, chosen.file_bytes as f64, ["smaller", "larger"]),
            meaning: format!(
                "{} bytes on disk; float {}",
                format::bytes(chosen.file_bytes),
                format::bytes(float.file_bytes)
            ),
        },
    ];
    if let (Some(a), Some(b)) = (float.latency_ms, chosen.latency_ms) {
        let [float_ms, ms] = [a, b].map(|ms| format::significant(ms, 3));
        cards.push(Card {
            figure: ratio(a, b, ["faster", "slower"]),
            meaning: format!("{ms} ms a call; float {float_ms}"),
        });
    }
    cards
}

/// `5.9× smaller`, or the other word.
fn ratio(float: f64, quantized: f64, [less, more]: [&str; 2]) -> String {
    let (ratio, word) =
        if quantized <= float { (float / quantized, less) } else { (quantized / float, more) };
    match ratio.is_finite() {
        true => format!("{}× {word}", format::significant(ratio, 3)),
        false => "–".to_string(),
    }
}

fn points(report: &Report) -> Table {
    let metric = report.metric;
    let row = |key: &str, point: &Point, drop: Option<f64>| -> Row {
        let key = |field: &str| format!("{key}.{field}");
        let smaller = report.reference.file_bytes as f64 / point.file_bytes.max(1) as f64;
        let cells = vec![
            Cell::number(&key("metric"), point.metric, format::metric),
            Cell::maybe(&key("drop"), drop, format::metric),
            Cell::maybe(&key("drop_interval"), point.drop_interval, |(low, high)| {
                format!("{} to {}", format::metric(low), format::metric(high))
            }),
            Cell::maybe(&key("agreement"), point.agreement, format::share),
            Cell::number(&key("file_bytes"), point.file_bytes, format::bytes),
            Cell::number(&key("times_smaller"), smaller, |r| {
                format!("{}×", format::significant(r, 3))
            }),
            Cell::number(&key("weight_bytes"), point.weight_bytes, format::bytes),
            Cell::maybe(&key("latency_ms"), point.latency_ms, |ms| format::significant(ms, 3)),
            Cell::maybe(&key("energy_j"), point.energy_j, |j| format::significant(1e3 * j, 3)),
        ];
        let mark = match point.choice {
            Choice::Measured => "",
            Choice::Chosen => "chosen",
        };
        Row { name: point.label.clone(), mark, cells }
    };
    let mut rows = vec![row("reference", &report.reference, None)];
    rows.extend(report.points.iter().enumerate().map(|(i, point)| {
        let drop = metric.drop(report.reference.metric, point.metric);
        row(&format!("points.{i}"), point, Some(drop))
    }));
    let head = [
        "bits",
        metric.name(),
        "drop",
        "drop, interval",
        "agrees with float",
        "file bytes",
        "smaller",
        "weight bytes",
        "ms a call",
        "mJ an inference",
    ];
    Table::new("Every measured model", &head, rows).without_empty_columns()
}

fn sensitivity(report: &Report) -> Table {
    let rows = report.sensitivity.iter().enumerate().map(|(i, s)| {
        let key = |field: &str| format!("sensitivity.{i}.{field}");
        let cells = vec![
            Cell::words(&s.scheme),
            Cell::number(&key("relative_error"), s.relative_error, format::percent),
            Cell::maybe(&key("drop"), s.drop, format::metric),
            Cell::number(&key("file_bytes_saved"), s.file_bytes_saved, format::bytes),
        ];
        Row::new(&s.tensor, cells)
    });
    let head = ["tensor", "alone as", "error of the outputs", "drop", "bytes saved"];
    Table::new("What each tensor costs alone", &head, rows.collect()).without_empty_columns()
}

fn histogram((k, h): (usize, &WeightHistogram)) -> Histogram<'_> {
    let bins = h.before.len().min(h.after.len());
    let (low, width) = (f64::from(h.low), f64::from(h.high) - f64::from(h.low));
    let edge = |i: usize| format::significant(low + width * i as f64 / bins as f64, 3);
    let rows = (0..bins).map(|i| {
        let count = |field: &str, n: u64| {
            Cell::number(&format!("histograms.{k}.{field}.{i}"), n, format::bytes)
        };
        let cells = vec![count("before", h.before[i]), count("after", h.after[i])];
        Row::new(format!("{} to {}", edge(i), edge(i + 1)), cells)
    });
    Histogram {
        tensor: &h.tensor,
        scheme: &h.scheme,
        svg: weight_histogram(h),
        table: Table::new(
            &format!("Weights of {} in each bin", h.tensor),
            &["values", "before", "after"],
            rows.collect(),
        ),
    }
}

fn plan(plan: &Plan) -> PlanShown {
    let mut counts: Vec<(usize, String)> = Vec::new();
    for tensor in &plan.tensors {
        let becomes = match &tensor.becomes {
            Becomes::Scheme(scheme) => scheme.to_string(),
            Becomes::Float(_) => "float".to_string(),
        };
        match counts.iter_mut().find(|(_, known)| *known == becomes) {
            Some((count, _)) => *count += 1,
            None => counts.push((1, becomes)),
        }
    }
    let tensors = plan.tensors.iter().map(|t| {
        let becomes = match &t.becomes {
            Becomes::Scheme(scheme) => scheme.to_string(),
            Becomes::Float(why) => format!("float: {why}"),
        };
        let shape: Vec<String> = t.shape.iter().map(usize::to_string).collect();
        let cells = vec![
            Cell::words(becomes),
            Cell::words(shape.join("×")),
            Cell::words(t.range.map_or("–".to_string(), range)),
            Cell::words(noise(t.sqnr_db)),
            Cell::words(t.read_by.join(", ")),
        ];
        Row::new(&t.tensor, cells)
    });
    let activations = plan.activations.iter().map(|a| {
        let (becomes, range, noise) = match &a.becomes {
            ActivationBecomes::Static { scheme, low, high, sqnr_db } => {
                (scheme.to_string(), range((*low, *high)), noise(*sqnr_db))
            }
            ActivationBecomes::Dynamic => ("measured at every call".into(), "–".into(), "–".into()),
            ActivationBecomes::Float(why) => (format!("float: {why}"), "–".into(), "–".into()),
        };
        Row::new(&a.value, vec![Cell::words(becomes), Cell::words(range), Cell::words(noise)])
    });
    let head = ["tensor", "becomes", "shape", "range", "SQNR in dB", "read by"];
    PlanShown {
        counts,
        tensors: Table::new("What each tensor becomes", &head, tensors.collect())
            .without_empty_columns(),
        activations: Table::new(
            "What each activation becomes",
            &["activation", "becomes", "range", "SQNR in dB"],
            activations.collect(),
        )
        .without_empty_columns(),
    }
}

fn range((low, high): (f32, f32)) -> String {
    let [low, high] = [low, high].map(|v| format::significant(f64::from(v), 3));
    format!("{low} to {high}")
}

fn noise(sqnr_db: Option<f32>) -> String {
    sqnr_db.map_or("–".to_string(), |db| format!("{db:.1}"))
}

fn environment(report: &Report) -> Table {
    let rows = report.environment.iter();
    let rows = rows.map(|(name, value)| Row::new(name, vec![Cell::words(value)]));
    Table::new("Where it was measured", &["", "value"], rows.collect())
}
