//! The page of `sweep --report` and `tune --report`: that it holds whatever was measured, and
//! nothing else. tests/python/test_report.py looks at it in a browser.

use fewbits::metric::Metric;
use fewbits::plan::{Becomes, Plan, PlannedTensor, Target};
use fewbits::report::{Choice, Point, Report, Sensitivity, WeightHistogram};

const HOSTILE: &str = r#"<script>alert("1")</script><img src='x' onerror=y>&"#;

fn report(points: Vec<Point>) -> Report {
    Report {
        title: "model.onnx: how many bits?".into(),
        verdict: "4 bits hold.".into(),
        metric: Metric::Accuracy,
        max_drop: None,
        reference: Point::new("float", 0.9, 4000, 3900),
        points,
        sensitivity: Vec::new(),
        histograms: Vec::new(),
        plan: None,
        environment: Vec::new(),
        how: Vec::new(),
        notes: Vec::new(),
    }
}

/// Opened and closed elements must match, and every plot must say what it shows.
fn assert_sound(html: &str) {
    for tag in ["svg", "table", "details", "section", "div", "figure", "tr", "td", "th", "text"] {
        let opened =
            html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    for svg in html.split("<svg ").skip(1) {
        assert!(svg.starts_with("class=\"plot\" role=\"img\""));
        let desc = svg.split("<desc>").nth(1).unwrap().split("</desc>").next().unwrap();
        assert!(svg.contains("<title>") && desc.len() > 5, "{desc}");
    }
    for bad in ["<script", "<img", "http://", "https://", "url(", "@import", "NaN", "\"inf", ">inf"]
    {
        assert!(!html.contains(bad), "{bad}");
    }
}

/// The attribute of a number on the page.
fn value<'a>(html: &'a str, key: &str) -> &'a str {
    let start = format!("data-key=\"{key}\" data-value=\"");
    html.split(&start).nth(1).unwrap_or_else(|| panic!("{key}")).split('"').next().unwrap()
}

#[test]
fn what_comes_from_a_model_is_text() {
    let mut report = report(vec![Point::new(HOSTILE, 0.8, 400, 300)]);
    report.title = HOSTILE.into();
    report.verdict = HOSTILE.into();
    report.points[0].choice = Choice::Chosen;
    report.sensitivity = vec![Sensitivity {
        tensor: HOSTILE.into(),
        scheme: HOSTILE.into(),
        file_bytes_saved: 1,
        relative_error: 0.1,
        drop: None,
    }];
    report.histograms =
        vec![WeightHistogram::of(HOSTILE, HOSTILE, &[0.0, 1.0], &[0.0, 1.0]).unwrap()];
    let tensor = PlannedTensor {
        tensor: HOSTILE.into(),
        shape: vec![2, 3],
        read_by: vec![HOSTILE.into()],
        range: None,
        sqnr_db: None,
        range_method: Default::default(),
        rounding: Default::default(),
        scale_type: Default::default(),
        reduce_range: Default::default(),
        becomes: Becomes::Float(HOSTILE.into()),
    };
    report.plan = Some(Plan::new(vec![tensor], Target::default()));
    report.environment = vec![(HOSTILE.into(), HOSTILE.into())];
    report.how = vec![(HOSTILE.into(), HOSTILE.into())];
    report.notes = vec![HOSTILE.into()];
    let html = report.to_html();
    assert_sound(&html);
    assert!(!html.contains("onerror=y>"));
    // Title twice; verdict, point, tensor, plan and the rest at least once each.
    assert!(html.matches("alert(").count() >= 14, "{html}");
}

#[test]
fn the_verdict_is_read_before_any_figure() {
    let html = report(vec![Point::new("4", 0.8, 400, 300)]).to_html();
    let at = |words: &str| html.find(words).unwrap_or_else(|| panic!("{words}"));
    assert!(at("4 bits hold.") < at("<svg") && at("4 bits hold.") < at("<table"));
    assert!(html.starts_with("<!doctype html>\n<html lang=\"en\">"));
}

#[test]
fn numbers_are_those_of_the_json() {
    let mut points = vec![Point::new("1", 0.1, 100, 90), Point::new("4", 0.1 + 0.2, 400, 300)];
    points[1].latency_ms = Some(0.123_456_789);
    points[1].drop_interval = Some((0.5, 0.7));
    let report = report(points);
    let html = report.to_html();
    let json = serde_json::to_value(&report).unwrap();
    for (i, key) in [(0, "metric"), (1, "metric"), (1, "file_bytes"), (1, "weight_bytes")] {
        assert_eq!(value(&html, &format!("points.{i}.{key}")), json["points"][i][key].to_string());
    }
    assert_eq!(value(&html, "points.0.latency_ms"), "null");
    assert_eq!(value(&html, "points.1.latency_ms"), "0.123456789");
    assert_eq!(value(&html, "points.1.drop_interval"), "[0.5,0.7]");
    assert_eq!(value(&html, "reference.file_bytes"), "4000");
    // What nobody measured has no column.
    assert!(!html.contains("points.0.energy_j") && !html.contains("points.0.agreement"));
}

