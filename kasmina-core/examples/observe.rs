//! A layer that is watched from outside: what its telemetry costs is measured, and each epoch's report is
//! published for Prometheus.
//!
//! ```sh
//! cargo run --release -p kasmina-core --example observe -- --epochs 3
//! cargo run --release -p kasmina-core --example observe -- --port 9464 --hold
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use kasmina_core::{
    Command, ForwardOptions, Germination, Layer, MatMut, MatRef, OverheadOptions, SeedLayout,
};
use kasmina_telemetry::TelemetryOverhead;
use kasmina_telemetry::http::{HttpOptions, MetricsServer};

/// Runs a layer and publishes what it measures.
#[derive(Debug, Parser)]
struct Options {
    /// Epochs to run, of 20 steps each.
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Rows of the activations.
    #[arg(long, default_value_t = 2048)]
    rows: usize,
    /// Columns of the activations, in chunks of 64.
    #[arg(long, default_value_t = 1024)]
    columns: usize,
    /// Port of the endpoint on 127.0.0.1; 0 for any free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Serves the last reports until Enter is pressed.
    #[arg(long)]
    hold: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (rows, columns) = (options.rows, options.columns);
    let layout = SeedLayout::new(columns, 64)?;
    let mut layer = Layer::builder(layout).name("observed").build()?;
    let server = MetricsServer::start(HttpOptions::loopback(options.port))?;
    println!("reports at http://{}/metrics and /reports.jsonl", server.address());

    let wave = |k: usize| (k.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 32768.0 - 1.0;
    let x: Vec<f32> = (0..rows * columns).map(wave).collect();
    let (mut y, mut grad_x) = (x.clone(), x.clone());
    for epoch in 0..options.epochs {
        // A transition makes another pass of it, whose cost has yet to be measured.
        if layer.telemetry_overhead().is_none() {
            let x = MatRef::contiguous(&x, columns)?;
            let cost = layer.measure_telemetry_overhead(x, Some(x), &OverheadOptions::default())?;
            print_cost(epoch, &cost);
        }
        if epoch == 0 {
            let blueprint = layer.registry().find("bottleneck")?;
            layer.command(0, Command::Germinate(Germination::new(blueprint)), "as an example")?;
        }
        for _ in 0..20 {
            let view = MatRef::contiguous(&x, columns)?;
            let pass = ForwardOptions::new();
            layer.forward(view, MatMut::contiguous(&mut y, columns)?, &pass)?;
            layer.backward(view, view, MatMut::contiguous(&mut grad_x, columns)?, &pass)?;
            layer.advance_step();
        }
        server.publish(layer.end_epoch().telemetry)?;
    }
    print_page(server.address())?;
    if options.hold {
        println!("press Enter to end");
        std::io::stdin().read_line(&mut String::new())?;
    }
    server.stop()?;
    Ok(())
}

fn print_cost(epoch: usize, cost: &TelemetryOverhead) {
    println!(
        "epoch {epoch}: telemetry costs {:.1} % of forward + backward on [{}, {}], 95 % interval \
         {:.1} to {:.1} %; the pass without it, timed twice, differs by {:.1} %",
        cost.percent,
        cost.of.rows,
        cost.of.columns,
        cost.low_percent,
        cost.high_percent,
        cost.noise_percent
    );
}

/// Scrapes the endpoint, as Prometheus would, and prints what it says of the layer.
fn print_page(address: SocketAddr) -> Result<()> {
    let mut client = TcpStream::connect(address)?;
    write!(client, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut page = String::new();
    client.read_to_string(&mut page)?;
    let (_, body) = page.split_once("\r\n\r\n").context("no answer")?;
    ensure!(body.ends_with("# EOF\n"), "the page is not whole");
    body.lines().filter(|line| line.starts_with("kasmina_layer_")).for_each(|l| println!("{l}"));
    println!(
        "and {} samples of seeds",
        body.lines().filter(|l| l.starts_with("kasmina_seed_")).count()
    );
    Ok(())
}
