//! TLS to a private node: accepted certificates, error messages, and complete programs.

use std::{net::TcpListener, path::PathBuf, time::Duration};

use doorstep_broker::{NodeOptions, NodeTls, PrivateNode, percent_encoded};
use doorstep_messaging::{
    Address, BrokerSettings, ClientFiles, ConnectError, ConnectErrorKind, Denial, Publisher,
    ServerProperties, TlsErrorKind, TlsSettings, Topology,
};
use doorstep_tests::{Ended, Program, TempDir, wait_for};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, date_time_ymd,
};
use tokio::task::block_in_place;

use crate::SOON;

/// Long enough for a program to start on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A certificate with its key, as PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn new(certificate: &Certificate, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    fn self_signed(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        Self::new(&params.self_signed(&key).unwrap(), &key)
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        Pair::new(&params.signed_by(&key, &self.issuer).unwrap(), &key)
    }

    /// Returns a certificate for the node's name as its clients use it.
    fn server(&self) -> Pair {
        self.sign(named("the broker", &["localhost", "127.0.0.1"]))
    }

    fn client(&self, name: &str) -> Pair {
        let mut params = named(name, &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A node with a TLS listener, and the files of its clients.
struct TlsEnv {
    node: PrivateNode,
    port: u16,
    management_port: u16,
    authority: Authority,
    scratch: TempDir,
}

impl TlsEnv {
    async fn new(hint: &str, certificate_required: bool) -> Self {
        let authority = Authority::new("an authority");
        let server = authority.server();
        // Both are kept until both are known.
        let [amqp, management] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, management_port] =
            [&amqp, &management].map(|listener| listener.local_addr().unwrap().port());
        drop((amqp, management));
        let options = NodeOptions::named(hint)
            .plugin("rabbitmq_auth_mechanism_ssl")
            .setting("auth_mechanisms.1 = PLAIN")
            .setting("auth_mechanisms.2 = EXTERNAL")
            .setting("ssl_cert_login_from = common_name")
            .tls(NodeTls {
                port,
                management_port,
                authority: authority.certificate.clone(),
                certificate: server.certificate,
                key: server.key,
                certificate_required,
            });
        let node = block_in_place(|| PrivateNode::start(options)).unwrap();
        let env = Self {
            node,
            port,
            management_port,
            authority,
            scratch: TempDir::new(hint),
        };
        env.file("ca.pem", &env.authority.certificate);
        env
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn trusting(&self) -> TlsSettings {
        TlsSettings {
            ca_file: Some(self.scratch.join("ca.pem")),
            client: None,
        }
    }

    fn showing(&self, name: &str, pair: &Pair) -> TlsSettings {
        TlsSettings {
            client: Some(ClientFiles {
                certificate: self.file(&format!("{name}.pem"), &pair.certificate),
                key: self.file(&format!("{name}.key"), &pair.key),
            }),
            ..self.trusting()
        }
    }

    /// Returns the node's address with another scheme, host and port, and the same login.
    fn url(&self, scheme: &str, port: u16) -> String {
        let broker = self.node.broker();
        let address = broker.address();
        format!(
            "{scheme}://{}:{}@localhost:{port}/{}",
            address.user,
            percent_encoded(&address.password),
            percent_encoded(&address.vhost),
        )
    }

    /// Returns the management API's address over TLS, with the user and without the password.
    fn management_url(&self) -> String {
        let broker = self.node.broker();
        format!(
            "https://{}@localhost:{}",
            broker.address().user,
            self.management_port
        )
    }

    /// Verifies one role's queues with the management API over TLS, and with these variables.
    async fn verified(&self, variables: &[(&'static str, PathBuf)]) -> Ended {
        let broker = self.node.broker();
        let secret = self.file("password", &broker.address().password);
        let mut program = Program::consumers(&["topology", "verify", "tracking"])
            .broker(&broker.amqp_url())
            .variable("DOORSTEP_MANAGEMENT_URL", self.management_url())
            .variable("DOORSTEP_MANAGEMENT_PASSWORD_FILE", secret);
        for (name, value) in variables {
            program = program.variable(name, value);
        }
        let ended = program.run(&self.scratch, LIMIT).await;
        let secret = &broker.address().password;
        for text in [&ended.stdout, &ended.stderr] {
            assert!(!text.contains(secret.as_str()), "{text}");
        }
        ended
    }

    fn show(&self, pair: &Pair) {
        block_in_place(|| self.node.show_certificate(&pair.certificate, &pair.key)).unwrap();
    }

    /// Connects once.
    async fn connect(&self, url: &str, tls: TlsSettings) -> Result<(), ConnectError> {
        let settings = BrokerSettings {
            tls,
            ..BrokerSettings::new(url, "test").unwrap()
        };
        let publisher = Publisher::start(&settings, "tls", Topology::none());
        let ready = publisher.ready(LIMIT).await;
        if ready.is_ok() {
            let greeting =
                ServerProperties::fetch(&settings.addresses[0], &settings.tls, SOON).await;
            assert_eq!(greeting.unwrap().product, "RabbitMQ");
        }
        publisher.close(SOON).await;
        ready
    }

    /// Checks that a connection fails permanently with this kind and a message with this remedy.
    async fn fails(&self, url: &str, tls: TlsSettings, kind: TlsErrorKind, remedy: &str) {
        let error = self.connect(url, tls.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::Tls(kind), "{error}");
        assert!(error.is_permanent(), "{error}");
        let text = error.to_string();
        assert!(text.contains(remedy), "{remedy} in {text}");
        let broker = self.node.broker();
        assert!(!text.contains(&broker.address().password), "{text}");
        // The version check accepts no other server.
        let greeting = ServerProperties::fetch(&url.parse().unwrap(), &tls, SOON).await;
        assert_eq!(greeting, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_valid_server_certificates_are_accepted() {
    let env = TlsEnv::new("tls", false).await;
    let url = env.url("amqps", env.port);
    let trusting = || env.trusting();

    env.connect(&url, trusting()).await.unwrap();
    let nobody = TlsSettings::default();
    let remedy = "DOORSTEP_TLS_CA_FILE";
    env.fails(&url, nobody, TlsErrorKind::UnknownIssuer, remedy)
        .await;

    env.show(&Pair::self_signed(named("itself", &["localhost"])));
    env.fails(&url, trusting(), TlsErrorKind::UnknownIssuer, remedy)
        .await;
    let mut authority = named("an authority itself", &["localhost"]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = Pair::self_signed(authority);
    env.show(&authority);
    let itself = TlsSettings {
        ca_file: Some(env.file("itself.pem", &authority.certificate)),
        client: None,
    };
    let kind = TlsErrorKind::AuthorityAsServer;
    env.fails(&url, itself, kind, "sign one").await;

    env.show(&env.authority.sign(named("x", &["elsewhere.example"])));
    let remedy = "elsewhere.example";
    env.fails(&url, trusting(), TlsErrorKind::WrongName, remedy)
        .await;

    let mut old = named("old", &["localhost"]);
    old.not_before = date_time_ymd(2001, 1, 1);
    old.not_after = date_time_ymd(2002, 1, 1);
    env.show(&env.authority.sign(old));
    env.fails(&url, trusting(), TlsErrorKind::Expired, "renew it")
        .await;
    let mut early = named("early", &["localhost"]);
    early.not_before = date_time_ymd(2400, 1, 1);
    early.not_after = date_time_ymd(2401, 1, 1);
    env.show(&env.authority.sign(early));
    env.fails(&url, trusting(), TlsErrorKind::NotYetValid, "clock")
        .await;

    // Ports of the wrong kind, from both sides.
    let plain = env.url("amqps", env.node.ports().amqp);
    env.fails(&plain, trusting(), TlsErrorKind::NotTls, "5671")
        .await;
    let encrypted = env.url("amqp", env.port);
    env.fails(&encrypted, trusting(), TlsErrorKind::OnlyTls, "amqps://")
        .await;

    // A renewed certificate of the node is accepted without a restart.
    env.show(&env.authority.server());
    env.connect(&url, trusting()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_are_required_rejected_and_log_in() {
    let env = TlsEnv::new("tls-clients", true).await;
    let url = env.url("amqps", env.port);
    let kind = TlsErrorKind::ClientCertificateMissing;
    env.fails(&url, env.trusting(), kind, "--tls-cert-file")
        .await;
    let stranger = Authority::new("a stranger").client("shop");
    let kind = TlsErrorKind::ClientCertificateRefused;
    let showing = env.showing("stranger", &stranger);
    env.fails(&url, showing, kind, "cacertfile").await;

    let shop = env.showing("shop", &env.authority.client("shop"));
    env.connect(&url, shop.clone()).await.unwrap();

    // The management API requires it, too, with the same settings. Over plain AMQP the rest is verified all the same.
    let ca = ("DOORSTEP_TLS_CA_FILE", env.scratch.join("ca.pem"));
    // The reason may be lost if the connection is reset while the request is in flight.
    wait_for("a certificate is asked for", LIMIT, async || {
        let rejected = env.verified(std::slice::from_ref(&ca)).await;
        let output = &rejected.stdout;
        assert!(output.contains("bindings not compared"), "{output}");
        if output.contains("--tls-cert-file") {
            Ok(())
        } else {
            Err(rejected)
        }
    })
    .await;
    let certificate = ("DOORSTEP_TLS_CERT_FILE", env.scratch.join("shop.pem"));
    let key = ("DOORSTEP_TLS_KEY_FILE", env.scratch.join("shop.key"));
    let shown = env.verified(&[ca, certificate, key]).await;
    assert!(
        !shown.stdout.contains("bindings not compared"),
        "{} {}",
        shown.stdout,
        shown.stderr
    );

    // The certificate is the login, once there is a user of its name.
    let external: Address = url.parse().unwrap();
    let external = format!(
        "amqps://localhost:{}/{}?auth_mechanism=external",
        env.port,
        percent_encoded(external.vhost())
    );
    let error = env.connect(&external, shop.clone()).await.unwrap_err();
    let kind = ConnectErrorKind::Denied(Denial::Credentials);
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains("add_user"), "{error}");
    let broker = env.node.broker();
    block_in_place(|| {
        let management = env.node.management();
        management.create_user("shop", "unused", "").unwrap();
        management.grant("shop", &broker.address().vhost).unwrap();
    });
    env.connect(&external, shop).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_use_tls_and_show_no_password() {
    let env = TlsEnv::new("tls-programs", false).await;
    let broker = env.node.broker();
    let password = &broker.address().password;
    let secret = env.file("password", &format!("{password}\n"));
    let url = format!(
        "amqps://{}@localhost:{}/{}",
        broker.address().user,
        env.port,
        percent_encoded(&broker.address().vhost)
    );
    let with = |program: Program| {
        program
            .broker(&url)
            .store(&env.scratch.join("stores"))
            .variable("DOORSTEP_AMQP_PASSWORD_FILE", &secret)
            .variable("DOORSTEP_MANAGEMENT_URL", env.management_url())
            .variable("DOORSTEP_MANAGEMENT_PASSWORD_FILE", &secret)
            .variable("DOORSTEP_TLS_CA_FILE", env.scratch.join("ca.pem"))
            .variable("DOORSTEP_LOG", "trace")
    };
    let ran = async |arguments: &'static [&'static str], input: &str| {
        let program = if arguments[0] == "publish" {
            Program::producer(arguments)
        } else {
            Program::consumers(arguments)
        };
        let ended = with(program).input(input).run(&env.scratch, LIMIT).await;
        for text in [&ended.stdout, &ended.stderr] {
            assert!(!text.contains(password.as_str()), "{text}");
            assert!(!text.contains(&percent_encoded(password)), "{text}");
        }
        ended
    };
    let event = r#"{"specversion":"1.0","id":"1","source":"till/1","type":"order.cancelled.v1","subject":"order/1","sequence":"00000000000000000001","time":"2026-01-01T00:00:00Z","data":{"by":"customer","reason":"ordered twice"}}"#;
    let published = ran(&["publish"], event).await;
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    let worked = ran(&["run", "tracking", "--exit-when-idle", "1s"], "").await;
    assert_eq!(worked.code, Some(0), "{}", worked.stderr);
    let verified = ran(&["topology", "verify", "tracking"], "").await;
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    assert!(verified.stdout.contains("RabbitMQ"), "{}", verified.stdout);
    assert!(
        !verified.stdout.contains("bindings not compared"),
        "{}",
        verified.stdout
    );
    // The same certificate without its authority.
    let untrusted = env.verified(&[]).await;
    assert!(
        untrusted.stdout.contains("bindings not compared")
            && untrusted.stdout.contains("DOORSTEP_TLS_CA_FILE"),
        "{} {}",
        untrusted.stdout,
        untrusted.stderr
    );
}
