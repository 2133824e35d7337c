//! The options of a private node.

use crate::ports::Ports;

/// The options of a node. Only the name is required.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    pub(crate) name: String,
    pub(crate) footprint: Footprint,
    pub(crate) data: Data,
    pub(crate) ports: Option<Ports>,
    pub(crate) plugins: Vec<String>,
    pub(crate) settings: Vec<String>,
    pub(crate) tls: Option<NodeTls>,
}

/// Additional TLS listeners of AMQP and of the management API, with their certificates as PEM.
#[derive(Debug, Clone)]
pub struct NodeTls {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The port of the management API over TLS, on 127.0.0.1 as well.
    pub management_port: u16,
    /// The certificate authority of the clients.
    pub authority: String,
    pub certificate: String,
    pub key: String,
    /// True if clients without a certificate are rejected. A presented certificate is verified in any case.
    pub certificate_required: bool,
}

impl NodeTls {
    /// The files of the listener, by name.
    pub(crate) fn files(&self) -> [(&'static str, &str); 3] {
        [
            ("tls-authority.pem", &self.authority),
            (TLS_CERTIFICATE, &self.certificate),
            (TLS_KEY, &self.key),
        ]
    }

    /// Returns the lines of `rabbitmq.conf` for listeners at these addresses, AMQP's and the management API's, with
    /// their files in this folder.
    pub(crate) fn settings(&self, amqp: &str, management: (&str, u16), folder: &str) -> String {
        let (ip, port) = management;
        let files = |listener: &str| {
            format!(
                "{listener}.cacertfile = {folder}/tls-authority.pem\n\
                 {listener}.certfile = {folder}/{TLS_CERTIFICATE}\n\
                 {listener}.keyfile = {folder}/{TLS_KEY}\n\
                 {listener}.verify = verify_peer\n\
                 {listener}.fail_if_no_peer_cert = {}\n",
                self.certificate_required
            )
        };
        format!(
            "listeners.ssl.1 = {amqp}\n\
             management.ssl.ip = {ip}\n\
             management.ssl.port = {port}\n\
             {}{}",
            files("ssl_options"),
            files("management.ssl"),
        )
    }
}

pub(crate) const TLS_CERTIFICATE: &str = "tls-certificate.pem";
pub(crate) const TLS_KEY: &str = "tls-key.pem";

/// The share of the machine that a node may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footprint {
    /// Two schedulers without core binding and a short write-ahead log: several nodes fit beside a build.
    Small,
    /// RabbitMQ's defaults, for measurements.
    Full,
}

/// The fate of a node's data when its owner drops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// The folder is deleted with the node. Any number of such nodes may have the same name.
    Deleted,
    /// The folder stays, and the next node of that name reuses its data, login and, if they are free, ports.
    Kept,
}

impl NodeOptions {
    /// A small node on free ports whose data is deleted in the end. The name is for people who read process lists and
    /// logs; each character other than a letter, digit or hyphen becomes a hyphen.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let safe = |letter: char| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' => letter,
            _ => '-',
        };
        Self {
            name: name.chars().map(safe).collect(),
            footprint: Footprint::Small,
            data: Data::Deleted,
            ports: None,
            plugins: vec!["rabbitmq_management".to_owned()],
            settings: Vec::new(),
            tls: None,
        }
    }

    /// Sets the share of the machine that the node may use.
    #[must_use]
    pub fn footprint(mut self, footprint: Footprint) -> Self {
        self.footprint = footprint;
        self
    }

    /// Sets the fate of the data.
    #[must_use]
    pub fn data(mut self, data: Data) -> Self {
        self.data = data;
        self
    }

    /// Uses exactly these ports; the start fails if one of them is taken.
    #[must_use]
    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports = Some(ports);
        self
    }

    /// Enables another RabbitMQ plugin.
    #[must_use]
    pub fn plugin(mut self, plugin: &str) -> Self {
        self.plugins.push(plugin.to_owned());
        self
    }

    /// Adds a listener for TLS.
    #[must_use]
    pub fn tls(mut self, tls: NodeTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Adds a line to `rabbitmq.conf`, for example `consumer_timeout = 10000`.
    #[must_use]
    pub fn setting(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }
}
