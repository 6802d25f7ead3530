//! An `Einsum` that is a product with a constant matrix becomes a `MatMul`, which everything knows.

use std::collections::HashSet;

use crate::facts::einsum::{ELLIPSIS, Equation};
use crate::graph::{Index, Names};
use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// Rewrites every `Einsum` of a value and a constant of floats that is a plain product: no axis is in both and in
/// the result, and none is summed that only one has. Other orders of axes are `Transpose`, several axes are one by
/// `Reshape`, both of the constant, too, where they are folded.
pub fn to_products(graph: &mut GraphProto) {
    let index = Index::new(graph);
    let inputs: HashSet<&str> = graph.input.iter().map(|input| input.name()).collect();
    let constant = |name: &str| {
        let tensor = index.initializer(name).filter(|t| t.is_float() && !inputs.contains(name))?;
        tensor.shape().ok()
    };
    let planned: Vec<Option<EquationProduct>> = graph
        .node
        .iter()
        .map(|node| {
            let equation = Equation::of(node)?;
            let [a, b] = node.input.as_slice() else { return None };
            match (constant(a), constant(b)) {
                (None, Some(dims)) => EquationProduct::of(&equation, 1, &dims),
                (Some(dims), None) => EquationProduct::of(&equation, 0, &dims),
                _ => None,
            }
        })
        .collect();
    if planned.iter().all(Option::is_none) {
        return;
    }
    let mut names = Names::new(graph);
    for (node, product) in std::mem::take(&mut graph.node).into_iter().zip(planned) {
        match product {
            Some(product) => product.write(&node, graph, &mut names),
            None => graph.node.push(node),
        }
    }
}

/// How an equation is a product of matrices.
struct EquationProduct {
    /// Which operand is the constant.
    constant: usize,
    /// The axes of the value in the order in which the product wants them; none where they lie so.
    value_order: Option<Vec<i64>>,
    constant_order: Option<Vec<i64>>,
    /// How many axes of the result come from the value, where it is known.
    rows: usize,
    /// The sizes of the axes that are summed over, and of those that the constant brings.
    summed: Vec<i64>,
    columns: Vec<i64>,
    /// The axes of the product in the order of the result.
    result_order: Option<Vec<i64>>,
}

impl EquationProduct {
    fn of(equation: &Equation, constant: usize, dims: &[usize]) -> Option<EquationProduct> {
        let (value, weight) = (&equation.operands[1 - constant], &equation.operands[constant]);
        let result = &equation.result;
        if weight.len() != dims.len() || weight.contains(&ELLIPSIS) {
            return None;
        }
        let (mut rows, mut columns) = (Vec::new(), Vec::new());
        for label in result {
            match (value.contains(label), weight.contains(label)) {
                (true, false) => rows.push(*label),
                (false, true) => columns.push(*label),
                _ => return None,
            }
        }
        let is_summed = |label: &&char| !result.contains(label);
        let summed: Vec<char> = value.iter().filter(is_summed).copied().collect();
        let in_weight: Vec<char> = weight.iter().filter(is_summed).copied().collect();
        let same = summed.len() == in_weight.len() && summed.iter().all(|l| in_weight.contains(l));
        if !same || rows.is_empty() || columns.is_empty() || summed.is_empty() {
            return None;
        }
        let order = |from: &[char], to: &[char]| {
            let place = |label: &char| from.iter().position(|other| other == label);
            let order: Option<Vec<i64>> = to.iter().map(|l| place(l).map(|p| p as i64)).collect();
            order.map(|order| Some(order).filter(|order| !order.is_sorted()))
        };
        let size = |label: &char| {
            let place = weight.iter().position(|other| other == label);
            place.map(|place| dims[place] as i64)
        };
        let product = EquationProduct {
            constant,
            value_order: order(value, &[rows.clone(), summed.clone()].concat())?,
            constant_order: order(weight, &[summed.clone(), columns.clone()].concat())?,
            rows: rows.len(),
            summed: summed.iter().map(size).collect::<Option<_>>()?,
            columns: columns.iter().map(size).collect::<Option<_>>()?,
            result_order: order(&[rows, columns].concat(), result)?,
        };
        // Of how many axes an ellipsis stands for nothing is known: they stay where they are.
        let moves = product.value_order.is_some() || product.result_order.is_some();
        let joins = product.summed.len() > 1 || product.columns.len() > 1;
        let is_sized = product.summed.iter().chain(&product.columns).all(|&size| size > 0);
        let fits = is_sized && !(value.contains(&ELLIPSIS) && (moves || joins));
        fits.then_some(product)
    }

