//! What models give against what they cost.

use super::WIDTH;
use super::axis::Axis;
use super::labels::{Area, Room};
use super::svg::{At, Svg};
use crate::metric::Metric;
use crate::report::format;
use crate::report::{Choice, Point, Report};

const HEIGHT: f64 = 300.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 46.0;
/// About so many marks on an axis.
const MARKS: f64 = 5.0;
/// So many points are all labelled; of more, so many of those on the line.
const ALL_LABELS: usize = 16;
const SOME_LABELS: usize = 6;
/// Dots nearer than this are one to the eye.
const SAME_PLACE: f64 = 4.0;
/// So many points are told in words; all are in the table.
const MOST_WORDS: usize = 40;
/// R² has no lower end; worse than the mean of the labels is bad enough to be shown at the edge.
const WORST_R2: f64 = -0.25;

/// What a model costs.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::report) enum Cost {
    /// Bytes of the file.
    FileBytes,
    /// The time of one call.
    Latency,
}

impl Cost {
    pub(in crate::report) fn name(self) -> &'static str {
        match self {
            Cost::FileBytes => "bytes of the file",
            Cost::Latency => "milliseconds a call",
        }
    }

    fn of(self, point: &Point) -> Option<f64> {
        match self {
            Cost::FileBytes => Some(point.file_bytes as f64),
            Cost::Latency => point.latency_ms.filter(|ms| ms.is_finite()),
        }
    }

    /// In full.
    fn told(self, cost: f64) -> String {
        match self {
            Cost::FileBytes => format!("{} bytes", format::bytes(cost as u64)),
            Cost::Latency => format!("{} ms", format::significant(cost, 3)),
        }
    }

    /// On the axis, where there is little room.
    fn mark(self, cost: f64, axis: &Axis) -> String {
        match self {
            Cost::FileBytes => {
                let (size, unit) = format::unit_of_bytes(cost);
                format!("{} {unit}", axis.written(cost, size))
            }
            Cost::Latency => axis.written(cost, 1.0),
        }
    }
}

/// A model that can be drawn.
struct Drawn<'a> {
    point: &'a Point,
    cost: f64,
}

/// The metric of every model against one of its costs, the float model as reference. `None` where
/// the cost of no quantized model is known.
pub(in crate::report) fn tradeoff(report: &Report, cost: Cost) -> Option<String> {
    let drawn = |point: &'_ Point| cost.of(point).filter(|_| point.metric.is_finite());
    let points: Vec<Drawn> = report
        .points
        .iter()
        .filter_map(|point| Some(Drawn { point, cost: drawn(point)? }))
        .collect();
    if points.is_empty() {
        return None;
    }
    let float = drawn(&report.reference).map(|cost| Drawn { point: &report.reference, cost });
    let metric = report.metric;
    let limit = report.max_drop.map(|drop| metric.after_drop(report.reference.metric, drop));

    let all = || points.iter().chain(&float);
    let levels = all().map(|d| d.point.metric).chain(limit);
    let x_axis = Axis::by_ratio(all().map(|d| d.cost), MARKS);
    let y_axis = match metric {
        Metric::R2 => Axis::round(levels.map(|m| m.max(WORST_R2)), MARKS),
        Metric::Mae | Metric::Rmse | Metric::Perplexity => Axis::by_ratio(levels, MARKS),
        _ => Axis::round(levels, MARKS),
    };
    let (right, floor) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let x = |cost: f64| LEFT + x_axis.at(cost) * (right - LEFT);
    let y = |metric: f64| floor - y_axis.at(metric) * (floor - TOP);
    let at = |d: &Drawn| -> At { (x(d.cost), y(d.point.metric)) };

    let title = format!("{metric} against {}", cost.name());
    let mut svg = Svg::new(WIDTH, HEIGHT, &title, &in_words(report, cost, &points));
    for mark in &y_axis.marks {
        svg.line("grid", (LEFT, y(*mark)), (right, y(*mark)));
        svg.text("mark end", (LEFT - 6.0, y(*mark) + 4.0), &y_axis.written(*mark, 1.0));
    }
    for mark in &x_axis.marks {
        svg.line("grid", (x(*mark), floor), (x(*mark), floor + 4.0));
        let written = cost.mark(*mark, &x_axis);
        svg.text("mark middle", (x(*mark), floor + 18.0), &written);
    }
    svg.text("mark middle", ((LEFT + right) / 2.0, HEIGHT - 8.0), cost.name());
    let direction = if metric.higher_is_better() { "more" } else { "less" };
    svg.text("mark", (4.0, 13.0), &format!("{metric} ({direction} is better)"));

    if let Some(float) = &float {
        let level = y(float.point.metric);
        svg.line("reference", (LEFT, level), (right, level));
    }
    if let Some(limit) = limit.filter(|limit| y_axis.holds(*limit)) {
        svg.line("limit", (LEFT, y(limit)), (right, y(limit)));
    }
    let best = frontier(metric, &points);
    svg.polyline("line s1", best.iter().map(|d| at(d)));
    for d in points.iter().filter(|d| d.point.choice == Choice::Chosen) {
        if let Some((least, most)) = d.point.drop_interval {
            let ends =
                [least, most].map(|drop| y(metric.after_drop(report.reference.metric, drop)));
            svg.line("interval", (x(d.cost), ends[0]), (x(d.cost), ends[1]));
        }
    }
    // What matters most is drawn last, so that it lies on top, and labelled first.
    let rank = |d: &Drawn| match d.point.choice {
        Choice::Chosen => 2,
        Choice::Measured => usize::from(best.iter().any(|b| std::ptr::eq(b.point, d.point))),
    };
    let mut order: Vec<&Drawn> = points.iter().collect();
    order.sort_by_key(|d| rank(d));
    for d in &order {
        let class = ["s1 aside", "s1", "s0 chosen"][rank(d)];
        let radius = [3.5, 4.5, 6.5][rank(d)];
        svg.dot(class, at(d), radius, &told(metric, cost, d.point));
    }
    if let Some(float) = &float {
        svg.dot("float", at(float), 5.0, &told(metric, cost, float.point));
    }
    let mut room = Room::new(Area(LEFT, TOP - 12.0, WIDTH, floor), all().map(at));
    let most = if points.len() <= ALL_LABELS { ALL_LABELS } else { SOME_LABELS };
    let labelled = order.iter().rev().take(most).copied().chain(&float);
    for (dot, models) in together(labelled.map(|d| (at(d), d.point))) {
        let off_scale = if y_axis.holds(models[0].metric) { "" } else { " ▾" };
        let names: Vec<&str> = models.iter().map(|m| m.label.as_str()).collect();
        let label = format!("{}{off_scale}", names.join(", "));
        let is_chosen = models.iter().any(|m| m.choice == Choice::Chosen);
        let class = if is_chosen { "label middle chosen" } else { "label middle" };
        if let Some(place) = room.place(dot, &label) {
            svg.text(class, place, &label);
        }
    }
    Some(svg.finish())
}

