//! Products of bytes that end in int32, in every form that ONNX has, against their definition.

use fewbits_engine::{Backend, Runner, Tensor, Values};
use fewbits_ir::example::{INT8, INT32, Net, Random, UINT8, integers};
use fewbits_onnx::Model;
use fewbits_onnx::proto::{AttributeProto, NodeProto};

use crate::net::{engine, float_runner};

/// A tensor of bytes, and whether it is a constant of the graph.
#[derive(Clone, Debug)]
struct Operand {
    name: String,
    dims: Vec<usize>,
    signed: bool,
    values: Vec<i64>,
    fed: bool,
}

impl Operand {
    fn random(random: &mut Random, name: &str, dims: &[usize], signed: bool) -> Operand {
        let low = if signed { -128 } else { 0 };
        let values = (0..dims.iter().product::<usize>())
            .map(|_| match random.below(3) {
                0 => low + 255,
                1 => low + 255 * random.below(2) as i64,
                _ => low + random.below(256) as i64,
            })
            .collect();
        Operand {
            name: name.to_string(),
            dims: dims.to_vec(),
            signed,
            values,
            fed: random.below(2) == 0,
        }
    }

    fn data_type(&self) -> i32 {
        if self.signed { INT8 } else { UINT8 }
    }

    fn tensor(&self) -> Tensor {
        let values = match self.signed {
            true => Values::I8(self.values.iter().map(|&v| v as i8).collect()),
            false => Values::U8(self.values.iter().map(|&v| v as u8).collect()),
        };
        Tensor::new(self.dims.clone(), values).unwrap()
    }

    /// Adds it to a graph, and to what is fed.
    fn add(&self, net: &mut Net, fed: &mut Vec<(String, Tensor)>) {
        if self.fed {
            let dims: Vec<Option<i64>> = self.dims.iter().map(|&d| Some(d as i64)).collect();
            net.input(&self.name, self.data_type(), &dims);
            fed.push((self.name.clone(), self.tensor()));
        } else {
            net.constant(integers(&self.name, &self.dims, self.data_type(), &self.values));
        }
    }

    /// The element at a place of a larger shape that this one broadcasts to.
    fn at(&self, place: &[usize]) -> i64 {
        let place = &place[place.len() - self.dims.len()..];
        let index = self.dims.iter().zip(place).fold(0, |i, (&d, &p)| i * d + p.min(d - 1));
        self.values[index]
    }
}

/// The names of the inputs of a product, empty where there is none.
fn names<'a>(operands: &'a [&Option<Operand>]) -> Vec<&'a str> {
    operands.iter().map(|o| o.as_ref().map_or("", |o| o.name.as_str())).collect()
}

/// A model, what it is fed, and the sums that it must give.
struct Case {
    model: Model,
    fed: Vec<(String, Tensor)>,
    wanted: Tensor,
}

/// Runs a node, and asserts that our kernels give `wanted`.
fn assert_exact(
    node: NodeProto,
    operands: &[&Option<Operand>],
    shape: &[usize],
    wanted: &[i64],
) -> Case {
    let mut net = Net::new();
    let mut fed = Vec::new();
    operands.iter().copied().flatten().for_each(|operand| operand.add(&mut net, &mut fed));
    net.push(node);
    net.output("y", INT32);
    let model = net.model();
    let wanted: Vec<i32> = wanted.iter().map(|&sum| sum as i32).collect();
    let wanted = Tensor::new(shape.to_vec(), wanted).unwrap();
    for threads in [1, 2] {
        let runner = engine(&model, threads);
        let steps = runner.fusions();
        // A graph of constants alone is computed before the first run.
        assert!(fed.is_empty() || steps.len() == 1, "{steps:?}");
        assert!(steps.iter().all(|step| step.backend == Backend::Integers), "{steps:?}");
        assert_eq!(runner.run(&fed).unwrap()[0].1, wanted, "{threads} threads");
    }
    Case { model, fed, wanted }
}

