//! Telling whether a queue is still the one that was consumed from before.
//!
//! A queue that was deleted and made again looks like the old one, whoever made it: the role's own connection, another role's, a
//! producer in another process. So whoever consumes from a queue marks it, with something that the broker takes away together with the
//! queue and that nobody else makes: an exchange that leads to that queue alone and is deleted with its last binding. Nothing is ever
//! published to it.
//!
//! The mark is looked for once consuming has begun. If it is there then, this is the queue that was marked: had that one been deleted
//! since consuming began, the broker would end the consumption, and before that, the mark would be gone.
//!
//! What cannot be told: that a queue was purged, or that it was restored together with its mark from exported definitions. And of several
//! processes of one role, the one that looks first makes the mark again, and alone reports.

use std::time::Duration;

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions},
    types::FieldTable,
};

use crate::{
    asker::{Answer, Asker},
    connection::Connection,
    error::{ConnectError, reply},
    names::QueueName,
};

/// Looks for a queue's mark, and makes it if it is missing. `missing` is called before it is made, so that whatever breaks after that,
/// the loss was reported. It is not called where a mark cannot be made, for want of permission or of a majority: it would be missing
/// each time.
///
/// # Errors
/// The connection is of no more use.
pub(crate) async fn check_mark(
    connection: &Connection,
    queue: &QueueName,
    limit: Duration,
    missing: impl FnOnce(),
) -> Result<(), ConnectError> {
    let mut asker = Asker::new(connection, limit);
    let name = queue.mark();
    let declare = |passive| {
        let name = name.as_str().into();
        let options = ExchangeDeclareOptions {
            passive,
            durable: true,
            auto_delete: true,
            internal: true,
            ..ExchangeDeclareOptions::default()
        };
        async move |channel: Channel| {
            let kind = ExchangeKind::Fanout;
            channel
                .exchange_declare(name, kind, options, FieldTable::default())
                .await
        }
    };
    match asker.ask(declare(true)).await? {
        // It is bound: the broker deletes it with its binding, and whoever makes it binds it at once.
        Answer::Yes(()) => {}
        Answer::No(reply::NOT_FOUND, _) => {
            missing_mark(&mut asker, &name, queue, declare(false), missing).await?;
        }
        Answer::No(_, reason) => tracing::debug!(%queue, reason, "no look at the queue's mark"),
        Answer::Silence => tracing::debug!(%queue, "no answer about the queue's mark"),
    }
    asker.finish().await;
    Ok(())
}

async fn missing_mark(
    asker: &mut Asker<'_>,
    name: &str,
    queue: &QueueName,
    declare: impl AsyncFnOnce(Channel) -> lapin::Result<()>,
    missing: impl FnOnce(),
) -> Result<(), ConnectError> {
    match asker.ask(declare).await? {
        Answer::Yes(()) => {}
        Answer::No(_, reason) => {
            tracing::debug!(%queue, reason, "the queue cannot be marked, its loss would not be noticed");
            return Ok(());
        }
        Answer::Silence => {
            tracing::debug!(%queue, "the queue cannot be marked for now");
            return Ok(());
        }
    }
    missing();
    let bind = async |channel: Channel| {
        channel
            .queue_bind(
                queue.as_str().into(),
                name.into(),
                "".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
    };
    if let Answer::Yes(()) = asker.ask(bind).await? {
        return Ok(());
    }
    // A mark that hangs on nothing would stay for good.
    let unmake = async |channel: Channel| {
        channel
            .exchange_delete(
                name.into(),
                lapin::options::ExchangeDeleteOptions::default(),
            )
            .await
    };
    asker.ask(unmake).await.map(drop)
}
