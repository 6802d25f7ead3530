//! Graphs of matrix products and floats between them, made at random.

use fewbits_ir::example::{Coding, FLOAT, Net, Random, Scale, Scales, Weights, floats, integers};
use fewbits_onnx::proto::AttributeProto;

use crate::oracle::assert_exact;

/// Rows of floats.
#[derive(Clone, Debug)]
struct Rows {
    name: String,
    width: usize,
}

struct Maker {
    net: Net,
    random: Random,
    known: Vec<Rows>,
}

impl Maker {
    fn any(&mut self) -> Rows {
        // Rather one of the last, so that chains are made.
        let place = self.random.below(self.known.len());
        let place = place.max(self.random.below(self.known.len()));
        self.known[place].clone()
    }

    fn know(&mut self, name: String, width: usize) {
        if self.random.below(10) == 0 {
            self.net.output(&name, FLOAT);
        }
        self.known.push(Rows { name, width });
    }

    fn scalar(&mut self, value: f32) -> String {
        self.net.floats(&[], &[value])
    }

    fn unary(&mut self, op: &str, x: &str) -> String {
        self.net.node(op, &[x], &[])
    }

    /// Bytes and back.
    fn rounded(&mut self) {
        let x = self.any();
        let by = match self.random.below(2) {
            0 => Scale::u8(0.0173, 128),
            _ => Scale::i8(0.0191, -3),
        };
        let q = self.net.quantize(&x.name, by);
        if self.random.below(12) == 0 {
            self.net.output(&q, by.data_type);
        }
        let y = self.net.dequantize(&q, by);
        self.know(y, x.width);
    }

    fn product(&mut self) {
        let x = self.any();
        let columns = match self.random.below(2) {
            0 => x.width,
            _ => self.random.any_of(&[1, 5, 12, 16, 70]),
        };
        let scale = 0.01 / (x.width as f32).sqrt();
        let dims = [x.width, columns];
        let coding = self.random.any_of(&[Coding::Symmetric, Coding::Affine]);
        let scales = self.random.any_of(&[Scales::PerChannel, Scales::One]);
        let w = Weights::random(&mut self.random, &dims, 1, 100, scale, (coding, scales));
        let y = match self.random.below(2) {
            0 => {
                let by = Scale::u8(0.0173, 128);
                let x = self.net.rounded(&x.name, by);
                let w = self.net.weights(&w);
                self.net.node("MatMul", &[&x, &w], &[])
            }
            _ => {
                let codes = self.net.codes(&w);
                let dims: &[usize] = if w.scales.len() == 1 { &[] } else { &[columns] };
                let name = self.net.fresh();
                let zero = integers(&name, dims, w.data_type, &w.zero_points);
                let (zero, scale) = (self.net.constant(zero), self.net.floats(dims, &w.scales));
                let [q, by, from] = self.net.quantized_as_it_comes(&x.name);
                let sums = self.net.node("MatMulInteger", &[&q, &codes, &from, &zero], &[]);
                self.net.scaled(&sums, &by, &scale)
            }
        };
        self.know(y, columns);
    }

    fn function(&mut self) {
        let x = self.any();
        let name = x.name.as_str();
        let y = match self.random.below(8) {
            0 => {
                let half = self.scalar(0.5);
                let root = self.scalar(2f32.sqrt());
                let one = self.scalar(1.0);
                let scaled = self.net.node("Div", &[name, &root], &[]);
                let erf = self.unary("Erf", &scaled);
                let sum = self.net.node("Add", &[&erf, &one], &[]);
                let product = self.net.node("Mul", &[name, &sum], &[]);
                self.net.node("Mul", &[&product, &half], &[])
            }
            1 => {
                let sigmoid = self.unary("Sigmoid", name);
                if self.random.below(4) == 0 {
                    self.know(sigmoid.clone(), x.width);
                }
                self.net.node("Mul", &[&sigmoid, name], &[])
            }
            2 => {
                let (low, high) = (self.scalar(-0.4), self.scalar(0.6));
                self.net.node("Clip", &[name, &low, &high], &[])
            }
            // Which is no step of ours.
            3 => self.unary("Sin", name),
            _ => {
                let op = self.random.any_of(&["Relu", "Tanh", "Sigmoid", "LeakyRelu", "HardSwish"]);
                self.unary(op, name)
            }
        };
        self.know(y, x.width);
    }

    fn binary(&mut self) {
        let a = self.any();
        let op = self.random.any_of(&["Add", "Add", "Add", "Mul", "Sub", "Max"]);
        let b = match self.random.below(3) {
            0 => {
                let values: Vec<f32> = (0..a.width).map(|_| self.random.float(0.5)).collect();
                let dims: &[usize] = match self.random.below(2) {
                    0 => &[a.width],
                    _ => &[1, 1, a.width],
                };
                self.net.floats(dims, &values)
            }
            1 => self.scalar(0.3),
            _ => {
                let alike: Vec<Rows> = self
                    .known
                    .iter()
                    .filter(|b| b.width == a.width || b.width == 1)
                    .cloned()
                    .collect();
                let place = self.random.below(alike.len());
                alike[place].name.clone()
            }
        };
        let inputs = match self.random.below(2) {
            0 => [a.name.as_str(), &b],
            _ => [&b, a.name.as_str()],
        };
        let y = self.net.node(op, &inputs, &[]);
        self.know(y, a.width);
    }

    fn normal(&mut self) {
        let x = self.any();
        let y = match self.random.below(2) {
            0 => {
                let gain = self.net.floats(&[x.width], &vec![0.5; x.width]);
                let bias = self.net.floats(&[x.width], &vec![0.1; x.width]);
                let mut inputs = vec![x.name.as_str(), &gain];
                if self.random.below(2) == 0 {
                    inputs.push(&bias);
                }
                // So wide that errors are not blown up.
                let epsilon = AttributeProto::of_float("epsilon", 0.5);
                let axis = AttributeProto::of_int("axis", self.random.any_of(&[-1, 2]));
                self.net.node("LayerNormalization", &inputs, &[axis, epsilon])
            }
            _ => self.net.node("Softmax", &[&x.name], &[AttributeProto::of_int("axis", -1)]),
        };
        self.know(y, x.width);
    }
}

/// Makes a graph, and runs it both ways for several shapes.
pub fn check(seed: u64) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let width = random.any_of(&[1, 3, 16, 40]);
    let steps = 3 + random.below(9);
    let mut maker = Maker { net: Net::new(), random, known: Vec::new() };
    maker.net.input("x", FLOAT, &[None, None, Some(width as i64)]);
    maker.know("x".into(), width);
    for _ in 0..steps {
        match maker.random.below(12) {
            0..4 => maker.product(),
            4..7 => maker.binary(),
            7..10 => maker.function(),
            10 => maker.rounded(),
            _ => maker.normal(),
        }
    }
    let last = maker.known.last().unwrap().name.clone();
    maker.net.output(&last, FLOAT);
    let model = maker.net.model();
    for [batch, length] in [[2, 3], [1, 7], [3, 1]] {
        let x = vec![("x".to_string(), floats(&[batch, length, width], seed))];
        assert_exact(&model, &x);
    }
}