/// Asserts that floats add up to the same.
fn assert_exact_as_floats(case: &Case) {
    assert_eq!(float_runner(&case.model).run(&case.fed).unwrap()[0].1, case.wanted);
}

/// Makes a MatMulInteger of matrices or batches of them.
pub fn check_matrices(seed: u64) {
    let mut random = Random(seed);
    let signed = [random.below(2) == 0, random.below(2) == 0];
    let (rows, columns) = (1 + random.below(20), random.any_of(&[1, 2, 15, 33, 70]));
    let depth = random.any_of(&[1, 3, 64, 129, 300, 1100]);
    let batches: [(&[usize], &[usize]); 5] =
        [(&[], &[]), (&[2], &[]), (&[3], &[3]), (&[2, 1], &[3]), (&[], &[2])];
    let (left_batch, right_batch) = random.any_of(&batches);
    let a_dims = [left_batch, &[rows, depth]].concat();
    let b_dims = [right_batch, &[depth, columns]].concat();
    let a = Operand::random(&mut random, "a", &a_dims, signed[0]);
    let b = Operand::random(&mut random, "b", &b_dims, signed[1]);
    let batch = if left_batch.len() + right_batch.len() > 2 {
        vec![2, 3]
    } else {
        left_batch.max(right_batch).to_vec()
    };
    // Of one or of each row or column, as ONNX writes it for matrices, or for a batch.
    let kinds: [Vec<usize>; 4] = [vec![], vec![1], vec![rows], [left_batch, &[rows, 1]].concat()];
    let dims = kinds[random.below(4)].clone();
    let mut a_zero =
        (random.below(4) > 0).then(|| Operand::random(&mut random, "za", &dims, signed[0]));
    let kinds: [Vec<usize>; 4] =
        [vec![], vec![1], vec![columns], [right_batch, &[1, columns]].concat()];
    let dims = kinds[random.below(4)].clone();
    let b_zero =
        (random.below(4) > 0).then(|| Operand::random(&mut random, "zb", &dims, signed[1]));
    println!("seed {seed}: {a_dims:?} {b_dims:?} {signed:?} {a_zero:?} {b_zero:?}");

    let shape = [&batch[..], &[rows, columns]].concat();
    let mut wanted = Vec::new();
    for index in 0..shape.iter().product::<usize>() {
        let mut place = vec![0; shape.len()];
        let mut left = index;
        for (place, &size) in place.iter_mut().zip(&shape).rev() {
            *place = left % size;
            left /= size;
        }
        let (row, column) = (place[shape.len() - 2], place[shape.len() - 1]);
        let batch = &place[..shape.len() - 2];
        let by_row = |zero: &Operand| match zero.dims.len() {
            1 => zero.values[row.min(zero.values.len() - 1)],
            _ => zero.at(&[batch, &[row, 0]].concat()),
        };
        let a_zero = a_zero.as_ref().map_or(0, by_row);
        let b_zero = b_zero.as_ref().map_or(0, |zero| zero.at(&[batch, &[0, column]].concat()));
        let sum = |k: usize| {
            (a.at(&[batch, &[row, k]].concat()) - a_zero)
                * (b.at(&[batch, &[k, column]].concat()) - b_zero)
        };
        wanted.push((0..depth).map(sum).sum());
    }
    if let Some(zero) = &mut a_zero {
        // A fed one of one dimension is known to be of rows only by its declared shape.
        zero.fed &= zero.values.len() > 1 || zero.dims.is_empty();
    }
    let operands = [&Some(a), &Some(b), &a_zero, &b_zero];
    let node = NodeProto::new("MatMulInteger", &names(&operands), &["y"]);
    assert_exact_as_floats(&assert_exact(node, &operands, &shape, &wanted));
}

