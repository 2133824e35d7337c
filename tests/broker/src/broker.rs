//! A broker of any origin, and virtual hosts on it.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::address::AmqpAddress;
use crate::http;
use crate::management::Management;

/// The addresses of a broker that any process may have started.
#[derive(Debug, Clone)]
pub struct Broker {
    address: AmqpAddress,
    management: Option<Management>,
}

impl Broker {
    pub(crate) fn new(address: AmqpAddress, management: Option<Management>) -> Self {
        Self {
            address,
            management,
        }
    }

    /// Returns the AMQP address with user and password, for a client.
    #[must_use]
    pub fn amqp_url(&self) -> String {
        self.address.to_string()
    }

    #[must_use]
    pub fn address(&self) -> &AmqpAddress {
        &self.address
    }

    /// Returns the management API. A broker that was not started here may have none that accepts its user.
    ///
    /// # Errors
    /// If there is none, with the remedy.
    pub fn management(&self) -> Result<&Management> {
        self.management.as_ref().with_context(|| {
            format!(
                "the management API of the broker at {}:{} is needed here: enable its plugin rabbitmq_management and \
                 give its address, http://user:password@host:15672, in {}",
                self.address.host,
                self.address.port,
                crate::find::MANAGEMENT_URL,
            )
        })
    }

    /// Returns the same broker with another of its virtual hosts, which must exist.
    #[must_use]
    pub fn with_vhost(&self, vhost: &str) -> Self {
        Self {
            address: self.address.with_vhost(vhost),
            management: self.management.clone(),
        }
    }

    /// Creates a virtual host for one test, named by `hint` and a unique suffix. Deleted on drop.
    ///
    /// # Errors
    /// If the broker has no management API or rejects the request.
    pub fn new_vhost(&self, hint: &str) -> Result<Vhost> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{hint}-{}-{count}", std::process::id());
        self.management()?.create_vhost(&name)?;
        Ok(Vhost {
            broker: self.with_vhost(&name),
        })
    }
}

/// A temporary virtual host, deleted with its contents on drop.
#[derive(Debug)]
pub struct Vhost {
    broker: Broker,
}

impl Vhost {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.broker.address.vhost
    }

    /// Returns the AMQP address of this virtual host.
    #[must_use]
    pub fn amqp_url(&self) -> String {
        self.broker.amqp_url()
    }

    /// Returns the broker with this virtual host.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        // The broker may be down on purpose by now, and a private node deletes everything in the end.
        if let Ok(management) = self.broker.management() {
            let _ = management.delete_vhost(self.name());
        }
    }
}

/// Returns true if an AMQP 0-9-1 broker answers: it sends a method frame once it has received the protocol header.
pub(crate) fn greets(host: &str, port: u16) -> bool {
    let greeting = || -> Result<u8> {
        let mut stream = http::connect(host, port)?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0])
    };
    greeting().is_ok_and(|frame_type| frame_type == 1)
}
