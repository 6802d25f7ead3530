//! Quantized image graphs made at random.

use fewbits_ir::example::{Coding, FLOAT, Net, Random, Scale, Scales, Weights, floats};
use fewbits_onnx::proto::AttributeProto;

use crate::oracle::assert_exact;

/// A value of quantized images.
#[derive(Clone, Debug)]
struct Images {
    name: String,
    channels: usize,
    size: [usize; 2],
    /// How far from zero its values are.
    most: f32,
}

struct Maker {
    net: Net,
    random: Random,
    known: Vec<Images>,
    /// The greatest scale.
    step: f32,
}

impl Maker {
    fn ints(&mut self, name: &str, values: [usize; 2]) -> AttributeProto {
        AttributeProto::of_ints(name, &values.map(|v| v as i64))
    }

    fn any(&mut self) -> Images {
        let place = self.random.below(self.known.len());
        self.known[place].clone()
    }

    /// Rounds a value to bytes, after a Relu or a Clip at times; gives it out at times.
    fn round(&mut self, name: &str, channels: usize, size: [usize; 2], most: f32) {
        let mut name = name.to_string();
        let mut low = -most;
        match self.random.below(5) {
            0 => (name, low) = (self.net.node("Relu", &[&name], &[]), 0.0),
            1 => {
                let zero = self.net.floats(&[], &[0.0]);
                let top = self.net.floats(&[], &[most * 0.4]);
                (name, low) = (self.net.node("Clip", &[&name, &zero, &top], &[]), 0.0);
            }
            _ => {}
        }
        if self.random.below(12) == 0 {
            self.net.output(&name, FLOAT);
        }
        // Odd, or sums and averages lie half-way between two bytes, where rten rounds otherwise.
        let scale = (most - low) / 255.0 * (1.01 + 0.05 * self.random.float(0.1).abs());
        let zero_point = (-low / scale).round() as i64;
        let by = match self.random.below(2) {
            0 => Scale::u8(scale, zero_point),
            _ => Scale::i8(scale, zero_point - 128),
        };
        self.step = self.step.max(scale);
        let q = self.net.quantize(&name, by);
        if self.random.below(12) == 0 {
            self.net.output(&q, by.data_type);
        }
        let mut name = self.net.dequantize(&q, by);
        if self.random.below(8) == 0 {
            name = self.net.rounded(&name, by);
        }
        if self.random.below(8) == 0 {
            self.net.output(&name, FLOAT);
        }
        self.known.push(Images { name, channels, size, most });
    }

    fn conv(&mut self) {
        let x = self.any();
        let groups: Vec<usize> =
            [1, 2, 3, x.channels].into_iter().filter(|&g| x.channels.is_multiple_of(g)).collect();
        let group = self.random.any_of(&groups);
        let filters = group * (1 + self.random.below(if group == x.channels { 2 } else { 9 }));
        let kernel: [usize; 2] = std::array::from_fn(|_| 1 + self.random.below(3));
        let dilation = std::array::from_fn(|_| 1 + self.random.below(2));
        let stride = std::array::from_fn(|_| 1 + self.random.below(2));
        let pads: [usize; 4] = std::array::from_fn(|_| self.random.below(3));
        let Some(size) = window(x.size, kernel, dilation, stride, pads) else { return };
        let taps = x.channels / group * kernel[0] * kernel[1];
        let coding = [Coding::Affine, Coding::Symmetric, Coding::Symmetric];
        let coding = self.random.any_of(&coding);
        let scales = self.random.any_of(&[Scales::One, Scales::PerChannel]);
        let most = self.random.any_of(&[1, 7, 100]);
        let scale = 1.0 / (most as f32 * (taps as f32).sqrt());
        let dims = [filters, x.channels / group, kernel[0], kernel[1]];
        let w = Weights::random(&mut self.random, &dims, 0, most, scale, (coding, scales));
        let w = self.net.weights(&w);
        let pads = AttributeProto::of_ints("pads", &pads.map(|p| p as i64));
        let attributes = [
            self.ints("kernel_shape", kernel),
            self.ints("dilations", dilation),
            self.ints("strides", stride),
            pads,
            AttributeProto::of_int("group", group as i64),
        ];
        let mut inputs = vec![x.name.as_str(), &w];
        let bias: Vec<f32> = (0..filters).map(|_| self.random.float(x.most / 4.0)).collect();
        let bias = self.net.floats(&[filters], &bias);
        if self.random.below(2) == 0 {
            inputs.push(&bias);
        }
        let y = self.net.node("Conv", &inputs, &attributes);
        self.round(&y, filters, size, x.most);
    }

