//! The elements of what operators compute from sizes, as graphs compute shapes.

use super::extents::Known;
use super::extents::{Element, MOST_AXES, product};
use super::places::place;
use super::shapes::Reader;
use crate::proto::{DataType, NodeProto};

/// The elements of the first result of a node, which has one axis at most; none where it is none that computes
/// shapes.
pub(super) fn result_elements(node: &NodeProto, known: &impl Known) -> Option<Vec<Element>> {
    node.is_onnx().then_some(())?;
    let reader = Reader { node, known };
    Some(match node.op_type() {
        "Shape" => reader.told(&reader.extents(0)?).iter().map(|&size| size.into()).collect(),
        "Size" => vec![product(&reader.extents(0)?).into()],
        "Cast" | "Flatten" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" => reader.held(0)?,
        "Gather" => {
            let from = reader.vector(0).filter(|_| is_first_axis(node))?;
            let found = |index: Element| match index {
                Element::Is(index) => Some(from[place(index, from.len())?]),
                Element::Like(_) | Element::Unknown => Some(Element::Unknown),
            };
            reader.held(1)?.into_iter().map(found).collect::<Option<_>>()?
        }
        "Slice" => {
            let from = reader.vector(0)?;
            match reader.cuts(1)?.as_slice() {
                [(0, Some(cut))] => cut.of(&from)?,
                _ => return None,
            }
        }
        "Concat" if is_first_axis(node) => {
            let mut all = Vec::new();
            for part in 0..node.input.len() {
                all.extend(reader.vector(part)?);
                (all.len() <= MOST_AXES).then_some(())?;
            }
            all
        }
        "Add" => pairs(&reader, Element::plus)?,
        "Sub" => pairs(&reader, difference)?,
        "Mul" => pairs(&reader, Element::times)?,
        "Div" => pairs(&reader, ratio)?,
        _ => return None,
    })
}

/// The elements of a value of that type; none where it is of no type that shapes have, or nothing is known of them.
pub(super) fn fitting(elements: Vec<Element>, data_type: DataType) -> Option<Vec<Element>> {
    let elements: Vec<Element> = match data_type {
        DataType::Int64 => elements,
        // What is beyond the type is another number in it. The sizes of axes are not: no tensor is so large.
        DataType::Int32 => {
            let fits = |int: i64| i32::try_from(int).is_ok();
            let fitting = |element: Element| match element {
                Element::Is(int) if !fits(int) => Element::Unknown,
                element => element,
            };
            elements.into_iter().map(fitting).collect()
        }
        _ => return None,
    };
    elements.iter().any(|&element| element != Element::Unknown).then_some(elements)
}

/// Whether a node goes along the first axis of values that have no other.
fn is_first_axis(node: &NodeProto) -> bool {
    matches!(node.int("axis", 0), 0 | -1)
}

impl<K: Known> Reader<'_, K> {
    /// The elements of an input that has one axis at most.
    fn held(&self, input: usize) -> Option<Vec<Element>> {
        if self.extents(input)?.is_empty() {
            let elements = self.known.elements(self.node.given_input(input)?);
            return Some(elements.unwrap_or_else(|| vec![Element::Unknown]));
        }
        self.vector(input)
    }
}

/// What `operation` makes of the elements of two inputs that meet.
fn pairs(
    reader: &Reader<impl Known>,
    operation: fn(Element, Element) -> Element,
) -> Option<Vec<Element>> {
    let (a, b) = (reader.held(0)?, reader.held(1)?);
    Some(match (&a[..], &b[..]) {
        (a, b) if a.len() == b.len() => a.iter().zip(b).map(|(&a, &b)| operation(a, b)).collect(),
        (&[a], b) => b.iter().map(|&b| operation(a, b)).collect(),
        (a, &[b]) => a.iter().map(|&a| operation(a, b)).collect(),
        _ => return None,
    })
}

fn difference(a: Element, b: Element) -> Element {
    match (a, b) {
        (element, Element::Is(0)) => element,
        (Element::Is(a), Element::Is(b)) => a.checked_sub(b).into(),
        (Element::Like(a), Element::Like(b)) if a == b => Element::Is(0),
        _ => Element::Unknown,
    }
}

