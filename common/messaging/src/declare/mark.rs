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
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions},
    types::{FieldTable, ShortString},
};

use crate::{
    asker::{Answer, Asker},
    connection::Connection,
    error::{ConnectError, reply},
    message::short,
    names::QueueName,
};

/// Whether a queue's loss would be noticed from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Marked {
    /// It would.
    Yes,
    /// Not by this user, who may neither look for the mark nor make it, for this reason.
    Forbidden(String),
    /// The broker cannot say for now; it is asked again with the next connection.
    Unknown,
}

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
) -> Result<Marked, ConnectError> {
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
    let marked = match asker.ask(declare(true)).await? {
        // It is bound: the broker deletes it with its binding, and whoever makes it binds it at once.
        Answer::Yes(()) => Marked::Yes,
        Answer::No(reply::NOT_FOUND, _) => {
            missing_mark(&mut asker, &name, queue, declare(false), missing).await?
        }
        Answer::No(code, reason) => said_no(queue, code, reason),
        Answer::Silence => silent(queue),
    };
    asker.finish().await;
    Ok(marked)
}

async fn missing_mark(
    asker: &mut Asker<'_>,
    name: &str,
    queue: &QueueName,
    declare: impl AsyncFnOnce(Channel) -> lapin::Result<()>,
    missing: impl FnOnce(),
) -> Result<Marked, ConnectError> {
    // Who may make the mark and not bind it would find it missing each time. Unbinding asks for the same rights as binding does, and
    // there is nothing to unbind.
    let may_bind = async |channel: Channel| {
        channel
            .queue_unbind(
                short(queue.as_str()),
                short(name),
                ShortString::default(),
                FieldTable::default(),
            )
            .await
    };
    if let Answer::No(code @ reply::ACCESS_REFUSED, reason) = asker.ask(may_bind).await? {
        return Ok(said_no(queue, code, reason));
    }
    match asker.ask(declare).await? {
        Answer::Yes(()) => {}
        Answer::No(code, reason) => return Ok(said_no(queue, code, reason)),
        Answer::Silence => return Ok(silent(queue)),
    }
    missing();
    let bind = async |channel: Channel| {
        channel
            .queue_bind(
                short(queue.as_str()),
                short(name),
                ShortString::default(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
    };
    let unbound = match asker.ask(bind).await? {
        Answer::Yes(()) => return Ok(Marked::Yes),
        Answer::No(code, reason) => said_no(queue, code, reason),
        Answer::Silence => silent(queue),
    };
    // A mark that hangs on nothing would stay for good.
    let unmake = async |channel: Channel| {
        channel
            .exchange_delete(short(name), ExchangeDeleteOptions::default())
            .await
    };
    asker.ask(unmake).await?;
    Ok(unbound)
}

fn said_no(queue: &QueueName, code: u16, reason: String) -> Marked {
    if code == reply::ACCESS_REFUSED {
        return Marked::Forbidden(reason);
    }
    tracing::debug!(%queue, reason, "the queue cannot be marked for now");
    Marked::Unknown
}

fn silent(queue: &QueueName) -> Marked {
    tracing::debug!(%queue, "no answer about the queue's mark");
    Marked::Unknown
}
