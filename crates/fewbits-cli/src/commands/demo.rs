use std::num::NonZeroUsize;
use std::process::ExitCode;

use fewbits::Replace;
use fewbits::demo::{FILES, Story};

use crate::args::DemoArgs;
use crate::failure::Failure;
use crate::progress::Bar;
use crate::show;

pub fn demo(args: &DemoArgs, threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    let replace = if args.force { Replace::Existing } else { Replace::Never };
    let bar = Bar::default();
    let story = match &args.out {
        Some(folder) => fewbits::demo::demo(folder, replace, threads, &bar)?,
        None => {
            let scratch = fewbits::output::scratch_folder()?;
            fewbits::demo::demo(scratch.path(), Replace::Existing, threads, &bar)?
        }
    };
    if args.json {
        show::json(&story);
    } else {
        print(&story, args);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(story: &Story, args: &DemoArgs) {
    println!(
        "1. Train: logistic regression on {} rows of {} features. Accuracy on {} other rows: {:.3}",
        story.train_rows, story.features, story.test_rows, story.trained_accuracy
    );
    println!("2. Quantize its weights at 8 bits, save, load, evaluate the saved files again:");
    let (fixed, symmetric) = (&story.fixed_point, &story.symmetric);
    let fixed_name = format!("round(w·2⁸)/2⁸, {}-bit integers", story.fixed_point_integer_bits);
    let mut table = show::table(&["", "accuracy", "agreement", "file bytes", "weight bytes"], 1);
    for (name, side, agreement) in [
        ("float", &symmetric.a, 1.0),
        (fixed_name.as_str(), &fixed.b, fixed.agreement),
        ("symmetric 8-bit integers", &symmetric.b, symmetric.agreement),
    ] {
        table.add_row([
            name.to_string(),
            format!("{:.3}", side.metric),
            format!("{:.1} %", 100.0 * agreement),
            show::bytes(side.file_bytes),
            show::bytes(side.weight_bytes),
        ]);
    }
    println!("{table}");
    println!("3. Change the number of bits and watch size against accuracy:");
    let mut table =
        show::table(&["bits", "fixed-point", "file bytes", "symmetric", "file bytes"], 0);
    for width in &story.widths {
        table.add_row([
            width.bits.to_string(),
            format!("{:.3}", width.fixed_point_accuracy),
            show::bytes(width.fixed_point_bytes),
            format!("{:.3}", width.symmetric_accuracy),
            show::bytes(width.symmetric_bytes),
        ]);
    }
    println!("{table}");
    println!(
        "A model of {} weights is mostly names and operators, so its file hardly shrinks; one with many\n\
         weights becomes about four times smaller at 8 bits. Try: fewbits quantize model.onnx -o small.onnx",
        story.features
    );
    match &args.out {
        Some(folder) => println!("Written to {}: {}", folder.display(), FILES.join(", ")),
        None => println!("Nothing was kept; add --out DIR for the models and a page to look at."),
    }
}
