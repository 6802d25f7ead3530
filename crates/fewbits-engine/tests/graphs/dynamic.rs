//! Convolutions of images that are quantized as they come, against their definition.

use fewbits_engine::{Backend, Runner, Tensor, Values};
use fewbits_ir::example::{Coding, FLOAT, Net, Random, Scales, Weights, floats, integers};
use fewbits_onnx::proto::AttributeProto;

use crate::net::{Named, engine};

/// A ConvInteger, and what it reads.
#[derive(Clone, Debug)]
pub struct Case {
    pub channels: usize,
    /// Rows and columns of the images.
    pub size: [usize; 2],
    pub filters: usize,
    pub group: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Rows above and columns to the left, rows below and columns to the right.
    pub pads: [usize; 4],
    pub weights: Weights,
    pub bias: Option<Vec<f32>>,
    pub relu: bool,
    /// Whether images are rows of pixels.
    pub is_line: bool,
}

impl Case {
    pub fn random(random: &mut Random) -> Case {
        let is_line = random.below(3) == 0;
        let channels = random.any_of(&[1usize, 2, 3, 4, 6, 8, 17, 33]);
        let groups: Vec<usize> =
            [1, 1, 2, 3, channels].into_iter().filter(|&g| channels.is_multiple_of(g)).collect();
        let group = random.any_of(&groups);
        let filters = group * random.any_of(&[1, 2, 5, 18]);
        let line = |x: usize, of_line: usize| if is_line { of_line } else { x };
        let kernel = [line(1 + random.below(3), 1), 1 + random.below(4)];
        let dims = [filters, channels / group, kernel[0], kernel[1]];
        let coding = random.any_of(&[Coding::Symmetric, Coding::Affine]);
        let scales = random.any_of(&[Scales::PerChannel, Scales::One]);
        Case {
            channels,
            size: [line(7 + random.below(4), 1), 9 + random.below(20)],
            filters,
            group,
            kernel,
            stride: [line(1 + random.below(2), 1), 1 + random.below(2)],
            dilation: [line(1 + random.below(2), 1), 1 + random.below(2)],
            pads: std::array::from_fn(|i| if is_line && i % 2 == 0 { 0 } else { random.below(4) }),
            weights: Weights::random(random, &dims, 0, 127, 0.003, (coding, scales)),
            bias: (random.below(2) == 0).then(|| (0..filters).map(|_| random.float(1.0)).collect()),
            relu: random.below(2) == 0,
            is_line,
        }
    }