/// Runtimes round negative ratios otherwise than each other.
fn ratio(a: Element, b: Element) -> Element {
    match (a, b) {
        (element, Element::Is(1)) => element,
        (Element::Is(0..), Element::Is(1..)) => {
            a.int().zip(b.int()).and_then(|(a, b)| a.checked_div(b)).into()
        }
        _ => Element::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Extent, Facts, Symbol};
    use crate::proto::{AttributeProto, GraphProto, TensorProto, ValueInfoProto};

    /// The facts of a graph of the inputs `x` `[?, 4, ?]` and `ids` of three 64-bit integers, whose node `sizes` are
    /// those of `x`.
    fn facts(nodes: Vec<NodeProto>) -> Facts {
        let ints =
            |name: &str, values: &[i64]| TensorProto::from_i64(name, &[values.len()], values);
        let cast = AttributeProto::of_int("to", DataType::Int32 as i64);
        let first = vec![
            NodeProto::new("Shape", &["x"], &["sizes"]),
            NodeProto::new("Cast", &["sizes"], &["narrow"]).with(cast),
        ];
        Facts::of(&GraphProto {
            node: [first, nodes].concat(),
            input: vec![
                ValueInfoProto::tensor("x", DataType::Float as i32, &[None, Some(4), None]),
                ValueInfoProto::tensor("ids", DataType::Int64 as i32, &[Some(3)]),
            ],
            initializer: vec![
                TensorProto::from_i64("zero", &[], &[0]),
                TensorProto::from_i64("one", &[], &[1]),
                TensorProto::from_i64("last", &[], &[-1]),
                TensorProto::from_i64("beyond", &[], &[3]),
                TensorProto::from_i64("seven", &[], &[7]),
                TensorProto::from_i32("two", &[1], &[2]),
                TensorProto::from_i32("many", &[1], &[i32::MAX]),
                TensorProto::from_f32("float", &[1], &[2.0]),
                TensorProto { dims: vec![3], ..TensorProto::from_i64("damaged", &[1], &[1]) },
                ints("axis", &[0]),
                ints("minus", &[-1]),
                ints("least", &[i64::MIN]),
                ints("most", &[i64::MAX]),
                ints("places", &[2, -2, 2]),
                ints("open", &[-1]),
                ints("square", &[1, 3]),
                ints("none", &[]),
                ints("long", &[1; MOST_AXES]),
            ],
            ..GraphProto::default()
        })
    }

    /// The elements of what the last node gives.
    fn last(nodes: Vec<NodeProto>) -> Option<Vec<Element>> {
        let output = nodes.last().unwrap().output[0].clone();
        facts(nodes).elements(&output).map(<[_]>::to_vec)
    }

    fn one(op: &str, inputs: &[&str]) -> Option<Vec<Element>> {
        last(vec![NodeProto::new(op, inputs, &["y"])])
    }

    fn concat(inputs: &[&str], output: &str) -> NodeProto {
        NodeProto::new("Concat", inputs, &[output]).with(AttributeProto::of_int("axis", 0))
    }

    /// The symbol of an axis of `x`.
    fn symbol(axis: usize) -> Symbol {
        match facts(Vec::new()).extents("x").unwrap()[axis] {
            Extent::Like(symbol) => symbol,
            extent => panic!("{extent:?}"),
        }
    }

    fn like(axis: usize) -> Element {
        Element::Like(symbol(axis))
    }

    const FOUR: Element = Element::Is(4);

    #[test]
    fn shapes_are_told_and_looked_up() {
        let (rows, width) = (like(0), like(2));
        assert_ne!(rows, width);
        assert_eq!(one("Identity", &["sizes"]), Some(vec![rows, FOUR, width]));
        let part = |start: i64, end: i64| {
            let node = NodeProto::new("Shape", &["x"], &["y"]);
            let bound = AttributeProto::of_int;
            last(vec![node.with(bound("start", start)).with(bound("end", end))])
        };
        assert_eq!(part(1, i64::MAX), Some(vec![FOUR, width]));
        assert_eq!(part(-9, -2), Some(vec![rows]));
        assert_eq!(part(2, 1), None);
        assert_eq!(part(i64::MAX, i64::MIN), None);
        assert_eq!(one("Size", &["x"]), None);
        assert_eq!(one("Size", &["ids"]), Some(vec![Element::Is(3)]));
        assert_eq!(one("Gather", &["sizes", "one"]), Some(vec![FOUR]));
        assert_eq!(one("Gather", &["sizes", "last"]), Some(vec![width]));
        assert_eq!(one("Gather", &["sizes", "places"]), Some(vec![width, FOUR, width]));
        assert_eq!(one("Gather", &["sizes", "beyond"]), None);
        assert_eq!(one("Gather", &["sizes", "least"]), None);
        assert_eq!(one("Gather", &["zero", "zero"]), None);
        // What is looked up by sizes, or among what is fed, may be anything.
        assert_eq!(one("Gather", &["places", "sizes"]), None);
        assert_eq!(one("Gather", &["ids", "one"]), None);
    }

    #[test]
    fn parts_of_shapes_are_cut() {
        let (rows, width) = (like(0), like(2));
        let cut = |inputs: &[&str]| one("Slice", &[&["sizes"], inputs].concat());
        assert_eq!(cut(&["axis", "most"]), Some(vec![rows, FOUR, width]));
        assert_eq!(cut(&["axis", "minus"]), Some(vec![rows, FOUR]));
        assert_eq!(cut(&["minus", "least", "axis", "minus"]), Some(vec![width, FOUR, rows]));
        assert_eq!(cut(&["minus", "least", "axis", "least"]), Some(vec![width]));
        assert_eq!(cut(&["axis", "most", "axis", "most"]), Some(vec![rows]));
        assert_eq!(cut(&["axis", "most", "axis", "axis"]), None);
        assert_eq!(cut(&["most", "most"]), None);
        assert_eq!(cut(&["axis", "ids"]), None);
    }

    #[test]
    fn shapes_are_put_together() {
        let (rows, width) = (like(0), like(2));
        let scalar = |place: &str, output: &str| {
            vec![
                NodeProto::new("Gather", &["sizes", place], &["size"]),
                NodeProto::new("Unsqueeze", &["size", "axis"], &[output]),
            ]
        };
        let nodes = [scalar("last", "width"), vec![concat(&["width", "minus", "ids"], "y")]];
        let unknown = [Element::Unknown; 3];
        let expected = [&[width, Element::Is(-1)], &unknown[..]].concat();
        assert_eq!(last(nodes.concat()), Some(expected));
        let back = [scalar("zero", "rows"), vec![NodeProto::new("Squeeze", &["rows"], &["y"])]];
        assert_eq!(last(back.concat()), Some(vec![rows]));
        // More than any shape has, and none at all.
        assert_eq!(last(vec![concat(&["long", "axis"], "y")]), None);
        assert_eq!(last(vec![concat(&["ids", "damaged"], "y")]), None);
        assert_eq!(last(vec![concat(&["none", "none"], "y")]), None);
        // Of two axes it is no list.
        assert_eq!(one("Reshape", &["sizes", "square"]), None);
        assert_eq!(one("Reshape", &["sizes", "open"]), Some(vec![rows, FOUR, width]));
        assert_eq!(one("Unsqueeze", &["sizes", "axis"]), None);
    }

    #[test]
    fn arithmetic_does_not_overflow() {
        let is = |int: i64| Some(vec![Element::Is(int)]);
        assert_eq!(one("Add", &["most", "one"]), None);
        assert_eq!(one("Sub", &["least", "one"]), None);
        assert_eq!(one("Mul", &["least", "minus"]), None);
        assert_eq!(one("Div", &["least", "minus"]), None);
        assert_eq!(one("Div", &["most", "zero"]), None);
        assert_eq!(one("Div", &["minus", "seven"]), None);
        assert_eq!(one("Div", &["most", "seven"]), is(i64::MAX / 7));
        assert_eq!(one("Sub", &["axis", "seven"]), is(-7));
        // In 32 bits, too.
        assert_eq!(one("Mul", &["many", "two"]), None);
        assert_eq!(one("Mul", &["narrow", "two"]).unwrap()[1], Element::Is(8));
        let cast = AttributeProto::of_int("to", DataType::Int32 as i64);
        assert_eq!(last(vec![NodeProto::new("Cast", &["most"], &["y"]).with(cast)]), None);
        let cast = AttributeProto::of_int("to", DataType::Int64 as i64);
        assert_eq!(last(vec![NodeProto::new("Cast", &["float"], &["y"]).with(cast)]), None);
    }

    #[test]
    fn sizes_stay_where_nothing_is_done_to_them() {
        let (rows, width) = (like(0), like(2));
        let nothing = [("Add", "zero"), ("Sub", "zero"), ("Mul", "one"), ("Div", "one")];
        for (op, with) in nothing {
            assert_eq!(one(op, &["sizes", with]), Some(vec![rows, FOUR, width]), "{op}");
        }
        let zeros = Some(vec![Element::Is(0); 3]);
        assert_eq!(one("Sub", &["sizes", "sizes"]), zeros);
        assert_eq!(one("Mul", &["zero", "sizes"]), zeros);
        let unknown = Element::Unknown;
        assert_eq!(one("Add", &["sizes", "sizes"]), Some(vec![unknown, Element::Is(8), unknown]));
        assert_eq!(one("Div", &["sizes", "sizes"]), Some(vec![unknown, Element::Is(1), unknown]));
        // Lists that do not meet.
        assert_eq!(one("Add", &["sizes", "square"]), None);
        assert_eq!(one("Mul", &["sizes", "none"]), None);
    }
}
