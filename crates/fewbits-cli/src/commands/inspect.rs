use std::process::ExitCode;

use fewbits::Model;
use fewbits::inspect::Inspection;

use crate::args::InspectArgs;
use crate::failure::Failure;
use crate::show;

pub fn inspect(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let inspection = fewbits::inspect::inspect(&Model::open(&args.model)?)?;
    show::notes(&inspection.notes);
    if args.json {
        show::json(&inspection);
    } else {
        print(&inspection, args);
    }
    Ok(ExitCode::SUCCESS)
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
