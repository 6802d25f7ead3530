//! Convolutions and pooling of floats.

use fewbits_kernels::bytes::{Divisor, Window};
use fewbits_kernels::float::Weights;
use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::image::{window, window_of};
use crate::integer::lower::{Form, Lowering};
use crate::integer::program::AnyStep;
use crate::integer::state::ValueId;
use crate::integer::steps::float::Reduction;
use crate::integer::steps::float_images::{Convolution, FloatPool, FloatPooling};

/// What a Conv says of itself, its weights apart.
struct Form2d {
    /// That of the weights: filters, channels of a group, rows and columns of the window.
    shape: [usize; 4],
    groups: usize,
    window: Window,
    end: [usize; 2],
}

impl<'a> Lowering<'a> {
    /// Whether a Conv or a pooling of floats has a kernel.
    pub(super) fn is_float_images_node(&self, node: &NodeProto) -> bool {
        match node.op_type() {
            "Conv" => self.float_convolution_form(node).is_some(),
            "GlobalAveragePool" => self.spatial_axes(node).is_some(),
            _ => self.float_window(node).is_some(),
        }
    }

    /// A Conv or a pooling of floats.
    pub(super) fn float_images(&mut self, node: &'a NodeProto) -> Option<ValueId> {
        match node.op_type() {
            "Conv" => self.float_convolution(node),
            "GlobalAveragePool" => {
                let axes = self.spatial_axes(node)?;
                Some(self.reduce(node, Reduction::Mean, axes))
            }
            _ => {
                let (window, end) = self.float_window(node)?;
                let pooling = match (node.is("MaxPool"), node.int("count_include_pad", 0)) {
                    (true, _) => FloatPooling::Max,
                    (false, 0) => FloatPooling::Average(Divisor::PixelsInside),
                    (false, _) => FloatPooling::Average(Divisor::AllTaps),
                };
                let input = self.tensor(&node.input[0]);
                Some(self.step(Form::Plain, &[input], node.op_type(), node, |output| FloatPool {
                    input,
                    output,
                    window,
                    end,
                    pooling,
                }))
            }
        }
    }

    fn float_convolution(&mut self, node: &'a NodeProto) -> Option<ValueId> {
        let Form2d { shape, groups, window, end } = self.float_convolution_form(node)?;
        let [filters, group_channels, ..] = shape;
        let name = node.input.get(1)?;
        let (weights, _) = self.net.floats(name).or_else(|| self.net.dequantized(name))?;
        let bias = match node.input.get(2).map_or("", String::as_str) {
            "" => Vec::new(),
            name => self.net.floats(name)?.0,
        };
        let input = self.tensor(&node.input[0]);
        let output = self.value(Form::Plain);
        let convolution = Convolution {
            input,
            output,
            weights: Weights::new(self.cpu, weights, shape, groups, window),
            bias,
            filters,
            channels: groups * group_channels,
            groups,
            window,
            end,
            function: None,
        };
        let step = AnyStep::Convolution(Box::new(convolution));
        self.push(step, &[input], output, "Conv", node);
        Some(output)
    }

    /// How a Conv with constant weights moves over images; `None` if there is no kernel for it.
    fn float_convolution_form(&self, node: &NodeProto) -> Option<Form2d> {
        let weights = node.input.get(1)?;
        let dims: Vec<usize> = match self.net.weight(weights) {
            Some(weight) => weight.layout().shape().to_vec(),
            None if self.is_float(weights) => self.net.initializer(weights)?.shape().ok()?,
            None => return None,
        };
        let (shape, rank) = match dims[..] {
            [filters, channels, h, w] => ([filters, channels, h, w], 2),
            [filters, channels, w] => ([filters, channels, 1, w], 1),
            _ => return None,
        };
        let bias_fits = match node.input.get(2).map_or("", String::as_str) {
            "" => true,
            name => {
                self.net.initializer(name).is_some_and(|t| t.dims == [shape[0] as i64])
                    && self.is_float(name)
            }
        };
        let (window, end) = window_of(node, [shape[2], shape[3]], rank)?;
        let groups = usize::try_from(node.int("group", 1)).ok().filter(|&g| g > 0)?;
        let fits = bias_fits && shape.iter().all(|&d| d > 0) && shape[0] % groups == 0;
        fits.then_some(Form2d { shape, groups, window, end })
    }

    /// The window of a MaxPool or AveragePool of one output, and its padding at the end.
    fn float_window(&self, node: &NodeProto) -> Option<(Window, [usize; 2])> {
        let is_pool = node.is("MaxPool") || node.is("AveragePool");
        (is_pool && node.output.len() == 1 && node.int("storage_order", 0) == 0).then_some(())?;
        window(node)
    }

    /// How many spatial axes the images have that a node reads.
    fn spatial_axes(&self, node: &NodeProto) -> Option<usize> {
        let rank = self.ranks.get(node.input.first()?.as_str())?;
        rank.checked_sub(2).filter(|&axes| axes > 0)
    }
}
