//! Thousands of orders while gateway, payments and restaurant are killed, and a check of the final states. Run by
//! `cargo xtask chaos`.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use clap::Parser;
use doorstep_tests::chaos::{Size, run};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Places orders while gateway, payments and restaurant are killed, and checks the final states.
#[derive(Debug, Parser)]
struct Cli {
    /// The number of orders.
    #[arg(long, default_value_t = 10_000)]
    orders: usize,
    /// The number of customers that order concurrently.
    #[arg(long, default_value_t = 32)]
    at_once: usize,
    /// The same seed plans the same orders.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The broker, with an empty virtual host.
    #[arg(long, env = "DOORSTEP_AMQP_URL", hide_env_values = true)]
    amqp_url: String,
}

#[tokio::main]
async fn main() {
    let cli = Cli::parse();
    let size = Size {
        orders: cli.orders,
        at_once: cli.at_once.max(1),
        seed: cli.seed,
    };
    let bar = bar(cli.orders);
    let shown = bar.clone();
    let lines = AtomicUsize::new(0);
    let tenth = (cli.orders / 10).max(1);
    let sums = run(&cli.amqp_url, size, move |decided| {
        shown.set_position(decided as u64);
        let is_line = shown.is_hidden() && decided / tenth > lines.load(Ordering::Relaxed);
        if is_line {
            lines.store(decided / tenth, Ordering::Relaxed);
            eprintln!("{decided} of {} orders", size.orders);
        }
    })
    .await;
    bar.finish_and_clear();
    println!("{sums}");
    println!("the roles' states agree");
}

fn bar(orders: usize) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(4);
    let bar = ProgressBar::with_draw_target(Some(orders as u64), target);
    let template = "[{bar:30}] {pos} of {len} orders, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}
