//! TLS to a private node: which of its certificates are taken, what each failure is called, and whole programs over it.

use std::{net::TcpListener, path::PathBuf, time::Duration};

use doorstep_broker::{NodeOptions, NodeTls, PrivateNode, percent_encoded};
use doorstep_messaging::{
    Address, BrokerSettings, ClientFiles, ConnectError, ConnectErrorKind, Publisher, Refusal,
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

    /// Signed by its own key.
    fn self_signed(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        Self::new(&params.self_signed(&key).unwrap(), &key)
    }
}

/// An authority of certificates.
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

    /// A certificate for the node as its clients call it.
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

/// A node with a listener for TLS, and the files that its clients are given.
struct World {
    node: PrivateNode,
    port: u16,
    management_port: u16,
    authority: Authority,
    scratch: TempDir,
}

impl World {
    async fn new(hint: &str, certificate_required: bool) -> Self {
        let authority = Authority::new("an authority");
        let server = authority.server();
        // Both are held until both are known.
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
        let world = Self {
            node,
            port,
            management_port,
            authority,
            scratch: TempDir::new(hint),
        };
        world.file("ca.pem", &world.authority.certificate);
        world
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

    /// The node's address with another scheme, host and port, and the same login.
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

    /// The management API's address over TLS, with the user and without the password.
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

    /// Connects once, or says why not.
    async fn connect(&self, url: &str, tls: TlsSettings) -> Result<(), ConnectError> {
        let settings = BrokerSettings {
            tls,
            ..BrokerSettings::new(url, "test").unwrap()
        };
        let publisher = Publisher::start(&settings, "tls", Topology::none());
        let ready = publisher.ready(LIMIT).await;
        if ready.is_ok() {
            let greeting = ServerProperties::of(&settings.addresses[0], &settings.tls, SOON).await;
            assert_eq!(greeting.unwrap().product, "RabbitMQ");
        }
        publisher.close(SOON).await;
        ready
    }

    /// Fails to connect, for good, for this reason, in words with this remedy.
    async fn fails(&self, url: &str, tls: TlsSettings, kind: TlsErrorKind, remedy: &str) {
        let error = self.connect(url, tls).await.unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::Tls(kind), "{error}");
        assert!(error.is_permanent(), "{error}");
        let text = error.to_string();
        assert!(text.contains(remedy), "{remedy} in {text}");
        let broker = self.node.broker();
        assert!(!text.contains(&broker.address().password), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_taken_if_it_is_right_and_named_if_it_is_not() {
    let world = World::new("tls", false).await;
    let url = world.url("amqps", world.port);
    let trusting = || world.trusting();

    world.connect(&url, trusting()).await.unwrap();
    let nobody = TlsSettings::default();
    let remedy = "DOORSTEP_TLS_CA_FILE";
    world
        .fails(&url, nobody, TlsErrorKind::UnknownIssuer, remedy)
        .await;

    world.show(&Pair::self_signed(named("itself", &["localhost"])));
    world
        .fails(&url, trusting(), TlsErrorKind::UnknownIssuer, remedy)
        .await;
    let mut authority = named("an authority itself", &["localhost"]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = Pair::self_signed(authority);
    world.show(&authority);
    let itself = TlsSettings {
        ca_file: Some(world.file("itself.pem", &authority.certificate)),
        client: None,
    };
    let kind = TlsErrorKind::AuthorityAsServer;
    world.fails(&url, itself, kind, "sign one").await;

    world.show(&world.authority.sign(named("x", &["elsewhere.example"])));
    let remedy = "elsewhere.example";
    world
        .fails(&url, trusting(), TlsErrorKind::WrongName, remedy)
        .await;

    let mut old = named("old", &["localhost"]);
    old.not_before = date_time_ymd(2001, 1, 1);
    old.not_after = date_time_ymd(2002, 1, 1);
    world.show(&world.authority.sign(old));
    world
        .fails(&url, trusting(), TlsErrorKind::Expired, "renew it")
        .await;
    let mut early = named("early", &["localhost"]);
    early.not_before = date_time_ymd(2400, 1, 1);
    early.not_after = date_time_ymd(2401, 1, 1);
    world.show(&world.authority.sign(early));
    world
        .fails(&url, trusting(), TlsErrorKind::NotYetValid, "clock")
        .await;

    // Ports of the wrong kind, from both sides.
    let plain = world.url("amqps", world.node.ports().amqp);
    world
        .fails(&plain, trusting(), TlsErrorKind::NotTls, "5671")
        .await;
    let encrypted = world.url("amqp", world.port);
    world
        .fails(&encrypted, trusting(), TlsErrorKind::OnlyTls, "amqps://")
        .await;

    // What is renewed at the node is taken without a restart.
    world.show(&world.authority.server());
    world.connect(&url, trusting()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_client_is_required_refused_and_a_login() {
    let world = World::new("tls-clients", true).await;
    let url = world.url("amqps", world.port);
    let kind = TlsErrorKind::ClientCertificateMissing;
    world
        .fails(&url, world.trusting(), kind, "--tls-cert-file")
        .await;
    let stranger = Authority::new("a stranger").client("shop");
    let kind = TlsErrorKind::ClientCertificateRefused;
    let showing = world.showing("stranger", &stranger);
    world.fails(&url, showing, kind, "cacertfile").await;

    let shop = world.showing("shop", &world.authority.client("shop"));
    world.connect(&url, shop.clone()).await.unwrap();

    // The management API requires it, too, by the same settings. Over plain AMQP the rest is looked at all the same.
    let ca = ("DOORSTEP_TLS_CA_FILE", world.scratch.join("ca.pem"));
    // The reason may be lost with a connection that is reset while the request is on its way.
    wait_for("a certificate is asked for", LIMIT, async || {
        let refused = world.verified(std::slice::from_ref(&ca)).await;
        let told = &refused.stdout;
        assert!(told.contains("bindings not compared"), "{told}");
        if told.contains("--tls-cert-file") {
            Ok(())
        } else {
            Err(refused)
        }
    })
    .await;
    let certificate = ("DOORSTEP_TLS_CERT_FILE", world.scratch.join("shop.pem"));
    let key = ("DOORSTEP_TLS_KEY_FILE", world.scratch.join("shop.key"));
    let shown = world.verified(&[ca, certificate, key]).await;
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
        world.port,
        percent_encoded(external.vhost())
    );
    let error = world.connect(&external, shop.clone()).await.unwrap_err();
    let kind = ConnectErrorKind::Refused(Refusal::Credentials);
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains("add_user"), "{error}");
    let broker = world.node.broker();
    block_in_place(|| {
        let management = world.node.management();
        management.create_user("shop", "unused", "").unwrap();
        management.grant("shop", &broker.address().vhost).unwrap();
    });
    world.connect(&external, shop).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_publish_and_consume_over_tls_and_show_no_password() {
    let world = World::new("tls-programs", false).await;
    let broker = world.node.broker();
    let password = &broker.address().password;
    let secret = world.file("password", &format!("{password}\n"));
    let url = format!(
        "amqps://{}@localhost:{}/{}",
        broker.address().user,
        world.port,
        percent_encoded(&broker.address().vhost)
    );
    let with = |program: Program| {
        program
            .broker(&url)
            .store(&world.scratch.join("stores"))
            .variable("DOORSTEP_AMQP_PASSWORD_FILE", &secret)
            .variable("DOORSTEP_MANAGEMENT_URL", world.management_url())
            .variable("DOORSTEP_MANAGEMENT_PASSWORD_FILE", &secret)
            .variable("DOORSTEP_TLS_CA_FILE", world.scratch.join("ca.pem"))
            .variable("DOORSTEP_LOG", "trace")
    };
    let ran = async |arguments: &'static [&'static str], input: &str| {
        let program = if arguments[0] == "publish" {
            Program::producer(arguments)
        } else {
            Program::consumers(arguments)
        };
        let ended = with(program).input(input).run(&world.scratch, LIMIT).await;
        for text in [&ended.stdout, &ended.stderr] {
            assert!(!text.contains(password.as_str()), "{text}");
            assert!(!text.contains(&percent_encoded(password)), "{text}");
        }
        ended
    };
    let event = r#"{"specversion":"1.0","id":"1","source":"till/1","type":"order.cancelled.v1","subject":"order/1","sequence":"00000000000000000001","time":"2026-01-01T00:00:00Z","data":{"by":"customer","reason":"ordered twice"}}"#;
    let published = ran(&["publish"], event).await;
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    let worked = ran(&["run", "tracking", "--until-idle", "1s"], "").await;
    assert_eq!(worked.code, Some(0), "{}", worked.stderr);
    let verified = ran(&["topology", "verify", "tracking"], "").await;
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    assert!(verified.stdout.contains("RabbitMQ"), "{}", verified.stdout);
    assert!(
        !verified.stdout.contains("bindings not compared"),
        "{}",
        verified.stdout
    );
    // The same certificate, and an authority that nobody has told of.
    let untrusted = world.verified(&[]).await;
    assert!(
        untrusted.stdout.contains("bindings not compared")
            && untrusted.stdout.contains("DOORSTEP_TLS_CA_FILE"),
        "{} {}",
        untrusted.stdout,
        untrusted.stderr
    );
}
