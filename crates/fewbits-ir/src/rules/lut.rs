//! Functions of each byte, looked up in a table of its 256 values: any that follow from one activation and
//! constants, however many nodes spell them out.

use fewbits_kernels::float::{Binary, Function};
use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, Scale};
use crate::lower::{Lowering, table_of};
use crate::lower::{Rule, Takes, Wanted};
use crate::op::ByteScale;
use crate::program::ValueId;
use crate::refusal::{Refusal, check};
use crate::rules::float_binary::binary_of;
use crate::rules::function::{function_at, name_of};

pub(crate) const RULE: Rule = Rule { name: "lut", takes: Takes::ToBytes(lut), example };

/// Most nodes of a function: what is longer is no activation function.
const MOST_NODES: usize = 32;

fn lut<'a>(lowering: &mut Lowering<'a>, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
    let (node, to) = (wanted.node, wanted.to);
    let mut parts = Parts::default();
    let term = parts.of_node(lowering, node)?;
    let name = parts.activation.ok_or(Refusal::other())?;
    let from = lowering.source(name)?;
    let keeps_rank = lowering.rank(name).is_some_and(|rank| rank >= parts.constant_rank);
    check(keeps_rank || parts.constant_rank == 0, "its constants have more axes than it")?;
    let table = table_of(from.ty.scale, to, |x| term.at(x));
    let what = format!("{} by a table", parts.words.join(" + "));
    Ok(lowering.looked_up(from.id, table, ByteScale::of(to), what, node))
}

/// A function of one float, in the order in which its nodes compute it.
enum Term {
    Activation,
    Constant(f32),
    Function(Function, Box<Term>),
    Binary(Binary, Box<[Term; 2]>),
}

impl Term {
    fn at(&self, x: f32) -> f32 {
        match self {
            Term::Activation => x,
            Term::Constant(constant) => *constant,
            Term::Function(function, of) => function.at(of.at(x)),
            Term::Binary(operation, of) => operation.at(of[0].at(x), of[1].at(x)),
        }
    }
}

/// What a function was found to consist of.
#[derive(Default)]
struct Parts<'a> {
    /// The value that it is a function of.
    activation: Option<&'a str>,
    /// Most axes of a constant.
    constant_rank: usize,
    /// Its operators.
    words: Vec<String>,
}

impl<'a> Parts<'a> {
    /// Finds the function that a node finishes.
    fn of_node(&mut self, lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Term, Refusal> {
        check(self.words.len() < MOST_NODES, "its function has too many nodes for a table")?;
        if let (Some(operation), [a, b]) = (binary_of(node), node.input.as_slice())
            && function_at(lowering, node).is_err()
        {
            let terms = [self.of(lowering, a)?, self.of(lowering, b)?];
            self.words.push(node.op_type().to_string());
            return Ok(Term::Binary(operation, Box::new(terms)));
        }
        let (function, of) = function_at(lowering, node)?;
        let term = Term::Function(function, Box::new(self.of(lowering, of)?));
        self.words.push(name_of(function, node));
        Ok(term)
    }

    /// Finds the function that a value is.
    fn of(&mut self, lowering: &Lowering<'a>, name: &'a str) -> Result<Term, Refusal> {
        if let Some((values, shape)) = lowering.view.floats(name) {
            let [constant] = values[..] else { return Err(Refusal::other()) };
            self.constant_rank = self.constant_rank.max(shape.len());
            return Ok(Term::Constant(constant));
        }
        if let Some((_, node)) = lowering.view.producer(name)
            && (binary_of(node).is_some() || function_at(lowering, node).is_ok())
        {
            return self.of_node(lowering, node);
        }
        match self.activation.replace(name) {
            Some(other) if other != name => Err(Refusal::other()),
            _ => Ok(Term::Activation),
        }
    }
}

/// A function that is not odd, of bytes that are not centred, in two nodes.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_bytes(&[3, 37], Scale::UNSIGNED);
    let y = net.node("Elu", &[&x], &[]);
    let y = net.node("Exp", &[&y], &[]);
    net.ends_in_bytes(&y)
}
