//! Broker settings: validated once, with their defaults.

use std::{str::FromStr, sync::Arc, time::Duration};

use doorstep_event::BrokerUser;
use doorstep_tls::TlsSettings;

use lapin::types::ShortString;

use crate::{
    amqp::short_string,
    connection::{
        address::{Address, AddressError},
        backoff::Backoff,
    },
};

/// Settings of the connection to the broker, and bounds of every wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerSettings {
    /// Tried in turn until one accepts.
    pub addresses: Vec<Address>,
    /// Trusted brokers for amqps, and the client certificate.
    pub tls: TlsSettings,
    /// User id of published messages.
    pub user_id: UserId,
    /// Broker users whose requests a role serves. `None` for all users, and for requests without a user id.
    pub rpc_callers: Option<Vec<BrokerUser>>,
    /// Prefix of every name at the broker.
    pub namespace: Namespace,
    /// Maximum time to open a connection to one address, and for one declaration.
    pub connect_timeout: Duration,
    /// Heartbeat interval of both sides, unless an address sets its own. A peer that is silent for twice as long counts as lost.
    pub heartbeat: Duration,
    /// Maximum wait for a publisher confirm, then its message is [`TimedOut`](crate::PublishOutcome::TimedOut).
    pub confirm_timeout: Duration,
    /// Maximum time that a publish waits for a broker that is unreachable or blocks publishing. Then it resolves with the reason.
    pub outage_timeout: Duration,
    /// Maximum time to write an ack, and for each last step of a connection that closes. Then the connection is dropped.
    pub ack_write_timeout: Duration,
    /// Maximum time that a delivery stays unacked, for example while a store is unavailable. Then consuming is suspended and the delivery
    /// returns to its queue. Must be well below the broker's `consumer_timeout`, 30 minutes by default.
    pub ack_timeout: Duration,
    /// Mean interval at which a subscription binds its queues again, in case a binding was deleted, and checks their markers.
    pub rebind_interval: Duration,
    /// Maximum number of published, unconfirmed messages.
    pub publish_window: usize,
    /// Maximum unacked deliveries per queue. Quorum queues allow at most 2,000.
    pub prefetch: u16,
    /// Maximum wait for the first connection at startup.
    pub start_timeout: Duration,
    /// Waits between attempts to connect.
    pub backoff: Backoff,
}

impl BrokerSettings {
    /// Creates settings for comma-separated addresses and a namespace, with defaults for everything else.
    ///
    /// # Errors
    /// Names the invalid address or the invalid part of the namespace, and the correct form. An address is identified by its position in
    /// the list, because its text may contain a password.
    pub fn new(url_list: &str, namespace: &str) -> Result<Self, SettingsError> {
        let mut addresses = Vec::new();
        for (index, text) in url_list.split(',').map(str::trim).enumerate() {
            if text.is_empty() {
                continue;
            }
            addresses.push(text.parse().map_err(|error| SettingsError::Address {
                number: index + 1,
                error,
            })?);
        }
        if addresses.is_empty() {
            return Err(SettingsError::NoAddress);
        }
        Ok(Self {
            addresses,
            tls: TlsSettings::default(),
            user_id: UserId::default(),
            rpc_callers: None,
            namespace: namespace.parse()?,
            connect_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(10),
            confirm_timeout: Duration::from_secs(30),
            outage_timeout: Duration::from_secs(5),
            ack_write_timeout: Duration::from_secs(10),
            ack_timeout: Duration::from_mins(5),
            rebind_interval: Duration::from_mins(1),
            publish_window: 1000,
            prefetch: 2000,
            start_timeout: Duration::from_secs(30),
            backoff: Backoff::default(),
        })
    }

    /// Returns the same settings with this password at every address.
    ///
    /// # Errors
    /// Names the address that contains another password.
    pub fn with_password(mut self, password: &str) -> Result<Self, SettingsError> {
        for (index, address) in self.addresses.iter_mut().enumerate() {
            let with = address.clone().with_password(password);
            *address = with.map_err(|error| SettingsError::Address {
                number: index + 1,
                error,
            })?;
        }
        Ok(self)
    }

    /// Returns the longest heartbeat of all addresses. After three times that, every peer has noticed a silent one.
    #[must_use]
    pub fn longest_heartbeat(&self) -> Duration {
        let heartbeats = self.addresses.iter().map(|address| {
            let own = address.heartbeat_seconds().map(u64::from);
            own.map_or(self.heartbeat, Duration::from_secs)
        });
        heartbeats.max().unwrap_or(self.heartbeat)
    }

    /// Waits before another attempt. Does not wait if there were no failures.
    pub(crate) async fn backoff_after(&self, failures: u32) {
        if let Some(repeats) = failures.checked_sub(1) {
            self.backoff.wait(repeats).await;
        }
    }

