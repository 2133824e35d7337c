//! `consumers topology show`: the topology that Doorstep declares on the broker.

use doorstep_cli::{
    CliError,
    output::{print, print_json},
};
use doorstep_messaging::{Argument, Topology};
use doorstep_table::{Column, Table, terminal_width, wrapped};

use super::definitions::definitions;
use crate::cli::topology::TopologyShowArgs;

/// Shows the topology of all roles in this namespace.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn show(args: &TopologyShowArgs) -> Result<(), CliError> {
    let topology = doorstep_cli::topology(&args.namespace.namespace);
    if args.definitions {
        return definitions(args, &topology);
    }
    if args.json {
        return print_json(&topology);
    }
    print(|out| {
        writeln!(out, "{}\n", exchanges(&topology))?;
        writeln!(out, "{}\n", queues(&topology))?;
        writeln!(out, "{}\n", bindings(&topology))?;
        writeln!(out, "{}\n", owners(&topology))?;
        let note = "All exchanges and queues are durable. A queue's arguments cannot be changed: to change them, drain and delete it. The record of an \
                    owner is written by the role's store when it starts; `consumers topology verify` shows it.";
        writeln!(out, "{}", wrapped(note, terminal_width(), ""))
    })
}

fn exchanges(topology: &Topology) -> Table {
    let mut table = Table::new(["EXCHANGE", "KIND"].map(Column::text));
    for exchange in &topology.exchanges {
        table.add_row([exchange.name.as_str(), exchange.kind.as_str()]);
    }
    table
}

fn queues(topology: &Topology) -> Table {
    let mut table = Table::new(["QUEUE", "FOR", "ARGUMENTS"].map(Column::text));
    for queue in &topology.queues {
        let arguments: Vec<String> = queue
            .arguments
            .iter()
            .map(|(name, value)| format!("{name}={}", written(value)))
            .collect();
        table.add_row([
            queue.name.as_str(),
            queue.purpose.describe(),
            &arguments.join("\n"),
        ]);
    }
    table
}

fn written(value: &Argument) -> String {
    match value {
        Argument::Text(text) if text.is_empty() => "(default exchange)".to_owned(),
        Argument::Text(text) => text.clone(),
        Argument::Number(number) => number.to_string(),
        Argument::Flag(flag) => flag.to_string(),
    }
}

fn bindings(topology: &Topology) -> Table {
    let mut table = Table::new(["FROM EXCHANGE", "ROUTING KEY", "TO QUEUE"].map(Column::text));
    for binding in &topology.bindings {
        table.add_row([
            binding.exchange.as_str(),
            &binding.routing_key,
            binding.queue.as_str(),
        ]);
    }
    table
}

fn owners(topology: &Topology) -> Table {
    let mut table = Table::new(["RECORD OF THE OWNER", "OF THE QUEUES OF ROLE"].map(Column::text));
    for owner in &topology.owners {
        table.add_row([owner.exchange.as_str(), owner.role.as_str()]);
    }
    table
}