    fn pool(&mut self) {
        let x = self.any();
        let kernel = std::array::from_fn(|_| 1 + self.random.below(3));
        let stride = std::array::from_fn(|_| 1 + self.random.below(2));
        // Less than the kernel, or a window may hold no pixel.
        let pads: [usize; 4] = std::array::from_fn(|i| self.random.below(kernel[i % 2]));
        let Some(size) = window(x.size, kernel, [1, 1], stride, pads) else { return };
        let mut attributes = vec![
            self.ints("kernel_shape", kernel),
            self.ints("strides", stride),
            AttributeProto::of_ints("pads", &pads.map(|p| p as i64)),
        ];
        let op = self.random.any_of(&["MaxPool", "AveragePool"]);
        if op == "AveragePool" {
            let counted = self.random.below(2) as i64;
            attributes.push(AttributeProto::of_int("count_include_pad", counted));
        }
        let y = self.net.node(op, &[&x.name], &attributes);
        self.round(&y, x.channels, size, x.most);
    }

    /// A sum or product with a value of the same shape, or with the means of one.
    fn binary(&mut self) {
        let a = self.any();
        let alike: Vec<Images> =
            self.known.iter().filter(|b| b.channels == a.channels).cloned().collect();
        let place = self.random.below(alike.len());
        let b = &alike[place];
        let fits = a.size.iter().zip(b.size).all(|(&a, b)| a == b || a == 1 || b == 1);
        let size = std::array::from_fn(|i| a.size[i].max(b.size[i]));
        if !fits {
            return;
        }
        let (op, most) = match self.random.below(3) {
            0 => ("Mul", a.most * b.most),
            _ => ("Add", a.most + b.most),
        };
        let y = self.net.node(op, &[&a.name, &b.name], &[]);
        self.round(&y, a.channels, size, most);
    }

    fn mean(&mut self) {
        let x = self.any();
        let y = self.net.node("GlobalAveragePool", &[&x.name], &[]);
        self.round(&y, x.channels, [1, 1], x.most);
    }

    fn concat(&mut self) {
        let a = self.any();
        let alike: Vec<Images> = self.known.iter().filter(|b| b.size == a.size).cloned().collect();
        let place = self.random.below(alike.len());
        let b = &alike[place];
        let axis = AttributeProto::of_int("axis", self.random.any_of(&[1, -3]));
        let y = self.net.node("Concat", &[&a.name, &b.name], &[axis]);
        self.round(&y, a.channels + b.channels, a.size, a.most.max(b.most));
    }

    /// Rows and columns exchanged, with a quantization behind or without.
    fn moved(&mut self) {
        let x = self.any();
        let perm = AttributeProto::of_ints("perm", &[0, 1, 3, 2]);
        let mut y = self.net.node("Transpose", &[&x.name], &[perm]);
        let size = [x.size[1], x.size[0]];
        if self.random.below(2) == 0 {
            let dims = [0, x.channels as i64, size[0] as i64, -1];
            let dims = self.net.ints(&dims);
            y = self.net.node("Reshape", &[&y, &dims], &[]);
        }
        match self.random.below(2) {
            0 => self.round(&y, x.channels, size, x.most),
            _ => self.known.push(Images { name: y, size, ..x }),
        }
    }

    /// A function, computed in floats.
    fn function(&mut self) {
        let x = self.any();
        let op = self.random.any_of(&["Sigmoid", "Tanh", "HardSwish", "LeakyRelu"]);
        let y = self.net.node(op, &[&x.name], &[]);
        self.round(&y, x.channels, x.size, x.most.max(1.0));
    }
}

/// The size of what a window makes of images.
fn window(
    size: [usize; 2],
    kernel: [usize; 2],
    dilation: [usize; 2],
    stride: [usize; 2],
    pads: [usize; 4],
) -> Option<[usize; 2]> {
    let mut out = [0; 2];
    for axis in 0..2 {
        let extent = (kernel[axis] - 1) * dilation[axis] + 1;
        let left = (size[axis] + pads[axis] + pads[axis + 2]).checked_sub(extent)?;
        out[axis] = left / stride[axis] + 1;
    }
    Some(out)
}

/// Makes a graph, and runs it both ways for several numbers of images.
pub fn check(seed: u64) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let channels = random.any_of(&[1, 2, 3, 4, 6, 8, 17, 33]);
    let size = [1 + random.below(8), 1 + random.below(8)];
    let steps = 2 + random.below(7);
    let mut maker = Maker { net: Net::new(), random, known: Vec::new(), step: 0.0 };
    let dims = [None, Some(channels as i64), Some(size[0] as i64), Some(size[1] as i64)];
    maker.net.input("x", FLOAT, &dims);
    maker.round("x", channels, size, 1.0);
    for _ in 0..steps {
        match maker.random.below(12) {
            0..4 => maker.conv(),
            4..7 => maker.binary(),
            7 => maker.pool(),
            8 => maker.mean(),
            9 => maker.concat(),
            10 => maker.moved(),
            _ => maker.function(),
        }
    }
    let last = maker.known.last().unwrap().name.clone();
    maker.net.output(&last, FLOAT);
    let model = maker.net.model();
    for rows in [2, 1, 3] {
        let x = vec![("x".to_string(), floats(&[rows, channels, size[0], size[1]], seed))];
        assert_exact(&model, &x);
    }
}
