//! `consumers topology show --definitions`: the topology as a definitions file of RabbitMQ.
//!
//! With `--users`, it contains the permissions of users but not the users: a definitions file should hold no password.
//! It does not contain the virtual host: importing an existing one would overwrite its description. Nor does it contain
//! the records of owners: each store writes its own.

use doorstep_cli::{CliError, output::print};
use doorstep_messaging::{Topology, TopologyOwner};
use serde_json::{Value, json};

use super::permissions::{PermissionsQuery, users};
use crate::cli::topology::TopologyShowArgs;

/// Prints the input of `rabbitmqctl import_definitions` and `POST /api/definitions`.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn definitions(args: &TopologyShowArgs, topology: &Topology) -> Result<(), CliError> {
    let mut file = file(topology, &args.vhost);
    if args.users {
        let namespace = args.namespace.namespace.clone();
        let asked = PermissionsQuery {
            prefix: args.user.clone().unwrap_or_else(|| namespace.to_string()),
            namespace,
            vhost: args.vhost.clone(),
            declared_by: TopologyOwner::Others,
        };
        add_rights(&mut file, &asked);
    }
    print(|out| {
        serde_json::to_writer_pretty(&mut *out, &file)?;
        out.write_all(b"\n")
    })
}

/// Adds the permissions of the users that `topology permissions --declared` shows.
fn add_rights(file: &mut Value, asked: &PermissionsQuery) {
    let (mut permissions, mut topic_permissions) = (Vec::new(), Vec::new());
    for user in users(asked) {
        let (name, vhost, rights) = (&user.user, &asked.vhost, &user.rights);
        permissions.push(json!({
            "user": name,
            "vhost": vhost,
            "configure": rights.configure,
            "write": rights.write,
            "read": rights.read,
        }));
        if let Some(topics) = &rights.topics {
            topic_permissions.push(json!({
                "user": name,
                "vhost": vhost,
                "exchange": topics.exchange,
                "write": topics.write,
                "read": topics.read,
            }));
        }
    }
    file["permissions"] = Value::Array(permissions);
    file["topic_permissions"] = Value::Array(topic_permissions);
}

fn file(topology: &Topology, vhost: &str) -> Value {
    let exchanges = topology.exchanges.iter().map(|exchange| {
        json!({
            "name": exchange.name,
            "vhost": vhost,
            "type": exchange.kind,
            "durable": true,
            "auto_delete": false,
            "internal": false,
            "arguments": {},
        })
    });
    let queues = topology.queues.iter().map(|queue| {
        json!({
            "name": queue.name,
            "vhost": vhost,
            "durable": true,
            "auto_delete": false,
            "arguments": queue.arguments,
        })
    });
    let bindings = topology.bindings.iter().map(|binding| {
        json!({
            "source": binding.exchange,
            "vhost": vhost,
            "destination": binding.queue,
            "destination_type": "queue",
            "routing_key": binding.routing_key,
            "arguments": {},
        })
    });
    json!({
        "exchanges": exchanges.collect::<Vec<_>>(),
        "queues": queues.collect::<Vec<_>>(),
        "bindings": bindings.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definitions_file_holds_all_that_is_declared() {
        let topology = doorstep_cli::topology(&"shop".parse().unwrap());
        let file = file(&topology, "eu");
        for (list, count) in [
            ("exchanges", topology.exchanges.len()),
            ("queues", topology.queues.len()),
            ("bindings", topology.bindings.len()),
        ] {
            let list = file[list].as_array().unwrap();
            assert_eq!(list.len(), count);
            assert!(list.iter().all(|entry| entry["vhost"] == "eu"));
        }
        assert_eq!(file["exchanges"][0]["type"], "topic");
        assert_eq!(file["queues"][2]["arguments"]["x-delivery-limit"], 100);
        assert_eq!(file["bindings"][0]["destination"], "shop.orders.0");
    }
}
