use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use fewbits::apply::Checkpoint;
use fewbits::cut::for_model;
use fewbits::data::{DataOptions, Dataset, input_specs, warning_of_missing};
use fewbits::guard::{Guarded, Limits, MaxDrop, MetricDrop, Otherwise};
use fewbits::inspect::integer_bits;
use fewbits::measure::peak_rss_bytes;
use fewbits::never_slower::Slower;
use fewbits::output::{check_apart, check_output, write_file};
use fewbits::plan::{ActivationBecomes, Becomes, Plan, Reduced, Widths};
use fewbits::progress::Progress;
use fewbits::quantize::{Planned, Settled, Speed};
use fewbits::recipe::{Observed, RecipeChoice, Request};
use fewbits::run::{BATCH_ROWS, RunOptions};
use fewbits::{Model, Replace, SaveOptions, Scheme};
use serde::Serialize;

use crate::args::QuantizeArgs;
use crate::failure::Failure;
use crate::progress::Bar;
use crate::show;

/// Tensors listed before the rest is only counted.
const LISTED: usize = 40;

#[derive(Serialize)]
struct Report<'a> {
    out: &'a Path,
    file_bytes: u64,
    source_bytes: u64,
    quantized: usize,
    /// Of fixed-point integers, whose width follows from the values.
    integer_bits: Option<u8>,
    kept_float: Vec<KeptFloat<'a>>,
    /// The weights that use fewer integers than they could, and why.
    reduced_range: &'a [Reduced],
    /// What stays float because it measured slower on integers.
    slower: &'a [Slower],
    /// The SQNR of every float output on a sample of the calibration data; none where it equals the float
    /// model's.
    output_sqnr_db: Option<&'a BTreeMap<String, Option<f64>>>,
    /// What the metric of `--max-drop` came to.
    drop: Option<MetricDrop>,
    /// What preparation could not do, what is worth knowing of the plan, and all warnings.
    notes: &'a [String],
    seconds: f64,
    peak_rss_bytes: Option<u64>,
}

#[derive(Serialize)]
struct KeptFloat<'a> {
    tensor: &'a str,
    why: &'a str,
}

