//! The permissions of users in a virtual host, which the API shows to administrators only.

use std::collections::BTreeSet;

use doorstep_messaging::{Finding, TopicPermissions};
use serde::Deserialize;

use super::{Management, ManagementError};

/// The users of a virtual host and their topic permissions there.
#[derive(Debug)]
pub struct Granted {
    users: BTreeSet<String>,
    topics: Vec<Topics>,
    vhost: String,
}

#[derive(Debug, Deserialize)]
struct User {
    user: String,
}

#[derive(Debug, Deserialize)]
struct Topics {
    user: String,
    #[serde(flatten)]
    rights: TopicPermissions,
}

/// Reads the users with any permission in the virtual host, and their topic permissions.
///
/// # Errors
/// The API request failed, or its user is no administrator.
pub async fn read(management: &Management) -> Result<Granted, ManagementError> {
    let users: Vec<User> = management.of_vhost("permissions").await?;
    Ok(Granted {
        users: users.into_iter().map(|user| user.user).collect(),
        topics: management.of_vhost("topic-permissions").await?,
        vhost: management.vhost().to_owned(),
    })
}

impl Granted {
    /// Returns the users with any permission in the virtual host.
    #[must_use]
    pub fn users(&self) -> &BTreeSet<String> {
        &self.users
    }

    /// Returns the difference between the topic permissions of a user and the wanted ones, of which one is enough. A
    /// user that does not exist has none.
    #[must_use]
    pub fn compare(&self, user: &str, wanted: &[TopicPermissions]) -> Option<Finding> {
        let first = wanted.first().filter(|_| self.users.contains(user))?;
        let there = self
            .topics
            .iter()
            .find(|topics| topics.user == user && topics.rights.exchange == first.exchange)
            .map(|topics| &topics.rights);
        if there.is_some_and(|there| wanted.contains(there)) {
            return None;
        }
        Some(Finding::TopicsDiffer {
            user: user.to_owned(),
            there: there.cloned(),
            wanted: first.clone(),
            vhost: self.vhost.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(write: &str, read: &str) -> TopicPermissions {
        TopicPermissions {
            exchange: "shop.events".to_owned(),
            write: write.to_owned(),
            read: read.to_owned(),
        }
    }

    #[test]
    fn topic_permissions_are_compared_for_existing_users() {
        let topics = |user: &str, rights| Topics {
            user: user.to_owned(),
            rights,
        };
        let granted = Granted {
            users: ["a", "b", "c"].map(str::to_owned).into(),
            topics: vec![
                topics("a", rights("^order\\.", "^$")),
                topics("b", rights(".*", "^$")),
            ],
            vhost: "eu".to_owned(),
        };
        let wanted = [
            rights("^order\\.", "^(order|stock)\\.#$"),
            rights("^order\\.", "^$"),
        ];
        assert_eq!(granted.compare("a", &wanted), None);
        assert_eq!(granted.compare("nobody", &wanted), None);
        assert_eq!(granted.compare("c", &[]), None);
        let text = granted.compare("b", &wanted).unwrap().to_string();
        assert!(text.contains("may publish .* and bind ^$"), "{text}");
        let text = granted.compare("c", &wanted).unwrap().to_string();
        assert!(text.contains("no topic permissions"), "{text}");
        let remedy = r"rabbitmqctl set_topic_permissions -p eu c shop.events '^order\.' '^(order|stock)\.#$'";
        assert!(text.ends_with(remedy), "{text}");
    }
}