    fn spatial<'a, T>(&self, both: &'a [T]) -> &'a [T] {
        if self.is_line { &both[1..] } else { both }
    }

    fn attributes(&self) -> Vec<AttributeProto> {
        let ints = |name: &str, values: &[usize]| {
            let values: Vec<i64> = values.iter().map(|&v| v as i64).collect();
            AttributeProto::of_ints(name, &values)
        };
        let [top, left, bottom, right] = self.pads;
        let pads = if self.is_line { vec![left, right] } else { vec![top, left, bottom, right] };
        vec![
            ints("kernel_shape", self.spatial(&self.kernel)),
            ints("strides", self.spatial(&self.stride)),
            ints("dilations", self.spatial(&self.dilation)),
            ints("pads", &pads),
            AttributeProto::of_int("group", self.group as i64),
        ]
    }

    /// The dimensions of `[before, middle, 1, 1]`, as many as the weights have.
    fn along(&self, middle: usize) -> Vec<usize> {
        [&[1, middle], self.spatial(&[1, 1])].concat()
    }

    pub fn images(&self, rows: usize, seed: u64) -> Named {
        let shape = [&[rows, self.channels], self.spatial(&self.size)].concat();
        vec![("x".into(), floats(&shape, seed))]
    }

    /// The chain that a quantizer writes, behind a value and its bytes, scale and zero point.
    pub fn write(&self, net: &mut Net, [q, by, from]: &[String; 3]) -> String {
        let w = &self.weights;
        let dims = [&w.dims[..2], self.spatial(&w.dims[2..])].concat();
        let name = net.fresh();
        let codes = net.constant(integers(&name, &dims, w.data_type, &w.values));
        let name = net.fresh();
        let zeros: &[usize] = if w.zero_points.len() == 1 { &[] } else { &[self.filters] };
        let zero = net.constant(integers(&name, zeros, w.data_type, &w.zero_points));
        let scales = if w.scales.len() == 1 { Vec::new() } else { self.along(self.filters) };
        let scale = net.floats(&scales, &w.scales);
        let sums = net.node("ConvInteger", &[q, &codes, from, &zero], &self.attributes());
        let mut y = net.scaled(&sums, by, &scale);
        if let Some(bias) = &self.bias {
            let bias = net.floats(&[self.filters], bias);
            let dims: Vec<i64> =
                self.along(0).iter().map(|&d| d as i64 - (d == 0) as i64).collect();
            let dims = net.ints(&dims);
            let bias = net.node("Reshape", &[&bias, &dims], &[]);
            y = net.node("Add", &[&y, &bias], &[]);
        }
        if self.relu { net.node("Relu", &[&y], &[]) } else { y }
    }

    /// What the chain computes of `x`: exact sums, and floats in the order of its nodes.
    pub fn wanted(&self, x: &Tensor) -> Tensor {
        let Values::F32(floats) = x.values() else { panic!("floats are wanted") };
        let (bytes, scale, zero_point) = quantized(floats);
        let rows = x.shape()[0];
        let out: [usize; 2] = std::array::from_fn(|axis| {
            let extent = (self.kernel[axis] - 1) * self.dilation[axis] + 1;
            (self.size[axis] + self.pads[axis] + self.pads[axis + 2] - extent) / self.stride[axis]
                + 1
        });
        let mut values = Vec::new();
        for image in 0..rows {
            for filter in 0..self.filters {
                for y in 0..out[0] {
                    for x in 0..out[1] {
                        let sum = self.sum(&bytes, zero_point, image, filter, [y, x]);
                        let of = |all: &[f32]| all[if all.len() == 1 { 0 } else { filter }];
                        let mut value = sum as f32 * (scale * of(&self.weights.scales));
                        if let Some(bias) = &self.bias {
                            value += bias[filter];
                        }
                        values.push(if self.relu { value.max(0.0) } else { value });
                    }
                }
            }
        }
        Tensor::new([&[rows, self.filters], self.spatial(&out)].concat(), values).unwrap()
    }

    fn sum(
        &self,
        bytes: &[i64],
        zero_point: i64,
        image: usize,
        filter: usize,
        at: [usize; 2],
    ) -> i64 {
        let group_channels = self.channels / self.group;
        let first = filter / (self.filters / self.group) * group_channels;
        let w = &self.weights;
        let weight_zero = w.zero_points[if w.zero_points.len() == 1 { 0 } else { filter }];
        let mut sum = 0;
        for channel in 0..group_channels {
            for ky in 0..self.kernel[0] {
                for kx in 0..self.kernel[1] {
                    let y =
                        (at[0] * self.stride[0] + ky * self.dilation[0]).wrapping_sub(self.pads[0]);
                    let x =
                        (at[1] * self.stride[1] + kx * self.dilation[1]).wrapping_sub(self.pads[1]);
                    if y >= self.size[0] || x >= self.size[1] {
                        continue;
                    }
                    let plane = image * self.channels + first + channel;
                    let byte = bytes[(plane * self.size[0] + y) * self.size[1] + x];
                    let place = (filter * group_channels + channel) * self.kernel[0] + ky;
                    let weight = w.values[place * self.kernel[1] + kx];
                    sum += (byte - zero_point) * (weight - weight_zero);
                }
            }
        }
        sum
    }
}

/// DynamicQuantizeLinear, as ONNX defines it.
fn quantized(floats: &[f32]) -> (Vec<i64>, f32, i64) {
    let low = floats.iter().copied().fold(0f32, f32::min);
    let high = floats.iter().copied().fold(0f32, f32::max);
    let scale = if low == high { 1.0 } else { (high - low) / 255.0 };
    let zero_point = (-low / scale).round_ties_even().clamp(0.0, 255.0);
    let byte = |x: f32| ((x / scale).round_ties_even() + zero_point).clamp(0.0, 255.0) as i64;
    (floats.iter().map(|&x| byte(x)).collect(), scale, zero_point as i64)
}

/// Makes a convolution, and runs it with one thread and with two, for several numbers of images.
pub fn check(seed: u64) {
    let case = Case::random(&mut Random(seed));
    println!("seed {seed}: {case:?}");
    let mut net = Net::new();
    net.input("x", FLOAT, &vec![None; if case.is_line { 3 } else { 4 }]);
    let x = net.quantized_as_it_comes("x");
    let y = case.write(&mut net, &x);
    net.output(&y, FLOAT);
    let model = net.model();
    for threads in [1, 2] {
        let runner = engine(&model, threads);
        let steps = runner.fusions();
        assert!(steps.iter().all(|step| step.backend != Backend::Rten), "{steps:?}");
        assert_eq!(steps.len(), 2, "{steps:?}");
        for rows in [2, 1, 5] {
            let x = case.images(rows, seed + rows as u64);
            let outputs = runner.run(&x).unwrap();
            assert_eq!(outputs[0].1, case.wanted(&x[0].1), "{rows} images, {threads} threads");
        }
    }
}