pub fn quantize(args: &QuantizeArgs, threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    // What a killed run had written is written again.
    let goes_on = args.resume.as_deref().is_some_and(Path::exists);
    let replace = if args.force || goes_on { Replace::Existing } else { Replace::Never };
    // What would be refused at the end is refused before the work.
    let outputs = [args.output.as_deref().filter(|_| !args.dry_run), args.save_plan.as_deref()];
    let outputs: Vec<&Path> = outputs.into_iter().flatten().collect();
    for output in &outputs {
        check_output(output, &args.inputs(), replace)?;
    }
    let state = args.resume.as_deref();
    if let Some(state) = state {
        check_output(state, &args.inputs(), Replace::Existing)?;
    }
    check_apart(&outputs.into_iter().chain(state).collect::<Vec<_>>())?;
    let bar = Bar::default();
    let source = Model::open(&args.model)?;
    let source_bytes = source.file_bytes();
    let data = calibration(args, &source)?;
    let run = RunOptions { threads, ..RunOptions::default() };
    let plan = args.plan.as_deref().map(Plan::read).transpose()?;
    let checkpoint = checkpoint(args, &source, plan.as_ref(), data.as_ref())?;
    let labelled = labelled(args, &source, &bar)?;
    let max_drop = args.max_drop.zip(labelled.as_ref());
    let max_drop = max_drop.map(|(max_drop, data)| MaxDrop {
        data,
        metric: args.metric,
        max_drop,
        otherwise: if plan.is_some() { Otherwise::Tell } else { Otherwise::LeaveFloat },
    });
    let (planned, min_sqnr) = match plan {
        Some(plan) => {
            let min_sqnr = args.min_sqnr.of_plan(&plan, data.as_ref()).map_err(Failure::usage)?;
            (Planned::by_plan(&source, plan, data.as_ref(), checkpoint, &run)?, min_sqnr)
        }
        None => {
            let request =
                args.how.request(args.recipe.recipe(data.as_ref()), args.bits, data.as_ref())?;
            let min_sqnr = args.min_sqnr.of_recipe(&request).map_err(Failure::usage)?;
            let mut observed = Observed::default();
            let planned =
                Planned::by_recipe(&source, &request, &mut observed, checkpoint, &run, &bar)?;
            (planned, min_sqnr)
        }
    };
    let speed = match args.recipe {
        RecipeChoice::Auto => Speed::NeverSlower { timed_on: data.as_ref() },
        RecipeChoice::Only(_) => Speed::AsPlanned,
    };
    let limits = Limits::of(min_sqnr, args.min_sqnr, max_drop);
    let (planned, Settled { guarded, slower }) = planned.settled(&limits, speed, &bar)?;
    let mut notes = planned.notes().to_vec();
    // Who gives a plan knows its widths.
    notes.extend(planned.plan().wider().filter(|_| args.plan.is_none()));
    notes.extend(guarded.notes.iter().cloned());
    show::notes(&notes);
    for warning in &guarded.warnings {
        bar.warn(warning);
    }
    if let Some(warning) = planned.warning_of_nothing() {
        bar.warn(&warning);
    }
    if let Some(path) = &args.save_plan {
        write_file(path, planned.plan().to_json().as_bytes(), replace)?;
    }
    if args.dry_run {
        if args.json {
            show::json(planned.plan());
        } else {
            print_plan(planned.plan());
            print_slower(args, &slower);
            print_guarded(&guarded);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let out = args.output.as_deref().ok_or_else(|| Failure::usage("no output; add -o OUT"))?;
    let (model, plan) = planned.carry_out(&bar)?;
    let saved = model.save(out, SaveOptions { replace, ..SaveOptions::default() })?;
    let fixed_point = plan.quantized().any(|(_, s)| matches!(s, Scheme::FixedPoint { .. }));
    let integer_bits = fixed_point.then(|| integer_bits(&model));
    if args.json {
        notes.extend(bar.warnings());
        show::json(&Report {
            out,
            file_bytes: saved.file_bytes,
            source_bytes,
            quantized: plan.quantized().count(),
            integer_bits,
            kept_float: plan
                .kept_float()
                .map(|(t, why)| (t.tensor.as_str(), why))
                .chain(plan.float_activations())
                .map(|(tensor, why)| KeptFloat { tensor, why })
                .collect(),
            reduced_range: &plan.reduced_range,
            slower: &slower,
            output_sqnr_db: guarded.output_sqnr_db.as_ref(),
            drop: guarded.drop,
            notes: &notes,
            seconds: begun.elapsed().as_secs_f64(),
            peak_rss_bytes: peak_rss_bytes(),
        });
        return Ok(ExitCode::SUCCESS);
    }
    print_plan(&plan);
    print_slower(args, &slower);
    print_guarded(&guarded);
    if let Some(bits) = integer_bits {
        println!("the fixed-point integers need {bits} bits each, the sign included");
    }
    let size = match saved.file_bytes as f64 / source_bytes as f64 {
        r if r < 1.0 => format!("{:.1} times smaller than", 1.0 / r),
        r => format!("{r:.2} times as large as"),
    };
    println!(
        "{}: {} bytes, {size} the original's {}; {:.2} s",
        out.display(),
        show::bytes(saved.file_bytes),
        show::bytes(source_bytes),
        begun.elapsed().as_secs_f64(),
    );
    Ok(ExitCode::SUCCESS)
}

/// The data to calibrate on, where some is given.
fn calibration(args: &QuantizeArgs, source: &Model) -> Result<Option<Dataset>, Failure> {
    let Some(path) = &args.calibrate else { return Ok(None) };
    let options = DataOptions {
        label: args.label.clone(),
        normalize: args.normalize.clone(),
        limit: args.limit.map(NonZeroUsize::get),
        constants: args.input.clone(),
        ..DataOptions::default()
    };
    let data = Dataset::read(path, &input_specs(source.graph()), &options)?;
    Ok(Some(for_model(data, source, 1)))
}

/// The labelled rows of `--max-drop`.
fn labelled(args: &QuantizeArgs, source: &Model, bar: &Bar) -> Result<Option<Dataset>, Failure> {
    let Some(path) = &args.data else { return Ok(None) };
    let options = DataOptions {
        label: args.label.clone(),
        normalize: args.normalize.clone(),
        constants: args.input.clone(),
        ..DataOptions::default()
    };
    let data = Dataset::read(path, &input_specs(source.graph()), &options)?;
    if let Some(warning) = warning_of_missing(&data, source.graph())? {
        bar.warn(&warning);
    }
    Ok(Some(for_model(data, source, BATCH_ROWS)))
}

/// The layers that a killed run has finished.
fn checkpoint(
    args: &QuantizeArgs,
    source: &Model,
    plan: Option<&Plan>,
    data: Option<&Dataset>,
) -> Result<Checkpoint, Failure> {
    let (Some(path), Some(data)) = (&args.resume, data) else {
        return Ok(Checkpoint::default());
    };
    let asked = match plan {
        Some(plan) => plan.to_json(),
        None => {
            let recipe = args.recipe.recipe(Some(data));
            let Request {
                target,
                weights,
                rounding,
                reduce_range,
                integer_weights,
                activations,
                methods,
                data: _,
            } = args.how.request(recipe, args.bits, None)?;
            format!(
                "{target} {weights:?} {rounding} {reduce_range} {integer_weights:?} {activations:?} \
                 {methods:?}"
            )
        }
    };
    // Neither is seen in the data's file.
    let read = format!("{:?} {:?}", args.normalize, args.label);
    Ok(Checkpoint::open(path, source, data, &format!("{asked} {read}"))?)
}

/// What was measured for `--recipe auto`.
fn print_slower(args: &QuantizeArgs, slower: &[Slower]) {
    for slower in slower {
        println!("{slower}");
    }
    if args.recipe == RecipeChoice::Auto && slower.is_empty() {
        println!("nothing stays float for its speed on this machine");
    }
}

/// What the guard measured, and what stays float for it.
fn print_guarded(guarded: &Guarded) {
    for left in guarded.left_float.iter().take(LISTED) {
        println!("'{}' stays float: {}", left.tensors.join("', '"), left.why());
    }
    print_rest(guarded.left_float.len());
    for (name, db) in guarded.output_sqnr_db.iter().flatten() {
        let db = db.map_or("equals the float model's".to_string(), |db| format!("{db:.1} dB"));
        println!("output '{name}': {db} on {} calibration rows", guarded.rows);
    }
    if let Some(MetricDrop { metric, before, after, drop }) = guarded.drop {
        println!("{metric} {before:.4} became {after:.4}, {:.4} worse", drop);
    }
}

fn print_plan(plan: &Plan) {
    let header = ["tensor", "shape", "read by", "becomes", "range", "SQNR dB"];
    let mut table = show::table(&header, 4);
    for planned in plan.tensors.iter().take(LISTED) {
        let becomes = match &planned.becomes {
            Becomes::Scheme(scheme) => scheme.to_string(),
            Becomes::Float(why) => format!("float: {why}"),
        };
        table.add_row([
            planned.tensor.clone(),
            show::shape(&planned.shape),
            planned.read_by.join(", "),
            becomes,
            planned.range.map_or(String::new(), show::range),
            planned.sqnr_db.map_or(String::new(), |db| format!("{db:.1}")),
        ]);
    }
    println!("{table}");
    print_rest(plan.tensors.len());
    print_activations(plan);
    println!(
        "{} tensors quantized, {} kept float",
        plan.quantized().count(),
        plan.kept_float().count()
    );
    if !plan.activations.is_empty() {
        let float = plan.float_activations().count();
        println!("{} activations quantized, {float} kept float", plan.activations.len() - float);
    }
    for (why, tensors, channels) in reasons(&plan.reduced_range) {
        println!("{channels} channels of {tensors} tensors use fewer integers: {why}");
    }
    print_tried(plan);
}

/// Each reason why ranges are reduced, with so many tensors and channels.
fn reasons(reduced: &[Reduced]) -> Vec<(&str, usize, usize)> {
    let mut reasons: Vec<(&str, usize, usize)> = Vec::new();
    for Reduced { channels, why, .. } in reduced {
        let at = match reasons.iter().position(|(known, ..)| known == why) {
            Some(at) => at,
            None => {
                reasons.push((why, 0, 0));
                reasons.len() - 1
            }
        };
        reasons[at].1 += 1;
        reasons[at].2 += channels.len();
    }
    reasons
}

/// Says how many rows of a table were left out.
fn print_rest(rows: usize) {
    if rows > LISTED {
        println!("… and {} more; --json lists all", rows - LISTED);
    }
}

fn print_activations(plan: &Plan) {
    if plan.activations.is_empty() {
        return;
    }
    let mut table = show::table(&["activation", "becomes", "range", "SQNR dB"], 2);
    for planned in plan.activations.iter().take(LISTED) {
        let (becomes, range, sqnr_db) = match &planned.becomes {
            ActivationBecomes::Static { scheme, low, high, sqnr_db } => {
                (scheme.to_string(), show::range((*low, *high)), *sqnr_db)
            }
            ActivationBecomes::Dynamic => {
                ("affine 8-bit, scaled at every call".to_string(), String::new(), None)
            }
            ActivationBecomes::Float(why) => (format!("float: {why}"), String::new(), None),
        };
        let sqnr_db = sqnr_db.map_or(String::new(), |db| format!("{db:.1}"));
        table.add_row([planned.value.clone(), becomes, range, sqnr_db]);
    }
    println!("{table}");
    print_rest(plan.activations.len());
}

/// What was measured to choose the plan, and what it is.
fn print_tried(plan: &Plan) {
    if plan.tried.is_empty() {
        return;
    }
    let mut table = show::table(&["tried on a sample", "ranges", "output SQNR", ""], usize::MAX);
    for tried in &plan.tried {
        let methods = tried.methods.iter().map(|m| m.to_string());
        let methods = methods.chain(tried.rounding.map(|r| r.to_string()));
        let widths = tried.widths.map(|widths| match widths {
            Widths::KeptWide => "tables and last products wider".to_string(),
            Widths::AsAsked => "all as narrow as asked for".to_string(),
        });
        let methods: Vec<String> = methods.chain(widths).collect();
        let weight_range = tried.weight_range.map(|r| r.to_string());
        table.add_row([
            if methods.is_empty() { "plain".to_string() } else { methods.join(" + ") },
            tried.range.map(|r| r.to_string()).or(weight_range).unwrap_or_default(),
            tried.sqnr_db.map_or("no difference".to_string(), |db| format!("{db:.1} dB")),
            if tried.kept { "kept" } else { "no better" }.to_string(),
        ]);
    }
    println!("{table}");
}
