//! Tables whose numbers a program can read back.

use std::fmt::Display;

use askama::Template;
use serde::Serialize;

/// A page stays readable: what is beyond so many rows is told as a number.
const MOST_ROWS: usize = 500;
/// The names of rows that are widths and the like have at most so many letters.
const SHORT_NAME: usize = 12;
/// Words of more letters may be broken.
const LONG_WORDS: usize = 36;
/// A table of more rows than this is folded.
const MOST_OPEN_ROWS: usize = 12;

/// A table in a box of its own, in which it scrolls where the screen is narrow.
#[derive(Template)]
#[template(path = "table.html")]
pub(super) struct Table {
    /// The accessible name.
    caption: String,
    /// One a column; the first is that of the rows' names.
    head: Vec<String>,
    rows: Vec<Row>,
    /// Rows beyond `MOST_ROWS`.
    left_out: usize,
}

#[derive(Template)]
#[template(
    ext = "html",
    source = "<details><summary>{{ summary }} <span class=\"soft\">({{ rows }} rows)</span>\
              </summary>{{ table|safe }}</details>"
)]
struct FoldedTable<'a> {
    table: &'a Table,
    summary: &'a str,
    rows: usize,
}

/// A row: its name, and a cell for every other column.
pub(super) struct Row {
    pub(super) name: String,
    /// Words behind the name.
    pub(super) mark: &'static str,
    pub(super) cells: Vec<Cell>,
}

/// A cell as people read it; a number also as JSON holds it, under the name it has there.
pub(super) struct Cell {
    text: String,
    value: Option<(String, String)>,
}

impl Cell {
    /// Numbers stand on the right, words on the left; long ones may be broken.
    fn class(&self) -> &'static str {
        match &self.value {
            Some(_) => "",
            None if self.text.chars().count() > LONG_WORDS => "words long",
            None => "words",
        }
    }

    /// Words.
    pub(super) fn words(text: impl Display) -> Cell {
        Cell { text: text.to_string(), value: None }
    }

    /// A number, written by `show`.
    pub(super) fn number<T: Serialize + Copy>(
        key: &str,
        number: T,
        show: impl Fn(T) -> String,
    ) -> Cell {
        let json = serde_json::to_string(&number).expect("numbers are JSON");
        Cell { text: show(number), value: Some((key.to_string(), json)) }
    }

    /// A number that may be missing.
    pub(super) fn maybe<T: Serialize + Copy>(
        key: &str,
        number: Option<T>,
        show: impl Fn(T) -> String,
    ) -> Cell {
        Cell::number(key, number, |n| n.map_or("–".to_string(), &show))
    }
}

impl Row {
    /// A row without a mark.
    pub(super) fn new(name: impl Display, cells: Vec<Cell>) -> Row {
        Row { name: name.to_string(), mark: "", cells }
    }
}

impl Table {
    pub(super) fn new(caption: &str, head: &[&str], rows: Vec<Row>) -> Table {
        let left_out = rows.len().saturating_sub(MOST_ROWS);
        let mut rows = rows;
        rows.truncate(MOST_ROWS);
        Table {
            caption: caption.to_string(),
            head: head.iter().map(ToString::to_string).collect(),
            rows,
            left_out,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table, folded under its name and length if it is long.
    pub(super) fn folded_if_long(&self) -> String {
        match self.rows.len() > MOST_OPEN_ROWS {
            true => self.folded(&self.caption),
            false => self.to_string(),
        }
    }

    /// The table, folded under a few words and its length.
    pub(super) fn folded(&self, summary: &str) -> String {
        let rows = self.rows.len() + self.left_out;
        FoldedTable { table: self, summary, rows }.to_string()
    }

    /// A column of tensors is wider than one of widths.
    fn class(&self) -> &'static str {
        let longest = self.rows.iter().map(|row| row.name.chars().count()).max();
        if longest.unwrap_or(0) > SHORT_NAME { "named" } else { "" }
    }

    /// The class of a column's head, which is that of its cells.
    fn head_class(&self, column: &usize) -> &'static str {
        let cell = |row: &Row| row.cells.get(column.checked_sub(1)?).map(Cell::class);
        self.rows.first().and_then(cell).unwrap_or_default()
    }

    /// Leaves out the columns in which no row has anything.
    pub(super) fn without_empty_columns(mut self) -> Table {
        let is_empty = |column: usize| self.rows.iter().all(|row| row.cells[column].text == "–");
        let kept: Vec<bool> =
            (0..self.head.len().saturating_sub(1)).map(|c| !is_empty(c)).collect();
        retain(&mut self.head, |i| i == 0 || kept[i - 1]);
        for row in &mut self.rows {
            retain(&mut row.cells, |i| kept[i]);
        }
        self
    }
}

fn retain<T>(items: &mut Vec<T>, keep: impl Fn(usize) -> bool) {
    let mut at = 0..;
    items.retain(|_| at.next().is_some_and(&keep));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_can_be_read_back_and_text_is_escaped() {
        let cells = vec![
            Cell::number("points.0.metric", 0.1 + 0.2, |n| format!("{n:.1}")),
            Cell::maybe("points.0.energy_j", None::<f64>, |n| n.to_string()),
        ];
        let table = Table::new("<b>", &["a & b", "metric", "energy"], vec![Row::new("<w>", cells)]);
        let html = table.to_string();
        assert!(
            html.contains(r#"data-key="points.0.metric" data-value="0.30000000000000004">0.3<"#)
        );
        assert!(html.contains(r#"data-key="points.0.energy_j" data-value="null">–<"#));
        assert!(!html.contains("<w>") && !html.contains("<b>") && !html.contains("a & b"));
        let html = table.without_empty_columns().to_string();
        assert!(html.contains("metric") && !html.contains("energy"));
    }

    #[test]
    fn long_tables_are_cut() {
        let rows = (0..MOST_ROWS + 7).map(|i| Row::new(i, Vec::new())).collect();
        let table = Table::new("long", &["n"], rows);
        let html = table.folded_if_long();
        assert!(html.starts_with("<details>") && html.contains("(507 rows)"));
        assert_eq!(html.matches("scope=\"row\"").count(), MOST_ROWS);
        assert!(html.contains("7 more"));
    }
}
