//! `consumers topology show`: what Doorstep declares on the broker.

use doorstep_messaging::{Argument, Namespace, Topology};
use doorstep_program::{
    Failure,
    output::{print, print_json},
};

use crate::{roles, settings::Form, text::table};

/// Shows the topology of all roles in this namespace.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn show(namespace: &Namespace, form: Form) -> Result<(), Failure> {
    let topology = Topology::of(namespace, &roles::queues());
    match form {
        Form::Json => print_json(&topology),
        Form::Text => print(|out| {
            writeln!(out, "{}\n", exchanges(&topology))?;
            writeln!(out, "{}\n", queues(&topology))?;
            writeln!(out, "{}\n", bindings(&topology))?;
            writeln!(out, "{}\n", owners(&topology))?;
            writeln!(
                out,
                "All exchanges and queues are durable. A queue's arguments cannot be changed: to change them, drain and delete it. The record of an \
                 owner is written by the role's store when it starts; `consumers topology verify` shows it."
            )
        }),
    }
}

fn exchanges(topology: &Topology) -> String {
    let mut table = table(&["EXCHANGE", "KIND"], &[]);
    for exchange in &topology.exchanges {
        table.add_row([exchange.name.as_str(), exchange.kind.as_str()]);
    }
    table.trim_fmt()
}

fn queues(topology: &Topology) -> String {
    let mut table = table(&["QUEUE", "FOR", "ARGUMENTS"], &[]);
    for queue in &topology.queues {
        let arguments: Vec<String> = queue
            .arguments
            .iter()
            .map(|(name, value)| format!("{name}={}", written(value)))
            .collect();
        table.add_row([
            queue.name.as_str(),
            queue.purpose.words(),
            &arguments.join("\n"),
        ]);
    }
    table.trim_fmt()
}

fn written(value: &Argument) -> String {
    match value {
        Argument::Text(text) if text.is_empty() => "(default exchange)".to_owned(),
        Argument::Text(text) => text.clone(),
        Argument::Number(number) => number.to_string(),
        Argument::Flag(flag) => flag.to_string(),
    }
}

fn bindings(topology: &Topology) -> String {
    let mut table = table(&["FROM EXCHANGE", "ROUTING KEY", "TO QUEUE"], &[]);
    for binding in &topology.bindings {
        table.add_row([
            binding.exchange.as_str(),
            &binding.routing_key,
            binding.queue.as_str(),
        ]);
    }
    table.trim_fmt()
}

fn owners(topology: &Topology) -> String {
    let mut table = table(&["RECORD OF THE OWNER", "OF THE QUEUES OF ROLE"], &[]);
    for owner in &topology.owners {
        table.add_row([owner.exchange.as_str(), owner.role.as_str()]);
    }
    table.trim_fmt()
}
