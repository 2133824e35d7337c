//! A virtual host as the management API shows it. Counts may be some seconds old, lists are current.

use doorstep_broker::{Management, percent_encoded};
use serde_json::Value;

/// A view of one virtual host through the management API. Every call blocks its thread for a moment, with a timeout.
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

    /// Returns the client-given names of the connections in this virtual host, sorted.
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

    /// Returns the broker's names of the connections with this client-given name.
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

    /// Closes the connections with this client-given name, as an administrator would. Returns their number.
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

    /// Deletes a queue with its messages, as an administrator would.
    ///
    /// # Panics
    /// If the API rejects it.
    pub fn delete_queue(&self, queue: &str) {
        let path = format!(
            "/api/queues/{}/{}",
            self.encoded_vhost(),
            percent_encoded(queue)
        );
        tokio::task::block_in_place(|| self.management.delete(&path)).unwrap();
    }

    /// Returns the consumers, as queue and tag, sorted.
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

    /// Returns the names of the queues, sorted.
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

    /// Returns the names of the exchanges other than the broker's own, sorted.
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
