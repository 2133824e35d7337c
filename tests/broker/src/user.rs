//! A temporary user with limited permissions.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::address::percent_encoded;
use crate::broker::Vhost;
use crate::management::Management;

/// A user in one virtual host, deleted on drop. Drop it before its virtual host.
#[derive(Debug)]
pub struct User {
    management: Management,
    name: String,
    amqp_url: String,
}

/// A user's permissions as patterns of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserPermissions<'a> {
    /// Permits to declare and delete.
    pub configure: &'a str,
    /// Permits to publish and bind to.
    pub write: &'a str,
    /// Permits to consume and bind from.
    pub read: &'a str,
}

const PASSWORD: &str = "word";

impl Vhost {
    /// Creates a user with these permissions in this virtual host and none elsewhere.
    ///
    /// # Errors
    /// As [`Management::get`]; only an administrator can create users.
    pub fn new_user(&self, hint: &str, rights: UserPermissions<'_>) -> Result<User> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{hint}-{}-{count}", std::process::id());
        let management = self.broker().management()?.clone();
        management.create_user(&name, PASSWORD, "")?;
        let mut address = self.broker().address().clone();
        address.user.clone_from(&name);
        PASSWORD.clone_into(&mut address.password);
        let user = User {
            management,
            name,
            amqp_url: address.to_string(),
        };
        user.may(self, rights)?;
        Ok(user)
    }
}

impl User {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address of its virtual host with its login.
    #[must_use]
    pub fn amqp_url(&self) -> &str {
        &self.amqp_url
    }

    /// Replaces its permissions. Open connections notice within a moment, or keep the old ones.
    ///
    /// # Errors
    /// As [`Management::get`].
    pub fn may(&self, vhost: &Vhost, rights: UserPermissions<'_>) -> Result<()> {
        let path = format!(
            "/api/permissions/{}/{}",
            percent_encoded(vhost.name()),
            percent_encoded(&self.name)
        );
        // Backslashes are the only characters in these patterns that JSON escapes.
        let pattern = |text: &str| text.replace('\\', "\\\\");
        let json = format!(
            r#"{{"configure":"{}","write":"{}","read":"{}"}}"#,
            pattern(rights.configure),
            pattern(rights.write),
            pattern(rights.read)
        );
        self.management.put(&path, &json).map(drop)
    }
}

impl User {
    /// Restricts it to routing keys of the pattern `write` when it publishes to a topic exchange, and of `read` when it
    /// binds. Declares the exchange, since RabbitMQ 4.3 accepts no permissions for a missing one.
    ///
    /// # Errors
    /// As [`Management::get`].
    pub fn may_on_topics(
        &self,
        vhost: &Vhost,
        exchange: &str,
        write: &str,
        read: &str,
    ) -> Result<()> {
        let (vhost_name, exchange_name) =
            (percent_encoded(vhost.name()), percent_encoded(exchange));
        let path = format!("/api/exchanges/{vhost_name}/{exchange_name}");
        let json = r#"{"type":"topic","durable":true}"#;
        self.management.put(&path, json)?;
        let path = format!(
            "/api/topic-permissions/{}/{}",
            percent_encoded(vhost.name()),
            percent_encoded(&self.name)
        );
        let pattern = |text: &str| text.replace('\\', "\\\\");
        let json = format!(
            r#"{{"exchange":"{exchange}","write":"{}","read":"{}"}}"#,
            pattern(write),
            pattern(read)
        );
        self.management.put(&path, &json).map(drop)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // The broker may be gone by now, and its users with it.
        let _ = self.management.delete_user(&self.name);
    }
}