/// Models whose dots lie on each other share a label. Those that matter most come first.
fn together<'a>(models: impl Iterator<Item = (At, &'a Point)>) -> Vec<(At, Vec<&'a Point>)> {
    let mut groups: Vec<(At, Vec<&Point>)> = Vec::new();
    for (at, model) in models {
        let near = |other: &At| (other.0 - at.0).hypot(other.1 - at.1) < SAME_PLACE;
        match groups.iter_mut().find(|(other, _)| near(other)) {
            Some((_, group)) => group.push(model),
            None => groups.push((at, vec![model])),
        }
    }
    for (_, group) in &mut groups {
        group.sort_by(|a, b| a.label.len().cmp(&b.label.len()).then(a.label.cmp(&b.label)));
    }
    groups
}

/// The models that no other beats by both metric and cost, by rising cost.
fn frontier<'a, 'b>(metric: Metric, points: &'b [Drawn<'a>]) -> Vec<&'b Drawn<'a>> {
    let mut by_cost: Vec<&Drawn> = points.iter().collect();
    by_cost.sort_by(|a, b| {
        let better_first = metric.drop(a.point.metric, b.point.metric);
        a.cost.total_cmp(&b.cost).then(0f64.total_cmp(&better_first))
    });
    let mut best: Vec<&Drawn> = Vec::new();
    for d in by_cost {
        if best.last().is_none_or(|b| metric.drop(d.point.metric, b.point.metric) > 0.0) {
            best.push(d);
        }
    }
    best
}

/// `4: accuracy 0.9012, 170,123 bytes`.
fn told(metric: Metric, cost: Cost, point: &Point) -> String {
    let value = format::metric(point.metric);
    let cost = cost.of(point).map_or("not measured".to_string(), |c| cost.told(c));
    format!("{}: {metric} {value}, {cost}", point.label)
}

fn in_words(report: &Report, cost: Cost, drawn: &[Drawn]) -> String {
    let metric = report.metric;
    let mut words = vec![told(metric, cost, &report.reference)];
    words.extend(drawn.iter().take(MOST_WORDS).map(|d| match d.point.choice {
        Choice::Chosen => format!("chosen, {}", told(metric, cost, d.point)),
        Choice::Measured => told(metric, cost, d.point),
    }));
    if drawn.len() > MOST_WORDS {
        words.push(format!("and {} more, in the table", drawn.len() - MOST_WORDS));
    }
    let missing = report.points.len() - drawn.len();
    if missing > 0 {
        words.push(format!("{missing} without a number are not drawn"));
    }
    format!("{}.", words.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(label: &str, metric: f64, file_bytes: u64) -> Point {
        Point::new(label, metric, file_bytes, file_bytes)
    }

    #[test]
    fn the_line_joins_what_no_other_beats() {
        let points =
            [point("8", 0.9, 80), point("4", 0.9, 40), point("3", 0.7, 30), point("w", 0.6, 35)];
        let drawn: Vec<Drawn> =
            points.iter().map(|p| Drawn { point: p, cost: p.file_bytes as f64 }).collect();
        let labels = |metric| -> Vec<String> {
            frontier(metric, &drawn).iter().map(|d| d.point.label.clone()).collect()
        };
        assert_eq!(labels(Metric::Accuracy), ["3", "4"]);
        assert_eq!(labels(Metric::Mae), ["3", "w"].map(String::from));
    }

    #[test]
    fn dots_on_each_other_share_a_label() {
        let points = ["8", "10", "2"].map(|label| point(label, 0.9, 80));
        let places = [(5.0, 5.0), (6.0, 5.0), (50.0, 5.0)];
        let groups = together(places.into_iter().zip(&points));
        let labels: Vec<Vec<&str>> = groups
            .iter()
            .map(|(_, models)| models.iter().map(|m| m.label.as_str()).collect())
            .collect();
        assert_eq!(labels, [vec!["8", "10"], vec!["2"]]);
    }
}
