//! Steps as they run: operators whose weights are packed for a CPU, one kind a file.

mod attention;
mod bytes_binary;
mod constant_product;
mod depthwise;
mod dequantized_binary;
#[cfg(feature = "rten")]
mod fallback;
mod float;
mod float_images;
mod gather;
mod integer_product;
mod interpreted;
mod label;
mod movement;
mod pool;
mod product;
mod quantize;

use std::cell::RefCell;

use fewbits_ir::op::Epilogue;
use fewbits_ir::{Op, Value, ValueId};
use fewbits_kernels::Cpu;

use crate::state::State;
use crate::{Result, RunOptions};

/// A step as it runs.
pub(crate) trait Kernel: Send + Sync {
    /// Computes the outputs from the inputs.
    fn run(&self, state: &mut State) -> Result<()>;
}

/// Where a step reads and writes.
#[derive(Clone)]
pub(crate) struct Io {
    pub inputs: Vec<ValueId>,
    /// What it gives first; then what it may compute on the way.
    pub outputs: Vec<ValueId>,
}

impl Io {
    pub(crate) fn input(&self) -> ValueId {
        self.inputs[0]
    }

    pub(crate) fn output(&self) -> ValueId {
        self.outputs[0]
    }
}

/// For what steps are loaded.
pub(crate) struct Loader<'a> {
    pub cpu: Cpu,
    /// The values of the program.
    pub values: &'a [Value],
    #[cfg_attr(not(feature = "rten"), expect(dead_code))]
    pub options: &'a RunOptions,
}

impl Loader<'_> {
    /// Packs an operator. What has no kernel here is computed by the interpreter.
    ///
    /// # Errors
    /// If another executor is to run it which lacks an operator, by name.
    pub(crate) fn load(&self, op: Op, io: Io) -> Result<Box<dyn Kernel>> {
        let layout = |id: ValueId| self.values[id.index()].layout;
        // Of floats four bytes, of activations in bytes one.
        let element_bytes = |id: ValueId| match self.values[id.index()].quantization {
            Some(_) => 1,
            None => 4,
        };
        let Some(&output) = io.outputs.first() else {
            return Ok(Box::new(interpreted::Interpreted { op, io }));
        };
        let input = io.inputs.first().copied().unwrap_or(output);
        Ok(match op {
            Op::Quantize(scale) => {
                Box::new(quantize::Quantize { input, output, scale, layout: layout(output) })
            }
            Op::DynamicQuantize => {
                Box::new(quantize::DynamicQuantize { input, output, layout: layout(output) })
            }
            Op::Dequantize(scale) => {
                Box::new(quantize::Dequantize { input, output, scale, layout: layout(input) })
            }
            Op::GiveOut(data_type) => {
                Box::new(quantize::GiveOut { input, output, data_type, layout: layout(input) })
            }
            Op::ChangeLayout(zero_point) => {
                Box::new(quantize::ChangeLayout { input, output, to: layout(output), zero_point })
            }
            Op::Lut(lut) => {
                Box::new(quantize::LookUp { input, output, lut, layout: layout(input) })
            }
            Op::MatMul(product) => Box::new(product::Product::matmul(self.cpu, *product, io)),
            Op::Conv(conv) => match conv.product.epilogue {
                Epilogue::Bytes { to, .. } if conv.is_depthwise() => {
                    Box::new(depthwise::Depthwise::new(*conv, to, &io))
                }
                _ => Box::new(product::Product::conv(self.cpu, *conv, io)),
            },
            Op::BytesBinary(op) => Box::new(bytes_binary::Binary {
                inputs: [input, io.inputs[1]],
                output,
                op,
                layout: layout(output),
            }),
            Op::DequantizedBinary(op) => Box::new(dequantized_binary::DequantizedBinary {
                inputs: [input, io.inputs[1]],
                output,
                op,
                layout: layout(input),
            }),
            Op::BytesPool(pool) => Box::new(pool::Pool { input, output, pool }),
            Op::GlobalAverage(op) => Box::new(pool::GlobalAverage { input, output, op }),
            Op::Concat(op) => Box::new(movement::Concat {
                inputs: io.inputs,
                output,
                op,
                layout: layout(output),
                element_bytes: element_bytes(output),
            }),
            Op::Transpose(op) => Box::new(movement::Transpose {
                input,
                output,
                permutation: op.permutation,
                element_bytes: element_bytes(output),
            }),
            Op::Reshape(to) => Box::new(movement::Reshape { input, output, to }),
            Op::Function(function) => Box::new(float::Elementwise { input, output, function }),
            Op::Binary(operation) => {
                Box::new(float::FloatBinary { inputs: [input, io.inputs[1]], output, operation })
            }
            Op::Norm(norm) => Box::new(float::Normalize { input, output, norm }),
            Op::Softmax => Box::new(float::Softmax { input, output }),
            Op::Reduce(op) => Box::new(float::Reduction { input, output, op }),
            Op::FloatConv(conv) => {
                Box::new(float_images::Convolution::new(self.cpu, *conv, input, output)?)
            }
            Op::FloatPool(pool) => Box::new(float_images::FloatPool { input, output, pool }),
            Op::MatMulConstant(product) => {
                Box::new(constant_product::ConstantProduct::new(self.cpu, *product, input, output)?)
            }
            Op::FloatMatMul(product) => Box::new(attention::FloatProduct::new(product, &io)),
            Op::Attention(op) => Box::new(attention::Attention::new(op, &io)),
            Op::Gather(op) => Box::new(gather::Rows { input, output, table: op.table }),
            Op::ArgMax { keep_axis } => Box::new(label::ArgMax { input, output, keep_axis }),
            Op::Threshold(threshold) => Box::new(label::Threshold { input, output, threshold }),
            Op::Labels(labels) => Box::new(label::Labels { input, output, labels }),
            Op::MatMulInteger(op) => {
                Box::new(integer_product::matrices::MatrixProduct::new(self.cpu, op, io)?)
            }
            Op::ConvInteger(op) => {
                Box::new(integer_product::convolution::IntegerConvolution { op, io })
            }
            #[cfg(feature = "rten")]
            Op::Fallback(subgraph) => {
                Box::new(fallback::Fallback::load(*subgraph, io, self.options)?)
            }
            #[cfg(not(feature = "rten"))]
            Op::Fallback(subgraph) => return Err(no_rten(&subgraph)),
            op => Box::new(interpreted::Interpreted { op, io }),
        })
    }
}

/// Refuses what is left to rten, in a build without it.
#[cfg(not(feature = "rten"))]
fn no_rten(subgraph: &fewbits_ir::op::Subgraph) -> crate::RuntimeError {
    let nodes = &subgraph.model.graph().node;
    let labels: Vec<String> =
        nodes.iter().map(|node| format!("'{}' ({})", node.label(), node.op_type())).collect();
    let reason = format!("no kernel computes {}, and this build has no rten", labels.join(", "));
    crate::RuntimeError::Load { reason }
}

/// Calls `work` with memory of this thread, which it may use for anything.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Vec<f32>) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(work)
}
