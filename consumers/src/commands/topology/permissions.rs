//! `consumers topology permissions`: the least permissions of a user for each part of Doorstep.

use doorstep_cli::{
    CliError,
    output::{print, print_json},
    topology,
};
use doorstep_contracts::{PUBLISHERS, ROLES};
use doorstep_messaging::{Namespace, Permissions, TopologyOwner};
use doorstep_table::{fields, terminal_width, wrapped};
use serde::Serialize;

use crate::cli::topology::TopologyPermissionsArgs;

/// The scope of the listed permissions.
#[derive(Debug)]
pub(crate) struct PermissionsQuery {
    pub(crate) namespace: Namespace,
    pub(crate) vhost: String,
    /// The common prefix of the users' names.
    pub(crate) prefix: String,
    /// The party that declares the exchanges and queues.
    pub(crate) declared_by: TopologyOwner,
}

/// A user with its permissions.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct User {
    pub(super) user: String,
    #[serde(rename = "for")]
    purpose: String,
    #[serde(flatten)]
    pub(super) rights: Permissions,
}

/// Shows a user for each purpose, with its permissions.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn permissions(args: TopologyPermissionsArgs) -> Result<(), CliError> {
    let (namespace, vhost) = (args.namespace.namespace, args.vhost);
    let (declared_by, hint) = if args.declared {
        (
            TopologyOwner::Others,
            "Import `consumers topology show --definitions` before: these users can declare nothing but what marks the queues that they consume from, records their owner, and hears of cancelled requests.",
        )
    } else {
        (
            TopologyOwner::Programs,
            "The programs declare exchanges and queues by themselves; with --declared they need far less.",
        )
    };
    let query = PermissionsQuery {
        prefix: args.user.unwrap_or_else(|| namespace.to_string()),
        namespace,
        vhost,
        declared_by,
    };
    let users = users(&query);
    if args.json {
        return print_json(&serde_json::json!({
            "vhost": query.vhost,
            "declared": args.declared,
            "users": users,
        }));
    }
    print(|out| {
        for user in &users {
            writeln!(out, "{}, for {}", user.user, user.purpose)?;
            let rights = &user.rights;
            let mut lines = vec![
                ("  configure", rights.configure.clone()),
                ("  write", rights.write.clone()),
                ("  read", rights.read.clone()),
            ];
            if let Some(topics) = &rights.topics {
                let keys = |keys: &str| format!("{keys} (keys of {})", topics.exchange);
                lines.push(("  publish", keys(&topics.write)));
                lines.push(("  bind", keys(&topics.read)));
            }
            // A pattern is copied as a whole, so it is never broken.
            writeln!(out, "{}", fields(&lines, None))?;
        }
        for user in &users {
            writeln!(out, "{}", command(&query.vhost, user))?;
            if let Some(command) = topic_command(&query.vhost, user) {
                writeln!(out, "{command}")?;
            }
        }
        writeln!(out, "\n{}", wrapped(hint, terminal_width(), ""))
    })
}

/// Returns every user with its permissions.
pub(super) fn users(query: &PermissionsQuery) -> Vec<User> {
    let topology = topology(&query.namespace);
    let (namespace, declared_by) = (&query.namespace, query.declared_by);
    let user = |name: &str, purpose: String, rights| User {
        user: format!("{}-{name}", query.prefix),
        purpose,
        rights,
    };
    let mut users: Vec<_> = PUBLISHERS
        .iter()
        .map(|program| {
            // The gateway is the one that calls roles.
            let rights = match program.name {
                "gateway" => Permissions::for_rpc_client,
                _ => Permissions::for_publisher,
            };
            let rights = rights(namespace, &topology, declared_by, program.emits);
            user(program.name, program.command.to_owned(), rights)
        })
        .collect();
    let consume = |role, emits: &[&str]| {
        Permissions::for_consumer(namespace, &topology, role, declared_by, emits)
    };
    let all: Vec<&str> = ROLES.iter().flat_map(|role| role.emits).copied().collect();
    users.push(user(
        "consumers",
        "consumers run".to_owned(),
        consume(None, &all),
    ));
    // A role that declares needs every role's queues, including those of the others.
    if declared_by == TopologyOwner::Others {
        for role in ROLES {
            let purpose = format!("consumers run {}", role.name);
            users.push(user(
                role.name,
                purpose,
                consume(Some(role.name), role.emits),
            ));
        }
    }
    users.push(user(
        "status",
        "consumers status".to_owned(),
        Permissions::for_monitoring(namespace, &topology),
    ));
    users.push(user(
        "verify",
        "consumers topology verify".to_owned(),
        Permissions::for_verifier(namespace, &topology),
    ));
    users
}

fn command(vhost: &str, user: &User) -> String {
    let Permissions {
        configure,
        write,
        read,
        topics: _,
    } = &user.rights;
    format!(
        "rabbitmqctl set_permissions -p {} {} '{configure}' '{write}' '{read}'",
        quoted(vhost),
        quoted(&user.user)
    )
}

fn topic_command(vhost: &str, user: &User) -> Option<String> {
    let topics = user.rights.topics.as_ref()?;
    Some(format!(
        "rabbitmqctl set_topic_permissions -p {} {} {} '{}' '{}'",
        quoted(vhost),
        quoted(&user.user),
        quoted(&topics.exchange),
        topics.write,
        topics.read
    ))
}

/// Quotes a word for the shell, if needed.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(declared_by: TopologyOwner) -> PermissionsQuery {
        PermissionsQuery {
            namespace: "shop".parse().unwrap(),
            vhost: "it's".to_owned(),
            prefix: "eu".to_owned(),
            declared_by,
        }
    }

    #[test]
    fn declared_topology_gives_each_role_its_user() {
        let names = |declared_by| -> Vec<String> {
            let users = users(&query(declared_by));
            users.into_iter().map(|user| user.user).collect()
        };
        assert_eq!(
            names(TopologyOwner::Programs),
            [
                "eu-gateway",
                "eu-retail",
                "eu-pickups",
                "eu-access-log-import",
                "eu-producer",
                "eu-consumers",
                "eu-status",
                "eu-verify"
            ]
        );
        assert!(names(TopologyOwner::Others).contains(&"eu-tracking".to_owned()));
    }

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let query = query(TopologyOwner::Others);
        assert_eq!(
            command(&query.vhost, &users(&query)[1]),
            r"rabbitmqctl set_permissions -p 'it'\''s' eu-retail '^$' '^shop\.events$' '^$'"
        );
        assert_eq!(
            topic_command(&query.vhost, &users(&query)[1]).unwrap(),
            r"rabbitmqctl set_topic_permissions -p 'it'\''s' eu-retail shop.events '^(order|return|stock)\.' '^$'"
        );
    }
}
