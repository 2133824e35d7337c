//! A request whose bytes no client can read: it ends the connection of whoever is given it, and must not do so for ever.

#![allow(
    clippy::unwrap_used,
    reason = "what cannot be made here fails the test that asks for it"
)]

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use doorstep_messaging::{
    AnswerSettings, Argument, AskSettings, Backoff, QueuePurpose, Requester, Responder, Topology,
};
use lapin::{BasicProperties, ConnectionProperties, options::BasicPublishOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

use crate::{
    rpc::{ECHO, echo, request},
    support::{LONG, World, until, within},
};

/// What becomes of these bytes on their way: text in no encoding.
const GOOD: &[u8] = b"@@@@@@@@";
const BAD: [u8; 8] = [0xff; 8];

/// Leads one connection to the broker, and spoils what it says. Returns the port.
async fn spoiling(host: String, port: u16) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let own = listener.local_addr()?.port();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await?;
        let mut broker = TcpStream::connect((host, port)).await?;
        let (mut from_client, mut to_client) = client.split();
        let (mut from_broker, mut to_broker) = broker.split();
        let spoil = async {
            let mut bytes = vec![0; 65_536];
            loop {
                let read = from_client.read(&mut bytes).await?;
                let said = &mut bytes[..read];
                if let Some(at) = said.windows(GOOD.len()).position(|w| w == GOOD) {
                    said[at..at + BAD.len()].copy_from_slice(&BAD);
                }
                to_broker.write_all(said).await?;
                if read == 0 {
                    return std::io::Result::Ok(0);
                }
            }
        };
        tokio::try_join!(spoil, copy(&mut from_broker, &mut to_client))
    });
    Ok(own)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_answers_again_once_the_time_of_an_unreadable_request_is_over() -> Result<()> {
    let mut world = World::new("rpc-poison").await?;
    let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
    world.settings.backoff = backoff.unwrap();
    let mut topology = Topology::of(world.namespace(), &[ECHO]);
    for queue in &mut topology.queues {
        if queue.purpose == QueuePurpose::Rpc {
            // Ten minutes are too long for a test.
            let longest_wait = queue.arguments.get_mut("x-message-ttl").unwrap();
            *longest_wait = Argument::Number(3000);
        }
    }
    let (broker, answers) = (&world.settings, AnswerSettings::default());
    let server = Responder::start(broker, "test: answer", topology.clone(), "echo", answers);
    server.ready(LONG).await?;
    let server = Arc::new(server);
    let echo = echo(&server);
    let requester = Requester::start(broker, "test: ask", topology, AskSettings::default());
    requester.ready(LONG).await?;
    assert!(requester.ask(request("before", LONG)).await.is_ok());

    let address = &broker.addresses[0];
    let port = spoiling(address.host().to_owned(), address.port()).await?;
    let by_spoiling = world
        .amqp_url()
        .replace(&format!(":{}", address.port()), &format!(":{port}"));
    let stranger =
        lapin::Connection::connect(&by_spoiling, ConnectionProperties::default()).await?;
    let channel = stranger.create_channel().await?;
    let queue = world.namespace().rpc_queue(ECHO.role);
    // It says of itself that it may wait for ever.
    let mut server_is = server.state();
    channel
        .basic_publish(
            "".into(),
            queue.as_str().into(),
            BasicPublishOptions::default(),
            b"{}",
            BasicProperties::default().with_message_id(std::str::from_utf8(GOOD)?.into()),
        )
        .await?;
    // It may be back before anybody has looked.
    let lost = server_is.wait_for(|state| state.last_loss.is_some());
    within(LONG, "the end of the server's connection", lost).await??;
    until("it answers again", async || {
        let answer = requester
            .ask(request("after", Duration::from_secs(2)))
            .await;
        Ok(answer == Ok(Bytes::from("after")))
    })
    .await?;
    echo.abort();
    Ok(())
}
