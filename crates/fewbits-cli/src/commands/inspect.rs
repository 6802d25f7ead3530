use std::process::ExitCode;

use fewbits::Model;
use fewbits::inspect::{Execution, Inspection, StepInfo};

use crate::args::InspectArgs;
use crate::failure::Failure;
use crate::show;

pub fn inspect(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let model = Model::open(&args.model)?;
    if args.runtime {
        let execution = fewbits::inspect::execution(&model)?;
        match args.json {
            true => show::json(&execution),
            false => print_execution(&execution, args),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let inspection = fewbits::inspect::inspect(&model)?;
    show::notes(&inspection.notes);
    if args.json {
        show::json(&inspection);
    } else {
        print(&inspection, args);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_execution(execution: &Execution, args: &InspectArgs) {
    println!("{}: kernels for {}", args.model.display(), execution.cpu);
    let mut table = show::table(&["node", "what", "where", "nodes"], 3);
    for step in &execution.steps {
        let place = if step.r#where == "floats" { "floats, ours" } else { step.r#where };
        table.add_row([&step.node, &step.what, place, &step.nodes.to_string()]);
    }
    println!("{table}");
    // Layers that are alike stay for the same reasons.
    let mut regions: Vec<(&StepInfo, Vec<&str>)> = Vec::new();
    for step in execution.steps.iter().filter(|step| step.r#where == "rten") {
        let is_alike = |first: &StepInfo| first.why == step.why && first.exact == step.exact;
        match regions.iter_mut().find(|(first, _)| is_alike(first)) {
            Some((_, nodes)) => nodes.push(&step.node),
            None => regions.push((step, vec![&step.node])),
        }
    }
    for (StepInfo { why, exact, .. }, nodes) in regions {
        let bits = match exact {
            true => "which moves or converts values here: the same bits on every CPU",
            false => "whose last bits may depend on the CPU",
        };
        println!("in rten, {bits}: {}", nodes.join(", "));
        for why in why {
            println!("  {why}");
        }
    }
    println!(
        "{} of {} nodes run on our kernels; {}",
        execution.own_nodes,
        execution.nodes,
        match (execution.rten_regions, execution.steps.iter().all(|step| step.exact)) {
            (0, _) => "nothing in rten, so every CPU gives the same bits".to_string(),
            (1, true) => "1 region in rten, which rounds nothing".to_string(),
            (n, true) => format!("{n} regions in rten, which round nothing"),
            (1, false) => "1 region in rten".to_string(),
            (n, false) => format!("{n} regions in rten"),
        }
    );
}

fn print(inspection: &Inspection, args: &InspectArgs) {
    println!(
        "{}: {} bytes, {} of them weights; opset {}{}",
        args.model.display(),
        show::bytes(inspection.file_bytes),
        show::bytes(inspection.weight_bytes),
        inspection.opset,
        if inspection.producer.is_empty() {
            String::new()
        } else {
            format!(", by {}", inspection.producer)
        },
    );
    for (what, values) in [("takes", &inspection.inputs), ("gives", &inspection.outputs)] {
        for value in values {
            let data_type = value.r#type.as_deref().unwrap_or("value");
            println!("  {what} {}: {data_type} {}", value.name, value.shape);
        }
    }
    for stored in &inspection.stored {
        println!(
            "  {} bytes of {} in {} {}",
            show::bytes(stored.bytes),
            stored.r#type.as_deref().unwrap_or("an unknown type"),
            stored.tensors,
            match stored.place {
                "initializers" => "initializers",
                "nodes" => "constants of nodes",
                "subgraphs" => "constants of subgraphs",
                _ => "constants of functions",
            }
        );
    }
    let operators: Vec<String> =
        inspection.operators.iter().map(|(op, n)| format!("{n} {op}")).collect();
    println!("  operators: {}", operators.join(", "));
    for lowered in &inspection.lowered {
        println!("  seen as standard operators: {lowered}");
    }
    for kept in &inspection.not_lowered {
        println!("  left as it is: {kept}");
    }
    if inspection.tensors.is_empty() {
        println!("no float or quantized constants");
        return;
    }
    let mut table =
        show::table(&["tensor", "is", "scheme", "shape", "bits", "bytes", "min", "max"], 3);
    for tensor in &inspection.tensors {
        table.add_row([
            tensor.tensor.clone(),
            tensor.role.to_string(),
            tensor.scheme.clone(),
            show::shape(&tensor.shape),
            tensor.bits.to_string(),
            show::bytes(tensor.bytes),
            format!("{:.4}", tensor.min),
            format!("{:.4}", tensor.max),
        ]);
    }
    println!("{table}");
    if inspection.activations.is_empty() {
        return;
    }
    let mut table = show::table(&["activation", "integers", "scale", "zero point", "range"], 2);
    for activation in &inspection.activations {
        table.add_row([
            activation.value.clone(),
            activation.r#type.clone(),
            format!("{:.4e}", activation.scale),
            activation.zero_point.to_string(),
            show::range((activation.min, activation.max)),
        ]);
    }
    println!("{table}");
}
