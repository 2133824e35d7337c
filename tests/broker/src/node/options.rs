//! What can be chosen about a private node.

use crate::ports::Ports;

/// The choices for a node. Only the name is needed.
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

/// Further listeners, over TLS, of AMQP and of the management API, with their certificates as PEM.
#[derive(Debug, Clone)]
pub struct NodeTls {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The port of the management API over TLS, on 127.0.0.1 as well.
    pub management_port: u16,
    /// The authority of the clients' certificates.
    pub authority: String,
    /// The node's certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// True if a client without a certificate is refused. One that has a certificate is looked at in any case.
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

    /// The lines of `rabbitmq.conf` for listeners at these places, AMQP's and the management API's, with their files in this folder.
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

/// How much of the machine a node may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footprint {
    /// Two schedulers that are bound to no core and a short write-ahead log: several nodes fit beside a build.
    Small,
    /// As RabbitMQ comes, for measuring.
    Full,
}

/// What becomes of a node's data when its owner drops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// The folder goes with the node. Any number of such nodes may have the same name.
    Deleted,
    /// The folder stays, and the next node of that name goes on with its data, login and, if they are free, ports.
    Kept,
}

impl NodeOptions {
    /// A small node with ports of its own choice whose data is deleted in the end. The name is for people who look at
    /// processes and logs; whatever is not a letter, digit or hyphen becomes a hyphen.
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

    /// Chooses how much of the machine the node may use.
    #[must_use]
    pub fn footprint(mut self, footprint: Footprint) -> Self {
        self.footprint = footprint;
        self
    }

    /// Chooses what becomes of the data.
    #[must_use]
    pub fn data(mut self, data: Data) -> Self {
        self.data = data;
        self
    }

    /// Uses exactly these ports; the start fails where one of them is taken.
    #[must_use]
    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports = Some(ports);
        self
    }

    /// Enables one more of RabbitMQ's plugins.
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
