//! Convolutions and pooling of floats.

use fewbits_kernels::bytes::Window;
use fewbits_kernels::float::Weights;
use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::image::{MORE_AXES, divisor, pool_window, window_of};
use crate::integer::lower::product::groups;
use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::net::{ConstantFloats, Factor};
use crate::integer::program::AnyStep;
use crate::integer::refusal::{Refusal, check, only};
use crate::integer::steps::float::Reduction;
use crate::integer::steps::float_images::{Convolution, FloatPool, FloatPooling};

/// What a Conv says of itself.
struct Form2d<'a> {
    weights: Factor<'a>,
    bias: Option<ConstantFloats<'a>>,
    /// That of the weights: filters, channels of a group, rows and columns of the window.
    shape: [usize; 4],
    groups: usize,
    window: Window,
    end: [usize; 2],
}

impl<'a> Lowering<'a> {
    /// Computes a MaxPool or AveragePool of floats.
    pub(super) fn float_pool(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        let (window, end) = pool_window(node)?;
        let pooling = match node.is("MaxPool") {
            true => FloatPooling::Max,
            false => FloatPooling::Average(divisor(node)),
        };
        Ok(Box::new(move |lowering| {
            let input = lowering.tensor(&node.input[0]);
            lowering.step(Form::Plain, &[input], node.op_type(), node, |output| FloatPool {
                input,
                output,
                window,
                end,
                pooling,
            })
        }))
    }

    /// Computes a GlobalAveragePool of floats.
    pub(super) fn float_global_average(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["GlobalAveragePool"], node)?;
        let axes = self.spatial_axes(node)?;
        Ok(Box::new(move |lowering| lowering.reduce(node, Reduction::Mean, axes)))
    }

    /// Computes a Conv of floats with constant weights.
    pub(super) fn float_convolution(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["Conv"], node)?;
        let form = self.float_convolution_form(node)?;
        Ok(Box::new(move |lowering| {
            let Form2d { weights, bias, shape, groups, window, end } = form;
            let [filters, group_channels, ..] = shape;
            let input = lowering.tensor(&node.input[0]);
            let output = lowering.value(Form::Plain);
            let convolution = Convolution {
                input,
                output,
                weights: Weights::new(lowering.cpu, weights.values(), shape, groups, window),
                bias: bias.map_or(Vec::new(), |bias| bias.values()),
                filters,
                channels: groups * group_channels,
                groups,
                window,
                end,
                function: None,
            };
            let step = AnyStep::Convolution(Box::new(convolution));
            lowering.push(step, &[input], output, "Conv", node);
            output
        }))
    }

    /// Finds how a Conv with constant weights moves over images.
    fn float_convolution_form(&self, node: &NodeProto) -> Result<Form2d<'a>, Refusal> {
        let weights = self.net.factor(node.input.get(1).map_or("", String::as_str));
        let weights = weights.ok_or(Refusal::of_node("its weights are not constant"))?;
        let (shape, rank) = match *weights.shape() {
            [filters, channels, h, w] => ([filters, channels, h, w], 2),
            [filters, channels, w] => ([filters, channels, 1, w], 1),
            _ => return Err(Refusal::of_node(MORE_AXES)),
        };
        check(shape.iter().all(|&d| d > 0), "its weights are empty")?;
        let bias = match node.input.get(2).map_or("", String::as_str) {
            "" => None,
            name => {
                let bias = self.net.constant_floats(name).filter(|b| b.shape == [shape[0]]);
                let why = "its bias is not constant, or not one number for each filter";
                Some(bias.ok_or(Refusal::of_node(why))?)
            }
        };
        let (window, end) = window_of(node, [shape[2], shape[3]], rank)?;
        let groups = groups(node, shape[0])?;
        Ok(Form2d { weights, bias, shape, groups, window, end })
    }
}
