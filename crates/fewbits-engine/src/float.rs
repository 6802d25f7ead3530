//! The float executor: rten.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, Weak};

use fewbits_onnx::Model;
use fewbits_onnx::proto::{DataType, GraphProto};
use rten::{NodeId, ThreadPool, Value, ValueOrView};
use rten_tensor::TensorView;
use rten_tensor::prelude::*;

use fewbits_ir::prepare::prepare;
use fewbits_ir::{F64Prologue, Tensor, ValueSpec, Values, input_specs};

use crate::expose::expose;
use crate::string_epilogue::StringEpilogue;
use crate::{Result, RunOptions, Runner, RuntimeError};

/// Runs a model in f32.
pub struct FloatRunner {
    model: rten::Model,
    prologue: F64Prologue,
    pool: Option<Arc<ThreadPool>>,
    inputs: Vec<(ValueSpec, NodeId)>,
    specs: Vec<ValueSpec>,
    /// What is fetched from rten, under the name it has there.
    fetched: Vec<(String, NodeId)>,
    strings: StringEpilogue,
    outputs: Vec<ValueSpec>,
}

impl FloatRunner {
    /// Loads `model`.
    ///
    /// # Errors
    /// If an operator is not supported, by name, or an intermediate does not exist.
    pub fn new(model: &Model, options: &RunOptions) -> Result<FloatRunner> {
        let prepared = prepare(&expose(model, &options.intermediates)?)?;
        FloatRunner::load(prepared, model, options)
    }

    /// Loads what was prepared from `source`.
    pub(crate) fn load(
        mut prepared: Model,
        source: &Model,
        options: &RunOptions,
    ) -> Result<FloatRunner> {
        let declared: HashMap<String, ValueSpec> = source
            .graph()
            .value_info
            .iter()
            .chain(&source.graph().output)
            .map(|v| (v.name().to_string(), ValueSpec::new(v)))
            .collect();
        let outputs: Vec<ValueSpec> = prepared
            .graph()
            .output
            .iter()
            .map(|o| {
                let spec = ValueSpec::new(o);
                match declared.get(o.name()) {
                    Some(known) if spec.data_type.is_none() => known.clone(),
                    _ => spec,
                }
            })
            .collect();
        name_nodes(prepared.graph_mut());
        let strings = StringEpilogue::cut(prepared.graph_mut())?;
        let prologue = F64Prologue::cut(prepared.graph_mut())?;
        let inner = input_specs(prepared.graph());
        let specs = prologue.outer(&inner);
        let names: Vec<String> =
            prepared.graph().output.iter().map(|o| o.name().to_string()).collect();
        // Handed over in parts, weights are held once.
        let (bytes, payloads) = prepared.into_parts();
        let mut load = rten::ModelOptions::with_all_ops();
        for (location, payload) in payloads {
            load.external_data(&location, payload);
        }
        let model = load.load(bytes).map_err(|e| RuntimeError::Load { reason: e.to_string() })?;
        drop(load);
        let id = |name: &str| {
            model
                .node_id(name)
                .map_err(|e| RuntimeError::Load { reason: format!("value '{name}': {e}") })
        };
        let inputs = inner.iter().map(|s| Ok((s.clone(), id(&s.name)?))).collect::<Result<_>>()?;
        let fetched = names.into_iter().map(|n| Ok((n.clone(), id(&n)?))).collect::<Result<_>>()?;
        let pool = options.threads.map(|n| pool_of(n.get()));
        Ok(FloatRunner { prologue, inputs, fetched, model, pool, specs, strings, outputs })
    }

    fn feed<'a>(&self, spec: &ValueSpec, tensor: &'a Tensor) -> Result<ValueOrView<'a>> {
        match (spec.data_type, tensor.data_type()) {
            // Halves are computed as floats, which other parts of a model may give.
            (Some(DataType::Float16), DataType::Float) => {
                ValueSpec { data_type: None, ..spec.clone() }.check(tensor)?
            }
            _ => spec.check(tensor)?,
        }
        let shape = tensor.shape();
        let ints =
            |values: Vec<i32>| ValueOrView::from(rten_tensor::Tensor::from_data(shape, values));
        Ok(match tensor.values() {
            Values::F32(v) => TensorView::from_data(shape, v.as_slice()).into(),
            Values::I32(v) => TensorView::from_data(shape, v.as_slice()).into(),
            Values::I8(v) => TensorView::from_data(shape, v.as_slice()).into(),
            Values::U8(v) => TensorView::from_data(shape, v.as_slice()).into(),
            Values::F16(v) => {
                let widened: Vec<f32> = v.iter().map(|x| x.to_f32()).collect();
                rten_tensor::Tensor::from_data(shape, widened).into()
            }
            Values::F64(v) => {
                let narrowed: Vec<f32> = v.iter().map(|&x| x as f32).collect();
                if v.iter().zip(&narrowed).any(|(x, narrow)| x.is_finite() && !narrow.is_finite()) {
                    return Err(RuntimeError::Input {
                        input: spec.name.clone(),
                        reason: "a number is beyond the range of 32 bits, which the executor \
                                 computes in"
                            .into(),
                    });
                }
                rten_tensor::Tensor::from_data(shape, narrowed).into()
            }
            Values::Bool(v) => ints(v.iter().map(|&x| i32::from(x)).collect()),
            Values::I64(v) => {
                let narrowed: std::result::Result<Vec<i32>, _> =
                    v.iter().map(|&x| i32::try_from(x)).collect();
                ints(narrowed.map_err(|_| RuntimeError::Input {
                    input: spec.name.clone(),
                    reason: "an integer is beyond 32 bits, which the executor does not have".into(),
                })?)
            }
            Values::Str(_) => {
                return Err(RuntimeError::Input {
                    input: spec.name.clone(),
                    reason: "strings given where numbers are needed".into(),
                });
            }
        })
    }
}

