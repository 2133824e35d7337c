//! Whoever cannot be reached, or does not want us, is named together with the remedy.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use doorstep_messaging::{
    BrokerSettings, ConnectErrorKind, Inspector, Publisher, Refusal, Topology,
};
use doorstep_tests::Direction;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket},
};

use crate::support::{LONG, World, settings, within};

async fn error(settings: &BrokerSettings) -> doorstep_messaging::ConnectError {
    Inspector::connect(settings, "reaching test")
        .await
        .expect_err("nothing should be reachable there")
}

/// An address where nobody listens, nor can for as long as the socket is kept.
fn deaf() -> Result<(TcpSocket, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

#[tokio::test]
async fn nobody_listening_is_unreachable() -> Result<()> {
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
async fn someone_who_accepts_and_says_nothing_is_silent() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut settings = settings(&format!("amqp://{}", listener.local_addr()?))?;
    // Long enough to be let in.
    settings.connect_timeout = Duration::from_secs(2);
    let error = within(LONG, "giving up", error(&settings)).await?;
    assert_eq!(error.kind(), ConnectErrorKind::Silent);
    assert!(error.to_string().contains("has said nothing for"));
    // And nothing of the attempt is left: the other side sees the connection end.
    let (mut socket, _) = listener.accept().await?;
    within(LONG, "hanging up", async {
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut rest).await
    })
    .await??;
    Ok(())
}

#[tokio::test]
async fn someone_who_speaks_another_protocol_is_not_taken_for_a_broker() -> Result<()> {
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
    let world = World::new("password").await?;
    let address = &world.settings.addresses[0];
    let url = format!(
        "amqp://{}:wrong-secret@{}:{}/{}",
        address.user(),
        address.host(),
        address.port(),
        world.vhost()
    );
    let settings = settings(&url)?;
    let publisher = Publisher::start(&settings, "password test", Topology::none());
    // Permanent: said at once, not when the time is over.
    let error = within(LONG, "the answer", publisher.ready(LONG * 10))
        .await?
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ConnectErrorKind::Refused(Refusal::Credentials)
    );
    let text = error.to_string();
    assert!(text.contains("rabbitmqctl add_user"), "{text}");
    assert!(!text.contains("wrong-secret"), "{text}");
    publisher.close(Duration::from_secs(1)).await;
    Ok(())
}

#[tokio::test]
async fn a_virtual_host_that_does_not_exist_is_named_with_the_command_to_create_it() -> Result<()> {
    let world = World::new("vhost").await?;
    let settings = world.settings.clone().with_vhost("no-such-vhost");
    let error = error(&settings).await;
    assert_eq!(
        error.kind(),
        ConnectErrorKind::Refused(Refusal::VirtualHost)
    );
    let text = error.to_string();
    assert!(
        text.contains("rabbitmqctl add_vhost no-such-vhost"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_virtual_host_of_others_is_named_with_the_command_to_get_in() -> Result<()> {
    let world = World::new("foreign").await?;
    let user = format!("stranger-{}", world.vhost());
    let created = user.clone();
    world
        .manage(move |broker, _| broker.management()?.create_user(&created, "word", ""))
        .await?;
    let address = &world.settings.addresses[0];
    let url = format!(
        "amqp://{user}:word@{}:{}/{}",
        address.host(),
        address.port(),
        world.vhost()
    );
    let error = error(&settings(&url)?).await;
    world
        .manage(move |broker, _| broker.management()?.delete_user(&user))
        .await?;
    assert_eq!(
        error.kind(),
        ConnectErrorKind::Refused(Refusal::VirtualHost)
    );
    let text = error.to_string();
    assert!(text.contains("rabbitmqctl set_permissions -p"), "{text}");
    Ok(())
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_does_not_answer() -> Result<()> {
    let world = World::new("second").await?;
    let (_kept, deaf) = deaf()?;
    let mut settings = world.settings.clone();
    settings
        .addresses
        .insert(0, format!("amqp://{deaf}").parse()?);
    let inspector = Inspector::connect(&settings, "second address").await?;
    inspector.close(LONG).await;
    Ok(())
}

#[tokio::test]
async fn a_reconnect_begins_with_the_address_that_worked_last() -> Result<()> {
    let world = World::new("sticky").await?;
    let proxy = world.proxy().await;
    // The first one accepts and says nothing, which costs the whole time that an address may take.
    let dead = world.proxy().await;
    dead.stall(Direction::ToClient);
    let mut settings = world.settings_by(&proxy)?;
    let first = world.settings_by(&dead)?.addresses[0].clone();
    settings.addresses.insert(0, first);
    // Long enough for the one that answers.
    settings.connect_timeout = Duration::from_secs(5);
    let publisher = Publisher::start(&settings, "sticky", Topology::none());
    publisher.ready(LONG).await?;
    assert_eq!((dead.accepted(), proxy.accepted()), (1, 1));
    proxy.cut();
    let mut state = publisher.state();
    within(LONG, "coming back", state.wait_for(|s| s.connections == 2)).await??;
    assert_eq!((dead.accepted(), proxy.accepted()), (1, 2));

    // And goes on to the next when that one is gone.
    proxy.refuse();
    dead.restore();
    within(LONG, "changing", state.wait_for(|s| s.connections == 3)).await??;
    assert_eq!(dead.accepted(), 2);
    Ok(())
}
