//! Outputs as a table: one row an example.

use std::io::{self, Write};

use fewbits_engine::{Tensor, Values};

/// A named column of text.
pub(super) struct Column {
    name: String,
    cells: Vec<String>,
}

/// One column for each label or score; `Err` says which output is not a table.
pub(super) fn columns(arrays: &[(&str, Tensor)]) -> Result<Vec<Column>, String> {
    let mut columns = Vec::new();
    for (name, tensor) in arrays {
        let width = match *tensor.shape() {
            [] | [_] => 1,
            [_, width] => width,
            _ => {
                return Err(format!(
                    "output '{name}' has shape {:?}, which is not a table; write .npz",
                    tensor.shape()
                ));
            }
        };
        let cells = cells(tensor);
        for i in 0..width {
            let name = match tensor.shape() {
                [_, _] if width > 1 => format!("{name}_{i}"),
                _ => name.to_string(),
            };
            columns.push(Column {
                name,
                cells: cells.iter().skip(i).step_by(width).cloned().collect(),
            });
        }
    }
    Ok(columns)
}

fn cells(tensor: &Tensor) -> Vec<String> {
    fn text<T: ToString>(values: &[T]) -> Vec<String> {
        values.iter().map(T::to_string).collect()
    }
    match tensor.values() {
        // The shortest text that reads back as the same number.
        Values::F16(v) => text(v),
        Values::F32(v) => text(v),
        Values::F64(v) => text(v),
        Values::I64(v) => text(v),
        Values::I32(v) => text(v),
        Values::I8(v) => text(v),
        Values::U8(v) => text(v),
        Values::Bool(v) => text(v),
        Values::Str(v) => v.clone(),
    }
}

pub(super) fn write(out: &mut impl Write, columns: &[Column]) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(columns.iter().map(|c| &c.name))?;
    let rows = columns.iter().map(|c| c.cells.len()).max().unwrap_or(0);
    for row in 0..rows {
        writer.write_record(columns.iter().map(|c| c.cells.get(row).map_or("", String::as_str)))?;
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_probabilities_make_columns() {
        let label = Tensor::new(vec![2], vec!["a".to_string(), "b,c".to_string()]).unwrap();
        let scores = Tensor::new(vec![2, 2], vec![0.25f32, 0.75, 1.0, 0.0]).unwrap();
        let columns = columns(&[("label", label), ("p", scores)]).ok().unwrap();
        let mut text = Vec::new();
        write(&mut text, &columns).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "label,p_0,p_1\na,0.25,0.75\n\"b,c\",1,0\n");
    }

    #[test]
    fn images_are_not_a_table() {
        let image = Tensor::new(vec![1, 2, 2], vec![0f32; 4]).unwrap();
        assert!(columns(&[("image", image)]).is_err());
    }
}