/// The pool of so many threads: one for all runners, since a quantized model may have many parts
/// that are left to floats.
fn pool_of(threads: usize) -> Arc<ThreadPool> {
    static POOLS: Mutex<Vec<(usize, Weak<ThreadPool>)>> = Mutex::new(Vec::new());
    let mut pools = POOLS.lock().unwrap_or_else(|e| e.into_inner());
    pools.retain(|(_, pool)| pool.strong_count() > 0);
    let known = pools.iter().find(|(n, _)| *n == threads).and_then(|(_, pool)| pool.upgrade());
    known.unwrap_or_else(|| {
        let pool = Arc::new(ThreadPool::with_num_threads(threads));
        pools.push((threads, Arc::downgrade(&pool)));
        pool
    })
}

/// Gives every node a name, so that what fails can be told by it: rten forgets one that a value bears, too.
fn name_nodes(graph: &mut GraphProto) {
    let values: HashSet<String> =
        graph.node.iter().flat_map(|node| &node.output).cloned().collect();
    for node in &mut graph.node {
        let label = node.label();
        if values.contains(label) {
            node.name = Some(format!("{} of '{label}'", node.op_type()));
        }
    }
}

impl Runner for FloatRunner {
    fn inputs(&self) -> &[ValueSpec] {
        &self.specs
    }

    fn outputs(&self) -> &[ValueSpec] {
        &self.outputs
    }

    fn run(&self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        let surplus = inputs.iter().find(|(name, _)| !self.specs.iter().any(|s| s.name == *name));
        if let Some((name, _)) = surplus {
            let known: Vec<&str> = self.specs.iter().map(|s| s.name.as_str()).collect();
            return Err(RuntimeError::Input {
                input: name.clone(),
                reason: format!("the model has no such input; it has {}", known.join(", ")),
            });
        }
        let inputs = &*self.prologue.feed(inputs)?;
        let feeds = self
            .inputs
            .iter()
            .map(|(spec, id)| match inputs.iter().find(|(name, _)| *name == spec.name) {
                Some((_, tensor)) => Ok((*id, self.feed(spec, tensor)?)),
                None => Err(RuntimeError::Input {
                    input: spec.name.clone(),
                    reason: "no data given for it".into(),
                }),
            })
            .collect::<Result<Vec<_>>>()?;
        let ids: Vec<NodeId> = self.fetched.iter().map(|(_, id)| *id).collect();
        let options = rten::RunOptions::default().with_thread_pool(self.pool.clone());
        let results = self
            .model
            .run(feeds, &ids, Some(options))
            .map_err(|e| RuntimeError::Run { reason: e.to_string() })?;
        let mut values = HashMap::new();
        for ((name, _), value) in self.fetched.iter().zip(results) {
            values.insert(name.clone(), tensor(name, value)?);
        }
        self.strings.run(&mut values)?;
        self.outputs
            .iter()
            .map(|spec| {
                let tensor = values.remove(&spec.name).ok_or_else(|| RuntimeError::Run {
                    reason: format!("output '{}' is given twice", spec.name),
                })?;
                let tensor = match spec.data_type {
                    Some(DataType::Float16 | DataType::Bfloat16) | None => tensor,
                    Some(data_type) => tensor.cast(data_type)?,
                };
                Ok((spec.name.clone(), tensor))
            })
            .collect()
    }
}

fn tensor(name: &str, value: Value) -> Result<Tensor> {
    match value {
        Value::FloatTensor(t) => Tensor::new(t.shape().to_vec(), t.into_data()),
        Value::Int32Tensor(t) => Tensor::new(t.shape().to_vec(), t.into_data()),
        Value::Int8Tensor(t) => Tensor::new(t.shape().to_vec(), t.into_data()),
        Value::UInt8Tensor(t) => Tensor::new(t.shape().to_vec(), t.into_data()),
        // A sequence, or a kind of value that a later rten adds.
        _ => Err(RuntimeError::Run {
            reason: format!(
                "output '{name}' is not a tensor; export the model with tensor outputs"
            ),
        }),
    }
}
