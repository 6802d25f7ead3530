//! The page of a [`Report`].

use askama::Template;

use super::{Report, STYLE};

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    style: &'a str,
}

pub(super) fn render(report: &Report) -> String {
    let page = Page { report, style: STYLE };
    page.render().expect("the template reads only what the report has")
}
