//! A broker that cannot be reached, or rejects the client, is reported together with the remedy.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use doorstep_messaging::{
    BrokerSettings, ConnectErrorKind, Denial, Inspector, Publisher, Topology,
};
use doorstep_tests::Direction;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket},
};

use crate::support::{LONG, TestEnv, settings, within};

async fn error(settings: &BrokerSettings) -> doorstep_messaging::ConnectError {
    Inspector::connect(settings, "reaching test")
        .await
        .expect_err("nothing should be reachable there")
}

/// Returns an address without a listener, reserved for as long as the socket is kept.
fn deaf() -> Result<(TcpSocket, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

#[tokio::test]
async fn a_port_without_listener_is_unreachable() -> Result<()> {
    let (_kept, deaf) = deaf()?;
    let settings = settings(&format!("amqp://u:secret@{deaf}"))?;
    let error = error(&settings).await;
    assert_eq!(error.kind(), ConnectErrorKind::Unreachable);
    assert!(!error.is_permanent());
    let text = error.to_string();
    assert!(text.contains(&deaf.port().to_string()), "{text}");
    assert!(text.contains("is the broker running there"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_unknown_host_is_unreachable() -> Result<()> {
    let error = error(&settings("amqp://no-such-host.invalid")?).await;
    assert_eq!(error.kind(), ConnectErrorKind::Unreachable);
    assert!(error.to_string().contains("no-such-host.invalid"));
    Ok(())
}

#[tokio::test]
async fn a_server_that_sends_nothing_is_silent() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut settings = settings(&format!("amqp://{}", listener.local_addr()?))?;
    // Long enough for the login.
    settings.connect_timeout = Duration::from_secs(2);
    let error = within(LONG, "giving up", error(&settings)).await?;
    assert_eq!(error.kind(), ConnectErrorKind::Silent);
    assert!(error.to_string().contains("has said nothing for"));
    // The attempt leaves nothing behind: the other side sees the connection end.
    let (mut socket, _) = listener.accept().await?;
    within(LONG, "hanging up", async {
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut rest).await
    })
    .await??;
    Ok(())
}

#[tokio::test]
async fn a_server_of_another_protocol_is_no_broker() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let settings = settings(&format!("amqp://{}", listener.local_addr()?))?;
    let web_server = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = error(&settings).await;
    assert!(!error.is_permanent(), "{error}");
    assert_ne!(error.kind(), ConnectErrorKind::Silent, "{error}");
    web_server.abort();
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_permanent_and_masked() -> Result<()> {
    let env = TestEnv::new("password").await?;
    let address = &env.settings.addresses[0];
    let url = format!(
        "amqp://{}:wrong-secret@{}:{}/{}",
        address.user(),
        address.host(),
        address.port(),
        env.vhost()
    );
    let settings = settings(&url)?;
    let publisher = Publisher::start(&settings, "password test", Topology::none());
    // Permanent: reported immediately, not when the time is over.
    let error = within(LONG, "the answer", publisher.ready(LONG * 10))
        .await?
        .unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Denied(Denial::Credentials));
    let text = error.to_string();
    assert!(text.contains("rabbitmqctl add_user"), "{text}");
    assert!(!text.contains("wrong-secret"), "{text}");
    publisher.close(Duration::from_secs(1)).await;
    Ok(())
}

#[tokio::test]
async fn a_missing_virtual_host_names_the_command() -> Result<()> {
    let env = TestEnv::new("vhost").await?;
    let settings = env.settings.clone().with_vhost("no-such-vhost");
    let error = error(&settings).await;
    assert_eq!(error.kind(), ConnectErrorKind::Denied(Denial::VirtualHost));
    let text = error.to_string();
    assert!(
        text.contains("rabbitmqctl add_vhost no-such-vhost"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_forbidden_virtual_host_names_the_command() -> Result<()> {
    let env = TestEnv::new("foreign").await?;
    let user = format!("stranger-{}", env.vhost());
    let created = user.clone();
    env.manage(move |broker, _| broker.management()?.create_user(&created, "word", ""))
        .await?;
    let address = &env.settings.addresses[0];
    let url = format!(
        "amqp://{user}:word@{}:{}/{}",
        address.host(),
        address.port(),
        env.vhost()
    );
    let error = error(&settings(&url)?).await;
    env.manage(move |broker, _| broker.management()?.delete_user(&user))
        .await?;
    assert_eq!(error.kind(), ConnectErrorKind::Denied(Denial::VirtualHost));
    let text = error.to_string();
    assert!(text.contains("rabbitmqctl set_permissions -p"), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_unreachable_address_is_followed_by_the_next() -> Result<()> {
    let env = TestEnv::new("second").await?;
    let (_kept, deaf) = deaf()?;
    let mut settings = env.settings.clone();
    settings
        .addresses
        .insert(0, format!("amqp://{deaf}").parse()?);
    let inspector = Inspector::connect(&settings, "second address").await?;
    inspector.close(LONG).await;
    Ok(())
}

#[tokio::test]
async fn a_reconnect_starts_at_the_last_address() -> Result<()> {
    let env = TestEnv::new("sticky").await?;
    let proxy = env.proxy().await;
    // The first one accepts and sends nothing, which costs the whole timeout of an address.
    let dead = env.proxy().await;
    dead.stall(Direction::ToClient);
    let mut settings = env.settings_by(&proxy)?;
    let first = env.settings_by(&dead)?.addresses[0].clone();
    settings.addresses.insert(0, first);
    // Long enough for the one that answers.
    settings.connect_timeout = Duration::from_secs(5);
    let publisher = Publisher::start(&settings, "sticky", Topology::none());
    publisher.ready(LONG).await?;
    assert_eq!((dead.accepted(), proxy.accepted()), (1, 1));
    proxy.cut();
    let mut state = publisher.status();
    within(LONG, "coming back", state.wait_for(|s| s.connections == 2)).await??;
    assert_eq!((dead.accepted(), proxy.accepted()), (1, 2));

    // The next address follows when that one is gone.
    proxy.reject_connections();
    dead.restore();
    within(LONG, "changing", state.wait_for(|s| s.connections == 3)).await??;
    assert_eq!(dead.accepted(), 2);
    Ok(())
}
