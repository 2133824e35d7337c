//! What the management API shows of a virtual host. Its numbers may be some seconds old, its lists are not.

use doorstep_broker::{Management, percent_encoded};
use serde_json::Value;

/// A look at one virtual host by the management API. Every call blocks its thread for a moment, under a bound.
#[derive(Debug)]
pub struct ManagementView {
    management: Management,
    vhost: String,
}

impl ManagementView {
    pub(crate) fn new(management: Management, vhost: &str) -> Self {
        Self {
            management,
            vhost: vhost.to_owned(),
        }
    }

    /// The names that clients have given to the connections in this virtual host, sorted.
    ///
    /// # Panics
    /// If the API does not answer.
    #[must_use]
    pub fn connection_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .connections()
            .into_iter()
            .map(|(_, given)| given)
            .collect();
        names.sort();
        names
    }

    /// The broker's own names of the connections to which clients have given this name.
    ///
    /// # Panics
    /// If the API does not answer.
    #[must_use]
    pub fn connections_called(&self, given: &str) -> Vec<String> {
        self.connections()
            .into_iter()
            .filter(|(_, name)| name == given)
            .map(|(own, _)| own)
            .collect()
    }

    /// Closes the connections to which clients have given this name, as an administrator would. Returns how many there were.
    ///
    /// # Panics
    /// If the API does not answer.
    #[must_use]
    pub fn close_connections_called(&self, given: &str) -> usize {
        let connections = self.connections_called(given);
        for own in &connections {
            self.management
                .delete(&format!("/api/connections/{}", percent_encoded(own)))
                .unwrap();
        }
        connections.len()
    }

    /// Deletes a queue with all that is in it, as an administrator would.
    ///
    /// # Panics
    /// If the API does not do so.
    pub fn delete_queue(&self, queue: &str) {
        let path = format!(
            "/api/queues/{}/{}",
            self.encoded_vhost(),
            percent_encoded(queue)
        );
        tokio::task::block_in_place(|| self.management.delete(&path)).unwrap();
    }

    /// The consumers, as queue and tag, sorted.
    ///
    /// # Panics
    /// If the API does not answer.
    #[must_use]
    pub fn consumers(&self) -> Vec<(String, String)> {
        let mut consumers: Vec<_> = self
            .list("consumers")
            .iter()
            .map(|c| (text(&c["queue"]["name"]), text(&c["consumer_tag"])))
            .collect();
        consumers.sort();
        consumers
    }

    /// The queues' names, sorted.
    ///
    /// # Panics
    /// If the API does not answer.
    #[must_use]
    pub fn queues(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .list("queues")
            .iter()
            .map(|q| text(&q["name"]))
            .collect();
        names.sort();
        names
    }

    /// The names of the exchanges that are not the broker's own, sorted.
    ///
    /// # Panics
    /// If the API does not answer.
    #[must_use]
    pub fn exchanges(&self) -> Vec<String> {
        let names = self.list("exchanges").into_iter().map(|e| text(&e["name"]));
        let mut names: Vec<_> = names
            .filter(|name| !name.is_empty() && !name.starts_with("amq."))
            .collect();
        names.sort();
        names
    }

    fn connections(&self) -> Vec<(String, String)> {
        self.list(&format!("vhosts/{}/connections", self.encoded_vhost()))
            .iter()
            .map(|c| {
                (
                    text(&c["name"]),
                    text(&c["client_properties"]["connection_name"]),
                )
            })
            .collect()
    }

    fn list(&self, what: &str) -> Vec<Value> {
        let path = if what.contains('/') {
            format!("/api/{what}")
        } else {
            format!("/api/{what}/{}", self.encoded_vhost())
        };
        let json = tokio::task::block_in_place(|| self.management.get(&path)).unwrap();
        serde_json::from_str(&json).unwrap()
    }

    fn encoded_vhost(&self) -> String {
        percent_encoded(&self.vhost)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