    /// Returns the number of failures in a row after losing a connection that lasted this long. A connection that is lost at once is not a
    /// success, so it must not reset the backoff.
    pub(crate) fn failures_after(&self, failures: u32, lasted: Duration) -> u32 {
        if lasted > self.backoff.ceiling(u32::MAX) {
            1
        } else {
            failures.saturating_add(1)
        }
    }

    /// Returns the user id of messages published over a connection to this address.
    pub(crate) fn user_id_at(&self, address: &Address) -> Option<ShortString> {
        match &self.user_id {
            // With a certificate, only the broker knows the user's name.
            UserId::OfAddress if address.is_external() => None,
            UserId::OfAddress => Some(short_string(address.user())),
            UserId::Named(user) => Some(short_string(user.as_str())),
            UserId::Absent => None,
        }
    }

    /// Returns the same settings in another virtual host.
    #[must_use]
    pub fn with_vhost(mut self, vhost: &str) -> Self {
        for address in &mut self.addresses {
            *address = address.clone().with_vhost(vhost);
        }
        self
    }
}

/// The user id of published messages. RabbitMQ rejects any other than the connection's user, so roles can rely on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum UserId {
    /// The user of the current address.
    #[default]
    OfAddress,
    /// A given name, if the broker knows the user by another name than the address does.
    Named(BrokerUser),
    /// No user id. Roles reject events of a source whose earlier events carried one.
    Absent,
}

impl FromStr for UserId {
    type Err = SettingsError;

    /// Parses a user id; `-` stands for none.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "-" => Ok(Self::Absent),
            "" => Err(SettingsError::UserId),
            name if name.len() > MAX_USER_ID_BYTES => Err(SettingsError::UserId),
            name => Ok(Self::Named(BrokerUser::new(name))),
        }
    }
}

/// Limit of AMQP's short strings.
const MAX_USER_ID_BYTES: usize = 255;

/// Prefix of all exchanges and queues of one Doorstep, so that several can share a virtual host.
#[derive(Clone, PartialEq, Eq, Hash, derive_more::Debug, derive_more::Display)]
#[debug("{_0:?}")]
pub struct Namespace(Arc<str>);

impl Namespace {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Leaves room for a role's name within the 255 bytes of a queue's name.
const MAX_NAMESPACE_BYTES: usize = 100;

impl FromStr for Namespace {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let invalid = || SettingsError::Namespace(text.to_owned());
        if text.len() > MAX_NAMESPACE_BYTES || !text.bytes().next().is_some_and(plain) {
            return Err(invalid());
        }
        if !text
            .bytes()
            .all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
        {
            return Err(invalid());
        }
        Ok(Self(text.into()))
    }
}

/// An invalid setting. The caller prefixes the name of the flag or variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("no address: give at least one, such as amqp://user:password@localhost:5672/%2f")]
    NoAddress,
    #[error("address {number}: {error}")]
    Address {
        /// Position in the list, from 1.
        number: usize,
        error: AddressError,
    },
    #[error("a user id has 1 to 255 bytes: shorten it, or write - for none")]
    UserId,
    #[error(
        "namespace {0:?} is invalid: use at most 100 of a-z, 0-9, dot, dash and underscore, and start with a letter or digit"
    )]
    Namespace(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_order() {
        let settings = BrokerSettings::new("amqp://a, amqp://b:5673/x", "doorstep").unwrap();
        let hosts: Vec<_> = settings.addresses.iter().map(Address::host).collect();
        assert_eq!(hosts, ["a", "b"]);
    }

    #[test]
    fn longest_heartbeat_includes_addresses_and_default() {
        let longest = |url_list| {
            let settings = BrokerSettings::new(url_list, "doorstep").unwrap();
            settings.longest_heartbeat().as_secs()
        };
        assert_eq!(longest("amqp://a/%2f?heartbeat=5"), 5);
        assert_eq!(longest("amqp://a/%2f?heartbeat=5,amqp://b"), 10);
        assert_eq!(longest("amqp://a/%2f?heartbeat=60,amqp://b"), 60);
    }

    #[test]
    fn an_invalid_address_is_named_by_position() {
        let error = BrokerSettings::new("amqp://a,amqp://u:secret@b:x", "doorstep").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("address 2: port"), "{text}");
        assert!(!text.contains("secret"));
        assert_eq!(
            BrokerSettings::new(" , ", "doorstep"),
            Err(SettingsError::NoAddress)
        );
    }

    #[test]
    fn a_namespace_allows_only_queue_name_characters() {
        for good in ["doorstep", "a", "4shop", "team-a.shop_1"] {
            assert!(good.parse::<Namespace>().is_ok(), "{good}");
        }
        let long = "a".repeat(101);
        for bad in ["", "Doorstep", ".a", "-a", "a b", "a/b", "ä", &long] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad}");
        }
    }
}