#[test]
fn a_report_of_nothing_is_a_page() {
    let html = report(Vec::new()).to_html();
    assert_sound(&html);
    assert!(!html.contains("<svg") && html.contains("No quantized model"));
    for heading in ["The plan", "What each layer costs", "Weights before", "Where it was"] {
        assert!(!html.contains(heading), "{heading}");
    }
}

#[test]
fn one_model_is_drawn_and_the_chosen_one_marked() {
    let mut report = report(vec![Point::new("4", 0.9, 400, 300)]);
    let html = report.to_html();
    assert_sound(&html);
    assert_eq!(html.matches("<svg ").count(), 1, "no latency, no second plot");
    assert!(!html.contains("class=\"tag\"") && !html.contains("class=\"cards\""));

    report.reference.latency_ms = Some(2.0);
    report.points[0].latency_ms = Some(1.0);
    report.points[0].choice = Choice::Chosen;
    report.max_drop = Some(0.01);
    let html = report.to_html();
    assert_sound(&html);
    assert_eq!(html.matches("<svg ").count(), 2);
    assert_eq!(html.matches("class=\"dot s0 chosen\"").count(), 2);
    assert_eq!(html.matches("class=\"limit\" x1").count(), 2);
    assert!(html.contains("class=\"tag\"") && html.contains("10.0× smaller"));
    assert!(html.contains("2.00× faster"));
}

#[test]
fn what_is_no_number_is_said_and_not_drawn() {
    let mut points = [f64::NAN, f64::INFINITY, -1e30, 0.8].map(|m| Point::new("b", m, 400, 300));
    points[0].latency_ms = Some(f64::NAN);
    points[3].agreement = Some(f64::NAN);
    for metric in [Metric::Accuracy, Metric::R2, Metric::Perplexity] {
        let mut report = report(points.to_vec());
        report.metric = metric;
        report.sensitivity = [f64::NAN, f64::INFINITY, 0.0, 1e-9]
            .map(|relative_error| Sensitivity {
                tensor: "w".into(),
                scheme: "4-bit".into(),
                file_bytes_saved: 0,
                relative_error,
                drop: Some(f64::NAN),
            })
            .to_vec();
        let html = report.to_html();
        assert_sound(&html);
        assert_eq!(value(&html, "points.0.metric"), "null");
        assert!(html.contains("not a number") && html.contains("2 without a number"));
        assert_eq!(html.matches("<circle").count(), 3, "two points and the float model");
    }
}

#[test]
fn a_model_of_no_bytes_divides_nothing() {
    let mut report = report(vec![Point::new("4", 0.0, 0, 0)]);
    report.reference = Point::new("float", 0.0, 0, 0);
    report.points[0].choice = Choice::Chosen;
    assert_sound(&report.to_html());
}

#[test]
fn hundreds_of_layers_and_models_make_a_page_of_bounded_size() {
    let mut report = report(
        (0..3000)
            .map(|i| {
                Point::new(
                    &format!("mix {i}"),
                    0.5 + 1e-4 * f64::from(i % 977),
                    1000 + i as u64,
                    900,
                )
            })
            .collect(),
    );
    let name = |i: usize| format!("encoder.layer.{i}.{}", "attention.".repeat(30));
    report.sensitivity = (0..3000)
        .map(|i| Sensitivity {
            tensor: name(i),
            scheme: "symmetric 4-bit".into(),
            file_bytes_saved: 10,
            relative_error: 1e-3 * i as f64,
            drop: None,
        })
        .collect();
    let tensor = |i: usize| PlannedTensor {
        tensor: name(i),
        shape: vec![8, 8],
        read_by: vec!["MatMul".into()],
        range: Some((-1.0, 1.0)),
        sqnr_db: Some(30.0),
        range_method: Default::default(),
        rounding: Default::default(),
        scale_type: Default::default(),
        reduce_range: Default::default(),
        becomes: Becomes::Float("because".into()),
    };
    report.plan = Some(Plan::new((0..3000).map(tensor).collect(), Target::default()));
    let html = report.to_html();
    assert_sound(&html);
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
    assert_eq!(html.matches("class=\"bar\"").count(), 16);
    assert!(html.contains("(3000 rows)") && html.contains("and 2500 more"));
}