    fn write(self, node: &NodeProto, graph: &mut GraphProto, names: &mut Names) {
        let (value, weight) = (&node.input[1 - self.constant], &node.input[self.constant]);
        let kept = vec![0; self.rows];
        let mut emit = Emit { graph, names, stem: weight.clone() };
        let mut matrix = emit.turned(weight, &self.constant_order);
        if self.summed.len() > 1 || self.columns.len() > 1 {
            let size = |sizes: &[i64]| sizes.iter().product::<i64>();
            matrix = emit.reshaped(&matrix, &[size(&self.summed), size(&self.columns)]);
        }
        emit.stem.clone_from(&node.output[0]);
        let mut rows = emit.turned(value, &self.value_order);
        if self.summed.len() > 1 {
            let sizes = [kept.clone(), vec![self.summed.iter().product()]].concat();
            rows = emit.reshaped(&rows, &sizes);
        }
        let mut result = emit.op(NodeProto::new("MatMul", &[&rows, &matrix], &[]));
        if self.columns.len() > 1 {
            result = emit.reshaped(&result, &[kept, self.columns.clone()].concat());
        }
        emit.turned(&result, &self.result_order);
        if let Some(last) = graph.node.last_mut() {
            last.output.clone_from(&node.output);
            last.name.clone_from(&node.name);
        }
    }
}

/// Adds nodes behind the others.
struct Emit<'a> {
    graph: &'a mut GraphProto,
    names: &'a mut Names,
    /// What new names begin with.
    stem: String,
}

impl Emit<'_> {
    fn op(&mut self, mut node: NodeProto) -> String {
        let output = self.names.fresh(&format!("{}_{}", self.stem, node.op_type().to_lowercase()));
        node.output = vec![output.clone()];
        self.graph.node.push(node);
        output
    }

    fn turned(&mut self, value: &str, order: &Option<Vec<i64>>) -> String {
        match order {
            None => value.to_string(),
            Some(order) => self.op(NodeProto::new("Transpose", &[value], &[])
                .with(AttributeProto::of_ints("perm", order))),
        }
    }

    fn reshaped(&mut self, value: &str, sizes: &[i64]) -> String {
        let shape = self.names.fresh(&format!("{}_sizes", self.stem));
        self.graph.initializer.push(TensorProto::from_i64(&shape, &[sizes.len()], sizes));
        self.op(NodeProto::new("Reshape", &[value, &shape], &[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn einsum(equation: &str, inputs: &[&str]) -> NodeProto {
        NodeProto::new("Einsum", inputs, &["y"])
            .with(AttributeProto::of_string("equation", equation))
    }

    fn ops(equation: &str, inputs: &[&str], dims: &[usize]) -> Vec<String> {
        let weight = TensorProto::from_f32("w", dims, &vec![0.5; dims.iter().product()]);
        let mut graph = GraphProto {
            node: vec![einsum(equation, inputs)],
            initializer: vec![weight],
            ..GraphProto::default()
        };
        to_products(&mut graph);
        assert_eq!(graph.node.last().unwrap().output, ["y"]);
        graph.node.iter().map(|node| node.op_type().to_string()).collect()
    }

    #[test]
    fn plain_products_are_products() {
        /// An equation, its inputs, the shape of the weight, and the operators that it becomes.
        type Example = (&'static str, [&'static str; 2], &'static [usize], &'static [&'static str]);
        let cases: [Example; 9] = [
            ("bij, jk -> bik", ["x", "w"], &[2, 3], &["MatMul"]),
            ("ij,jk", ["x", "w"], &[2, 3], &["MatMul"]),
            ("...j,jk->...k", ["x", "w"], &[2, 3], &["MatMul"]),
            ("bij,kj->bik", ["x", "w"], &[3, 2], &["Transpose", "MatMul"]),
            ("jk,bij->bik", ["w", "x"], &[2, 3], &["MatMul"]),
            ("bji,jk->bik", ["x", "w"], &[2, 3], &["Transpose", "MatMul"]),
            ("bij,jk->bki", ["x", "w"], &[2, 3], &["MatMul", "Transpose"]),
            ("bsh,hnd->bsnd", ["x", "w"], &[2, 3, 4], &["Reshape", "MatMul", "Reshape"]),
            ("bsnd,ndh->bsh", ["x", "w"], &[3, 4, 2], &["Reshape", "Reshape", "MatMul"]),
        ];
        for (equation, inputs, dims, expected) in cases {
            assert_eq!(ops(equation, &inputs, dims), expected, "{equation}");
        }
    }

    #[test]
    fn others_stay() {
        let cases: [(&str, [&str; 2], &[usize]); 6] = [
            // An axis in both and in the result, a sum of one alone, a diagonal, a vector, unknown axes moved.
            ("bij,bjk->bik", ["x", "w"], &[2, 2, 3]),
            ("bij,jk->bk", ["x", "w"], &[2, 3]),
            ("bii,ik->bk", ["x", "w"], &[2, 3]),
            ("bij,j->bi", ["x", "w"], &[2]),
            ("...j,jk->k...", ["x", "w"], &[2, 3]),
            ("...j,jkl->...kl", ["x", "w"], &[2, 3, 4]),
        ];
        for (equation, inputs, dims) in cases {
            assert_eq!(ops(equation, &inputs, dims), ["Einsum"], "{equation}");
        }
    }
}
