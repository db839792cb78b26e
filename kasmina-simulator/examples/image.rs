//! Makes images: `image OUT [--races] [--capability 80] [-I FOLDER]… FILE.cu…`, with the time that each takes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use kasmina_simulator::translate::{Options, Unit, build};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(out) = arguments.next().map(PathBuf::from) else {
        eprintln!("image OUT [--races] [--capability 80] [-I FOLDER]… FILE.cu…");
        return ExitCode::FAILURE;
    };
    let (mut options, mut include, mut failed) = (Options::default(), Vec::new(), false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--races" => options.races = true,
            "--capability" => {
                options.capability = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(90);
            }
            "-I" => include.extend(arguments.next().map(PathBuf::from)),
            file => {
                let source = PathBuf::from(file);
                let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let begin = Instant::now();
                let unit = Unit { name: name.clone(), source, include: include.clone() };
                match build(&unit, &out, &options) {
                    Ok(_) => println!("{name}: {:.1} s", begin.elapsed().as_secs_f64()),
                    Err(error) => {
                        eprintln!("{name}: {error}");
                        failed = true;
                    }
                }
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