/// Makes a ConvInteger of images of one, two or three axes.
pub fn check_convolutions(seed: u64) {
    let mut random = Random(seed);
    let rank = 1 + random.below(3);
    let signed = [random.below(2) == 0, random.below(2) == 0];
    let groups = random.any_of(&[1, 1, 2, 3]);
    let (channels, filters) = (groups * (1 + random.below(9)), groups * (1 + random.below(5)));
    let images = 1 + random.below(2);
    let sizes: Vec<usize> = (0..rank).map(|_| 4 + random.below(4)).collect();
    let kernel: Vec<usize> = (0..rank).map(|_| 1 + random.below(3)).collect();
    let strides: Vec<usize> = (0..rank).map(|_| 1 + random.below(2)).collect();
    let pads: Vec<usize> = (0..2 * rank).map(|_| random.below(3)).collect();
    let x_dims = [&[images, channels], &sizes[..]].concat();
    let w_dims = [&[filters, channels / groups], &kernel[..]].concat();
    let mut x = Operand::random(&mut random, "x", &x_dims, signed[0]);
    // What depends on no input is left to the float executor.
    x.fed = true;
    let w = Operand::random(&mut random, "w", &w_dims, signed[1]);
    let x_zero = (random.below(4) > 0).then(|| Operand::random(&mut random, "zx", &[], signed[0]));
    let dims = if random.below(2) == 0 { vec![] } else { vec![filters] };
    let w_zero =
        (random.below(4) > 0).then(|| Operand::random(&mut random, "zw", &dims, signed[1]));
    println!("seed {seed}: {x_dims:?} {w_dims:?} {strides:?} {pads:?} {x_zero:?} {w_zero:?}");

    let out: Vec<usize> = (0..rank)
        .map(|i| (sizes[i] + pads[i] + pads[rank + i] - kernel[i]) / strides[i] + 1)
        .collect();
    let shape = [&[images, filters], &out[..]].concat();
    let mut wanted = Vec::new();
    let unravel = |mut index: usize, dims: &[usize]| {
        let mut place = vec![0; dims.len()];
        for (place, &size) in place.iter_mut().zip(dims).rev() {
            *place = index % size;
            index /= size;
        }
        place
    };
    for index in 0..shape.iter().product::<usize>() {
        let place = unravel(index, &shape);
        let filter = place[1];
        let first = filter / (filters / groups) * (channels / groups);
        let x_zero = x_zero.as_ref().map_or(0, |zero| zero.values[0]);
        let w_zero = w_zero.as_ref().map_or(0, |z| z.values[filter.min(z.values.len() - 1)]);
        let mut sum = 0;
        for tap in 0..w_dims[1..].iter().product::<usize>() {
            let tap = unravel(tap, &w_dims[1..]);
            let at: Option<Vec<usize>> = (0..rank)
                .map(|i| {
                    let at = (place[2 + i] * strides[i] + tap[1 + i]).checked_sub(pads[i])?;
                    (at < sizes[i]).then_some(at)
                })
                .collect();
            if let Some(at) = at {
                let pixel = x.at(&[&[place[0], first + tap[0]], &at[..]].concat());
                sum += (pixel - x_zero) * (w.at(&[&[filter], &tap[..]].concat()) - w_zero);
            }
        }
        wanted.push(sum);
    }
    let ints = |name: &str, values: &[usize]| {
        let values: Vec<i64> = values.iter().map(|&v| v as i64).collect();
        AttributeProto::of_ints(name, &values)
    };
    let operands = [&Some(x), &Some(w), &x_zero, &w_zero];
    let node = NodeProto::new("ConvInteger", &names(&operands), &["y"])
        .with(ints("strides", &strides))
        .with(ints("pads", &pads))
        .with(ints("kernel_shape", &kernel))
        .with(AttributeProto::of_int("group", groups as i64));
    let case = assert_exact(node, &operands, &shape, &wanted);
    if rank < 3 {
        // The float executor has no convolutions of three axes.
        assert_exact_as_floats(&case);
    }
}
